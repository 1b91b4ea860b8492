package child

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
)

// gathered is how many messages one call receives; each may hold many datagrams that the kernel has put together.
const gathered = 4

// maxMessage is that of a message, bytes.
const maxMessage = 1<<16 - 1

// receiver reads one socket. Datagrams of a message that find no place in one call of receive are the next one's: a
// sender may put together more of them than fit.
type receiver struct {
	raw  syscall.RawConn
	bind *bind
	last *endpoint // of the datagram before

	count, at int // messages that were read, and which of them is next
	offset    int // bytes of that one that were taken

	msgs     [gathered]mmsghdr
	parts    [gathered]unix.Iovec
	names    [gathered]sockaddr
	controls [gathered]control

	try   func(fd uintptr) bool // r.read, made once
	errno unix.Errno            // of the last try

	data [gathered][maxMessage]byte // last: the garbage collector looks no further than pointers are
}

func newReceiver(raw syscall.RawConn, b *bind) *receiver {
	r := &receiver{raw: raw, bind: b}
	r.try = r.read
	for i := range r.msgs {
		r.parts[i].Base = &r.data[i][0]
		r.parts[i].SetLen(maxMessage)
		h := &r.msgs[i].Msghdr
		h.Name, h.Control = (*byte)(unsafe.Pointer(&r.names[i])), &r.controls[i].bytes()[0]
		h.Iov = &r.parts[i]
		h.SetIovlen(1)
	}
	return r
}

// receive is a conn.ReceiveFunc.
func (r *receiver) receive(bufs [][]byte, sizes []int, eps []conn.Endpoint) (n int, err error) {
	for n == 0 {
		if r.at == r.count {
			if err := r.wait(); err != nil {
				return 0, err
			}
		}
		for n < len(bufs) && r.at < r.count {
			n += r.take(bufs[n:], sizes[n:], eps[n:])
		}
	}
	return n, nil
}

// take hands out what there is of the next message, as far as there is place.
func (r *receiver) take(bufs [][]byte, sizes []int, eps []conn.Endpoint) (n int) {
	m := &r.msgs[r.at]
	to, size := getControl(r.controls[r.at].bytes()[:m.Controllen])
	if size <= 0 {
		size = maxMessage
	}
	left := r.data[r.at][r.offset:m.n]
	for ; n < len(bufs) && len(left) > 0; n++ {
		one := left[:min(size, len(left))]
		sizes[n], left = copy(bufs[n], one), left[len(one):]
		eps[n] = r.endpoint(&r.names[r.at], to)
		r.offset += len(one)
	}
	if len(left) == 0 {
		r.at, r.offset = r.at+1, 0
	}
	return n
}

// endpoint is that of the datagram before where it is the same: mostly it is.
func (r *receiver) endpoint(from *sockaddr, to place) *endpoint {
	remote, port := getAddress(from)
	if now, moved := r.bind.now(at{remote, port}); moved {
		remote, port, to = now.place, now.port, place{}
	}
	if r.bind.turning() {
		to = place{}
	}
	if e := r.last; e == nil || e.remote != remote || e.port != port || e.local != to || e.forgot.Load() {
		r.last = &endpoint{remote: remote, port: port, local: to}
	}
	return r.last
}

// wait reads at least one message.
func (r *receiver) wait() error {
	r.count, r.at = 0, 0
	for i := range r.msgs {
		h := &r.msgs[i].Msghdr
		h.Namelen, h.Flags = unix.SizeofSockaddrInet6, 0
		h.SetControllen(maxControl)
	}
	if err := r.raw.Read(r.try); err != nil {
		return err
	}
	if r.errno != 0 {
		return r.errno
	}
	return nil
}

func (r *receiver) read(fd uintptr) bool {
	for {
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&r.msgs[0])), gathered, 0, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if r.errno = errno; errno == 0 {
			r.count = int(n)
		}
		return errno != unix.EAGAIN
	}
}
