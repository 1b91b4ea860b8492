package probe

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Answer is a reply to one request of a Pinger.
type Answer struct {
	From netip.Addr
	Tag  uint64 // of the request
	At   time.Time
}

// Pinger sends single echo requests out of interfaces and hands on the replies, for who probes many addresses without
// end. All requests of a family share one raw socket, whose filter in the kernel takes the replies to them and nothing
// else: a flood of other replies neither wakes the process nor fills the socket. It is safe for concurrent use.
//
// A socket belongs to the network namespace of the thread that first pings in its family.
type Pinger struct {
	answered func(Answer)
	id       [2]byte // of all its requests: one flow for each address, as trackers see it
	nonce    [pingNonceLen]byte

	mu      sync.Mutex // held while a socket is used for sending: Close closes none of them before
	sockets [2]int     // IPv4, IPv6; 0: not needed yet
	closed  bool
	readers sync.WaitGroup
}

// A request's data are the Pinger's nonce and the tag, big endian; as long as those of a Prober.
const (
	pingNonceLen = 8
	pingLen      = headerLen + pingNonceLen + 8
)

// NewPinger makes a Pinger. answered is called for each reply, one at a time in each family; it must not block.
func NewPinger(answered func(Answer)) *Pinger {
	p := &Pinger{answered: answered}
	rand.Read(p.id[:])
	rand.Read(p.nonce[:])
	return p
}

// Close ends all answers.
func (p *Pinger) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, fd := range p.sockets {
		if fd != 0 {
			_ = unix.Shutdown(fd, unix.SHUT_RD) // wakes its reader, though it says that nothing is connected
		}
	}
	p.readers.Wait()
	var errs []error
	for i, fd := range p.sockets {
		if fd != 0 {
			errs = append(errs, os.NewSyscallError("close", unix.Close(fd)))
		}
		p.sockets[i] = 0
	}
	return errors.Join(errs...)
}

// Ping sends one request to an address out of the interface called link, whatever routes there are: over IPv4 none is
// needed (and a blackhole does not stop it), over IPv6 one by that interface is. It does not wait for the answer. It
// needs CAP_NET_RAW.
func (p *Pinger) Ping(link string, to netip.Addr, tag uint64) error {
	if err := p.ping(link, to.Unmap(), tag); err != nil {
		return fmt.Errorf("ping %s by %s: %w", to.Unmap(), link, err)
	}
	return nil
}

func (p *Pinger) ping(link string, to netip.Addr, tag uint64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	fd, err := p.socket(to.Is6())
	if err != nil {
		return err
	}
	index, err := indexOf(fd, link)
	if err != nil {
		return err
	}
	var control []byte
	var at unix.Sockaddr
	if to.Is6() {
		control, at = unix.PktInfo6(&unix.Inet6Pktinfo{Ifindex: index}), &unix.SockaddrInet6{Addr: to.As16()}
	} else {
		control, at = unix.PktInfo4(&unix.Inet4Pktinfo{Ifindex: int32(index)}), &unix.SockaddrInet4{Addr: to.As4()}
	}
	return os.NewSyscallError("sendmsg", unix.Sendmsg(fd, p.request(to.Is6(), tag), control, at, unix.MSG_DONTWAIT))
}

// indexOf asks the kernel in the socket's own namespace: a tunnel's device may be another one than a second ago.
func indexOf(fd int, link string) (index uint32, err error) {
	request, err := unix.NewIfreq(link)
	if err != nil {
		return 0, err
	}
	err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, request)
	return request.Uint32(), err
}

func (p *Pinger) request(v6 bool, tag uint64) []byte {
	m := make([]byte, headerLen, pingLen)
	m[0] = echoRequest4
	if v6 {
		m[0] = echoRequest6 // and the kernel fills in the checksum (RFC 3542)
	}
	copy(m[4:6], p.id[:])
	binary.BigEndian.PutUint16(m[6:], uint16(tag))
	m = binary.BigEndian.AppendUint64(append(m, p.nonce[:]...), tag)
	if !v6 {
		binary.BigEndian.PutUint16(m[2:], checksum(m))
	}
	return m
}

