package child

import (
	"errors"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
)

const (
	// maxSegments is how many datagrams a message may be cut into (Linux 6.9 takes twice as many).
	maxSegments = 64
	// maxPayload is that of a message over either family, bytes; IPv6 has room for 20 more.
	maxPayload = 1<<16 - 1 - 20 - 8
)

// batch is what one Send gives to the kernel.
type batch struct {
	msgs     [conn.IdealBatchSize]mmsghdr
	parts    [conn.IdealBatchSize]unix.Iovec // a datagram each; those of a message are neighbours
	controls [conn.IdealBatchSize]control
	name     sockaddr

	count, sent int                   // messages that there are, and that the kernel took
	used        int                   // parts of them
	try         func(fd uintptr) bool // b.write, made once
	errno       unix.Errno            // of the message that it did not take
}

var batches = sync.Pool{New: func() any {
	b := &batch{}
	b.try = b.write
	return b
}}

// pack makes messages of datagrams: as few as can be where segments says that the kernel cuts them, else one of each.
func (b *batch) pack(bufs [][]byte, to *endpoint, from place, segments bool) {
	b.count, b.sent, b.used = 0, 0, 0
	length := putAddress(&b.name, to.remote, to.port)
	for len(bufs) > 0 {
		n := 1
		if segments {
			n = alike(bufs)
		}
		b.add(bufs[:n], length, from)
		bufs = bufs[n:]
	}
}

// alike is how many of the first datagrams can be one message: all but the last are of one size.
func alike(bufs [][]byte) int {
	size := len(bufs[0])
	total := size
	for n := 1; ; n++ {
		if n == min(len(bufs), maxSegments) || len(bufs[n-1]) < size || len(bufs[n]) > size || total+len(bufs[n]) > maxPayload {
			return n
		}
		total += len(bufs[n])
	}
}

// add appends a message. Its datagrams are not copied together: the kernel gathers them.
func (b *batch) add(bufs [][]byte, name uint32, from place) {
	parts := b.parts[b.used : b.used+len(bufs)]
	b.used += len(bufs)
	for i, buf := range bufs {
		parts[i].Base = unsafe.SliceData(buf)
		parts[i].SetLen(len(buf))
	}
	c := b.controls[b.count].bytes()
	used := putSource(c, from)
	if len(bufs) > 1 {
		used += putSegments(c[used:], len(bufs[0]))
	}
	h := &b.msgs[b.count].Msghdr
	*h = unix.Msghdr{Name: (*byte)(unsafe.Pointer(&b.name)), Namelen: name, Iov: &parts[0]}
	h.SetIovlen(len(bufs))
	if used > 0 {
		h.Control = &c[0]
		h.SetControllen(used)
	}
	b.count++
}

// left is how many datagrams the kernel took, and how many are in the message that it did not.
func (b *batch) left() (taken, refused int) {
	for i := range b.msgs[:b.sent] {
		taken += int(b.msgs[i].Iovlen)
	}
	if b.sent < b.count {
		refused = int(b.msgs[b.sent].Iovlen)
	}
	return taken, refused
}

// write is for a RawConn: the kernel has taken everything, or says why not.
func (b *batch) write(fd uintptr) bool {
	for b.sent < b.count {
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&b.msgs[b.sent])), uintptr(b.count-b.sent), 0, 0, 0)
		switch errno {
		case 0:
			b.sent += int(n)
		case unix.EINTR:
		default:
			b.errno = errno
			return errno != unix.EAGAIN
		}
	}
	b.errno = 0
	return true
}

// flush sends the messages. With an error, sent of them have left.
func (b *batch) flush(raw syscall.RawConn) error {
	if err := raw.Write(b.try); err != nil {
		return err
	}
	if b.errno != 0 {
		return b.errno
	}
	return nil
}

// release lets go of the datagrams.
func (b *batch) release() {
	clear(b.parts[:])
	batches.Put(b)
}

// Send sends datagrams to an endpoint. What the kernel refuses for a reason that can be mended is sent again; at any other
// error what is left is not sent.
func (b *bind) Send(bufs [][]byte, to conn.Endpoint) error {
	e, ok := to.(*endpoint)
	if !ok {
		return conn.ErrWrongEndpointType
	}
	s := b.v6.Load()
	if e.remote.Is4() {
		s = b.v4.Load()
	}
	if s == nil {
		return unix.EAFNOSUPPORT
	}
	w := batches.Get().(*batch)
	defer w.release()
	sources := b.sources(e)
	at, whole := 0, true // whole messages of several datagrams
	for len(bufs) > 0 {
		w.pack(bufs, e, sources[at], whole && s.segments.Load())
		err := w.flush(s.raw)
		taken, refused := w.left()
		bufs = bufs[taken:]
		switch {
		case err == nil:
		case refused > 1 && errors.Is(err, unix.EIO):
			s.segments.Store(false) // the device cannot checksum (up to Linux 6.10)
		case refused > 1 && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EMSGSIZE)):
			whole = false // they are longer than the way's MTU: only alone are they fragmented
		case sources[at].IsValid() && gone(err):
			at++
		default:
			return err
		}
	}
	if at > 0 {
		e.ClearSrc() // it was the source, and not that there is no way
	}
	return nil
}

// sources are the addresses to send from, the best first; the last is none, which leaves it to routes.
func (b *bind) sources(to *endpoint) (list [3]place) {
	n := 0
	for _, p := range []place{to.source(), b.configured(to)} {
		if p.IsValid() {
			list[n] = p
			n++
		}
	}
	return list
}

// gone says that an address may not be this machine's any more, or its interface not be there. IPv4 says of a strange
// source what it says where there is no route.
func gone(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENETUNREACH)
}
