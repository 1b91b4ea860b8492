package fib

import (
	"encoding/binary"
	"errors"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// buffers are of messages about routes, under the lock of the socket. The library takes 64 KB for each answer; of a million routes that
// was most of what the garbage collector had to do.
type buffers struct {
	out []byte
	in  [4096]byte
}

// route writes a route by a group, or removes one (group 0), and waits for the kernel's answer; see add, replace and remove.
func (k kernel) route(kind, flags int, r Route, scope uint8, group uint32) error {
	k.socket.Socket.Lock()
	defer k.socket.Socket.Unlock()
	seq := atomic.AddUint32(&k.socket.Seq, 1)
	b := binary.NativeEndian.AppendUint32(k.buffers.out[:0], 0) // struct nlmsghdr; the length follows
	b = binary.NativeEndian.AppendUint16(b, uint16(kind))
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.NLM_F_REQUEST|unix.NLM_F_ACK|flags))
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = binary.NativeEndian.AppendUint32(b, 0)
	family, addr := uint8(unix.AF_INET), r.Prefix.Addr()
	if addr.Is6() {
		family = unix.AF_INET6
	}
	// struct rtmsg: family, lengths of destination and source, TOS, table (an attribute), protocol, scope, type, flags
	b = append(b, family, uint8(r.Prefix.Bits()), 0, 0, unix.RT_TABLE_UNSPEC, Protocol, scope, unix.RTN_UNICAST, 0, 0, 0, 0)
	if addr.Is6() {
		octets := addr.As16()
		b = append(appendAttr(b, unix.RTA_DST, len(octets)), octets[:]...)
	} else {
		octets := addr.As4()
		b = append(appendAttr(b, unix.RTA_DST, len(octets)), octets[:]...)
	}
	b = binary.NativeEndian.AppendUint32(appendAttr(b, unix.RTA_TABLE, 4), uint32(r.Table))
	b = binary.NativeEndian.AppendUint32(appendAttr(b, unix.RTA_PRIORITY, 4), uint32(r.Metric))
	if group != 0 {
		b = binary.NativeEndian.AppendUint32(appendAttr(b, rtaNexthop, 4), group)
	}
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	k.buffers.out = b
	if err := unix.Sendto(k.socket.Socket.GetFd(), b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	return k.answer(seq)
}

// appendAttr is struct rtattr in front of a value of a multiple of four octets.
func appendAttr(b []byte, kind uint16, length int) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+length))
	return binary.NativeEndian.AppendUint16(b, kind)
}

// answer reads what the kernel says to a message. It has said so when the message is sent, so nothing is waited for.
func (k kernel) answer(seq uint32) error {
	fd, in := k.socket.Socket.GetFd(), k.buffers.in[:]
	for {
		n, from, err := unix.Recvfrom(fd, in, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.EAGAIN) {
			if _, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1); err == nil || errors.Is(err, unix.EINTR) {
				continue
			}
		}
		if err != nil {
			return err
		}
		if sender, is := from.(*unix.SockaddrNetlink); !is || sender.Pid != 0 { // anybody may send to the socket
			continue
		}
		for b := in[:n]; len(b) >= unix.SizeofNlMsghdr+4; {
			length := int(binary.NativeEndian.Uint32(b))
			if binary.NativeEndian.Uint16(b[4:]) == unix.NLMSG_ERROR && binary.NativeEndian.Uint32(b[8:]) == seq {
				if code := int32(binary.NativeEndian.Uint32(b[unix.SizeofNlMsghdr:])); code != 0 {
					return unix.Errno(-code)
				}
				return nil
			}
			b = b[min(len(b), max(unix.SizeofNlMsghdr, (length+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1))):]
		}
	}
}
