package bfd

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// RFC 5881 section 4 and 5.
const (
	Port          = 3784
	firstSource   = 49152 // to 65535
	sources       = 1<<16 - firstSource
	sourceTries   = 100
	ttl           = 255  // GTSM: no router between us has taken one off
	trafficClass  = 0xc0 // DSCP CS6, as routing protocols have it
	receiveQueue  = 1 << 20
	senderQueue   = 1 // nobody should speak to a source port; the kernel makes it its least
	longestPacket = 256
)

// arrival is a packet with what the kernel says about it.
type arrival struct {
	from    netip.Addr // without a zone: that is ifindex
	ifindex int
	ttl     int
	payload []byte
}

// listener is the socket of a family on the port that peers send to.
type listener struct {
	*net.UDPConn
	read func(b []byte) (n, ttl, ifindex int, from net.Addr, err error)
}

func listen(network string) (*listener, error) {
	c, err := net.ListenUDP(network, &net.UDPAddr{Port: Port})
	if errors.Is(err, unix.EADDRINUSE) {
		return nil, fmt.Errorf("UDP port %d is in use: stop the other BFD daemon on this machine (`ss -lunp sport = :%d` names it): %w", Port, Port, err)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on UDP port %d: %w", Port, err)
	}
	l := &listener{UDPConn: c}
	if network == "udp4" {
		err = l.over4()
	} else {
		err = l.over6()
	}
	if err = errors.Join(err, c.SetReadBuffer(receiveQueue)); err != nil {
		return nil, errors.Join(fmt.Errorf("ask for TTL and interface of packets: %w", err), l.Close())
	}
	return l, nil
}

// over4 reads with IP_RECVTTL and IP_PKTINFO.
func (l *listener) over4() error {
	p := ipv4.NewPacketConn(l.UDPConn)
	l.read = func(b []byte) (n, ttl, ifindex int, from net.Addr, err error) {
		n, cm, from, err := p.ReadFrom(b)
		if cm != nil {
			ttl, ifindex = cm.TTL, cm.IfIndex
		}
		return n, ttl, ifindex, from, err
	}
	return p.SetControlMessage(ipv4.FlagTTL|ipv4.FlagInterface, true)
}

// over6 reads with IPV6_RECVHOPLIMIT and IPV6_RECVPKTINFO.
func (l *listener) over6() error {
	p := ipv6.NewPacketConn(l.UDPConn)
	l.read = func(b []byte) (n, ttl, ifindex int, from net.Addr, err error) {
		n, cm, from, err := p.ReadFrom(b)
		if cm != nil {
			ttl, ifindex = cm.HopLimit, cm.IfIndex
		}
		return n, ttl, ifindex, from, err
	}
	return p.SetControlMessage(ipv6.FlagHopLimit|ipv6.FlagInterface, true)
}

// next waits for a packet. Its payload lies in b.
func (l *listener) next(b []byte) (arrival, error) {
	n, ttl, ifindex, from, err := l.read(b)
	if err != nil {
		return arrival{}, err
	}
	return arrival{from: from.(*net.UDPAddr).AddrPort().Addr().Unmap().WithZone(""), ifindex: ifindex, ttl: ttl, payload: b[:n]}, nil
}

// queued reports whether packets wait to be read.
func (l *listener) queued() (yes bool) {
	raw, err := l.SyscallConn()
	if err != nil {
		return false
	}
	_ = raw.Control(func(fd uintptr) { // a closed socket has none
		n, err := unix.IoctlGetInt(int(fd), unix.SIOCINQ)
		yes = err == nil && n > 0
	})
	return yes
}

// sender is the socket that one session sends from, a plain one that never blocks: it is only written to, and the library would
// remember the index of a device that was made anew. It is opened by the first packet, and again after an error: its address
// or its device may have been away.
type sender struct {
	port int // 0: none yet. RFC 5881 section 4 wants one for the life of a session
	fd   int // 0: closed
}

func (s *sender) send(c Config, b []byte) error {
	if s.fd == 0 {
		if err := s.open(c); err != nil {
			return err
		}
	}
	err := unix.Sendto(s.fd, b, unix.MSG_DONTWAIT, c.socketAddress(s.fd, c.Peer, Port))
	if err != nil && !errors.Is(err, unix.EAGAIN) {
		s.close()
	}
	return err
}

func (s *sender) close() {
	if s.fd != 0 {
		_ = unix.Close(s.fd)
		s.fd = 0
	}
}

// open binds to a source port that no other socket of this machine has.
func (s *sender) open(c Config) error {
	family, local := unix.AF_INET, netip.IPv4Unspecified()
	if c.Peer.Is6() {
		family, local = unix.AF_INET6, netip.IPv6Unspecified()
	}
	if c.Local.IsValid() {
		local = c.Local
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	if err := c.prepare(fd); err != nil {
		return errors.Join(fmt.Errorf("set up the socket: %w", err), unix.Close(fd))
	}
	port := s.port
	for tries := 0; ; tries++ {
		if port == 0 {
			port = firstSource + rand.IntN(sources)
		}
		err := unix.Bind(fd, c.socketAddress(fd, local, port))
		if err == nil {
			s.port, s.fd = port, fd
			return nil
		}
		if !errors.Is(err, unix.EADDRINUSE) || tries == sourceTries {
			return errors.Join(fmt.Errorf("bind to %s: %w", local, err), unix.Close(fd))
		}
		port = 0
	}
}

// prepare sets what a sending socket needs before it is bound.
func (c Config) prepare(fd int) error {
	level, hops, class := unix.IPPROTO_IP, unix.IP_TTL, unix.IP_TOS
	if c.Peer.Is6() {
		level, hops, class = unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, unix.IPV6_TCLASS
	}
	err := errors.Join(unix.SetsockoptInt(fd, level, hops, ttl), unix.SetsockoptInt(fd, level, class, trafficClass),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, senderQueue))
	if c.Interface != "" {
		err = errors.Join(err, unix.BindToDevice(fd, c.Interface))
	}
	return err
}

func (c Config) socketAddress(fd int, a netip.Addr, port int) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Port: port, Addr: a.As4()}
	}
	to := &unix.SockaddrInet6{Port: port, Addr: a.As16()}
	if a.IsLinkLocalUnicast() {
		to.ZoneId = uint32(interfaceIndex(fd, c.Interface))
	}
	return to
}

// interfaceIndex asks the kernel every time: a device that was made anew has another index. 0: there is none.
func interfaceIndex(fd int, name string) int {
	request, err := unix.NewIfreq(name)
	if err != nil || unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, request) != nil {
		return 0
	}
	return int(request.Uint32())
}

// index is interfaceIndex by the listener's socket.
func (l *listener) index(name string) (index int) {
	if raw, err := l.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { index = interfaceIndex(int(fd), name) })
	}
	return index
}