// socket is that of a family. It is not net's, whose poller would be woken by every answer.
func (p *Pinger) socket(v6 bool) (int, error) {
	if p.closed {
		return 0, net.ErrClosed
	}
	n, family, protocol := 0, unix.AF_INET, unix.IPPROTO_ICMP
	if v6 {
		n, family, protocol = 1, unix.AF_INET6, unix.IPPROTO_ICMPV6
	}
	if fd := p.sockets[n]; fd != 0 {
		return fd, nil
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	err = errors.Join(os.NewSyscallError("setsockopt SO_TIMESTAMPNS", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)), p.filter(fd, v6))
	if err != nil {
		return 0, errors.Join(err, unix.Close(fd))
	}
	p.sockets[n] = fd
	p.readers.Go(func() { p.read(fd) })
	return fd, nil
}

// gather is how long answers wait for others once one was read: those of a thousand peers would each wake the process. When they came
// the kernel says.
const gather = 10 * time.Millisecond

// read ends when the socket is shut down. It has a thread of its own, which sleeps in the kernel.
func (p *Pinger) read(fd int) {
	buf, oob := make([]byte, 128), make([]byte, 128)
	rest := unix.NsecToTimespec(int64(gather))
	for p.receive(fd, buf, oob, 0) {
		for p.receive(fd, buf, oob, unix.MSG_DONTWAIT) {
		}
		_ = unix.Nanosleep(&rest, nil)
	}
}

// receive reads one message, and says whether there was any. Errors but EAGAIN are those of earlier requests (EHOSTUNREACH, say), which
// the kernel tells the socket later.
func (p *Pinger) receive(fd int, buf, oob []byte, flags int) bool {
	n, controls, _, from, err := unix.Recvmsg(fd, buf, oob, flags)
	if err != nil {
		return !errors.Is(err, unix.EAGAIN)
	}
	message := buf[:n]
	var addr netip.Addr
	switch from := from.(type) {
	case *unix.SockaddrInet4:
		addr = netip.AddrFrom4(from.Addr)
		message = message[min(n, int(buf[0]&15)*4):] // behind the IP header, which an IPv6 socket does not see
	case *unix.SockaddrInet6:
		addr = netip.AddrFrom16(from.Addr)
	default:
		return false // nobody sent it: the socket is shut down
	}
	if len(message) >= pingLen {
		p.answered(Answer{From: addr, Tag: binary.BigEndian.Uint64(message[pingLen-8:]), At: arrival(oob[:controls], time.Now())})
	}
	return true
}

// arrival is when the kernel had a message (SCM_TIMESTAMPNS, by the wall clock), on the clocks of now.
func arrival(controls []byte, now time.Time) time.Time {
	list, err := unix.ParseSocketControlMessage(controls)
	if err != nil {
		return now
	}
	for _, m := range list {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= 16 {
			at := time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
			if waited := now.Sub(at); waited > 0 && waited < time.Second { // else the clock was set meanwhile
				return now.Add(-waited)
			}
		}
	}
	return now
}

// Where fields are, from the beginning of an ICMP message.
const offsetType, offsetNonce = 0, headerLen

// filter lets replies with the nonce in. A raw IPv4 socket sees the IP header, whose length is in it; an IPv6 one does
// not. What came before the filter stood is thrown away by its length or tells of a tag that nobody waits for.
func (p *Pinger) filter(fd int, v6 bool) error {
	const drop, take = 0, 1 << 16
	load := func(size uint16, at uint32) unix.SockFilter {
		mode := uint16(unix.BPF_IND) // from X on
		if v6 {
			mode = unix.BPF_ABS
		}
		return unix.SockFilter{Code: unix.BPF_LD | size | mode, K: at}
	}
	var program []unix.SockFilter
	reply := uint32(echoReply6)
	if !v6 {
		reply = echoReply4
		program = append(program, unix.SockFilter{Code: unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH}) // X = length of the IP header
	}
	for left, test := range []struct {
		size      uint16
		at, value uint32
	}{
		{unix.BPF_W, offsetNonce + 4, binary.BigEndian.Uint32(p.nonce[4:])},
		{unix.BPF_W, offsetNonce, binary.BigEndian.Uint32(p.nonce[:])},
		{unix.BPF_B, offsetType, reply},
	} {
		// Of three tests the first has four instructions between it and the drop at the end, the last none but the return.
		over := uint8(1 + 2*(2-left))
		program = append(program, load(test.size, test.at),
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: over, K: test.value})
	}
	program = append(program, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: take}, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: drop})
	return os.NewSyscallError("setsockopt SO_ATTACH_FILTER", unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}))
}
