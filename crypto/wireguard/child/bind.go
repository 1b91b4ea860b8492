package child

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
)

// bind is the UDP side of the device: a socket for each family, on one port. An answer comes from the address that was
// spoken to, and what answers nothing from the configured one, where it can be. The library's own loses both where the kernel
// gathers datagrams.
type bind struct {
	mu     sync.Mutex // of Open and Close
	v4, v6 atomic.Pointer[socket]

	local   atomic.Pointer[netip.Addr] // configured; nil: none
	resting atomic.Bool                // its interface is down: routes know better
	turned  atomic.Int64               // when resting last changed, ns since 1970; 0: long ago
	left    atomic.Pointer[[]left]     // never changed; nil: no place was left lately
}

// socket is that of one family.
type socket struct {
	*net.UDPConn
	raw      syscall.RawConn
	segments atomic.Bool // the kernel cuts messages into datagrams
}

// socketRoom is that of a socket's queues, bytes.
const socketRoom = 7 << 20

var _ conn.Bind = (*bind)(nil)

// Open listens on port, or with 0 on any that both families have free.
func (b *bind) Open(port uint16) (receive []conn.ReceiveFunc, actual uint16, err error) {
	const tries = 100
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.v4.Load() != nil || b.v6.Load() != nil {
		return nil, 0, conn.ErrBindAlreadyOpen
	}
	var sockets []*socket
	for range tries {
		sockets, actual, err = listenBoth(port)
		if port != 0 || !errors.Is(err, unix.EADDRINUSE) {
			break
		}
	}
	if err != nil {
		return nil, 0, err
	}
	b.v4.Store(sockets[0])
	b.v6.Store(sockets[1])
	for _, s := range sockets {
		if s != nil {
			receive = append(receive, newReceiver(s.raw, b).receive)
		}
	}
	return receive, actual, nil
}

// listenBoth returns the sockets of IPv4 and IPv6; one that the kernel does not have is nil, but not both.
func listenBoth(port uint16) (both []*socket, actual uint16, err error) {
	for _, network := range []string{"udp4", "udp6"} {
		s, err := listenUDP(network, port)
		if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
			for _, other := range both {
				other.close()
			}
			return nil, 0, err
		}
		if both = append(both, s); s != nil {
			port = s.LocalAddr().(*net.UDPAddr).AddrPort().Port()
		}
	}
	if both[0] == nil && both[1] == nil {
		return nil, 0, unix.EAFNOSUPPORT
	}
	return both, port, nil
}

func listenUDP(network string, port uint16) (*socket, error) {
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		ctlErr := raw.Control(func(fd uintptr) { err = prepare(int(fd), network == "udp6") })
		return errors.Join(ctlErr, err)
	}}
	c, err := config.ListenPacket(context.Background(), network, ":"+strconv.Itoa(int(port)))
	if err != nil {
		return nil, err
	}
	s := &socket{UDPConn: c.(*net.UDPConn)}
	if s.raw, err = s.SyscallConn(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.segments.Store(true)
	return s, nil
}

// prepare sets what a socket needs before it is bound.
func prepare(fd int, v6 bool) error {
	// The sysctls net.core.[rw]mem_max bound the plain ones, and without CAP_NET_ADMIN those are what there is.
	for _, o := range [][2]int{{unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}, {unix.SO_SNDBUFFORCE, unix.SO_SNDBUF}} {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, o[0], socketRoom) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, o[1], socketRoom)
		}
	}
	level, option := unix.IPPROTO_IP, unix.IP_PKTINFO
	if v6 {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO
	}
	return errors.Join(unix.SetsockoptInt(fd, level, option, 1), unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1))
}

// close is for a socket that may be nil.
func (s *socket) close() error {
	if s == nil {
		return nil
	}
	return s.Close()
}

// Close ends what Open began: its functions return net.ErrClosed.
func (b *bind) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return errors.Join(b.v4.Swap(nil).close(), b.v6.Swap(nil).close())
}

// SetMark marks what is sent.
func (b *bind) SetMark(mark uint32) error {
	var failed []error
	for _, s := range []*socket{b.v4.Load(), b.v6.Load()} {
		if s == nil {
			continue
		}
		var err error
		ctlErr := s.raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(mark)) })
		failed = append(failed, ctlErr, err)
	}
	return errors.Join(failed...)
}

// ParseEndpoint reads ADDR:PORT.
func (b *bind) ParseEndpoint(text string) (conn.Endpoint, error) { return parseEndpoint(text) }

// BatchSize is the most datagrams of one call.
func (b *bind) BatchSize() int { return conn.IdealBatchSize }
