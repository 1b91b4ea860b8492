package trial

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// IPv4 protocols of what a lane may have on its wire.
const (
	TCP = unix.IPPROTO_TCP // what workloads say, in clear
	UDP = unix.IPPROTO_UDP
	ESP = unix.IPPROTO_ESP
)

// ErrPretends says that a lane does not do what it claims.
var ErrPretends = errors.New("it does not do what it claims")

// patience is how long a connection may take that needs tunnels to come up first.
const patience = 20 * time.Second

// Check holds a lane to what it claims: on every path a connection comes about, and what the wire sees of it is the
// protocol that the lane Carries, and no other.
func (l *Lane) Check(ctx context.Context) error {
	for i := range l.Site.Paths {
		seen, err := l.Site.watch(i, func() error { return l.Site.connect(ctx, i) })
		if err != nil {
			return fmt.Errorf("path %d: %w", i, err)
		}
		if len(seen) != 1 || seen[l.Carries] == 0 {
			return fmt.Errorf("%w: frames on the wire of path %d by IP protocol: %v, want %d alone", ErrPretends, i, seen, l.Carries)
		}
	}
	return nil
}

// watch counts the IPv4 frames of a path's wire by their protocol while f runs, both ways.
func (s *Site) watch(path int, f func() error) (seen map[int]int, err error) {
	fd := -1
	err = s.A.Box.Do(func() error {
		l, err := netlink.LinkByName(Uplink(path))
		if err != nil {
			return err
		}
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		// ETH_P_ALL alone shows what is sent as well; the kernel wants it in network byte order.
		all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
		return unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: l.Attrs().Index, Protocol: all})
	})
	if fd >= 0 {
		defer unix.Close(fd)
	}
	if err == nil {
		err = f()
	}
	if err != nil {
		return nil, err
	}
	return protocols(fd)
}

// protocols reads all that waits in a packet socket without link layer headers. Byte 9 of an IPv4 header is the protocol.
func protocols(fd int) (map[int]int, error) {
	seen := map[int]int{}
	for header := make([]byte, 20); ; {
		n, _, err := unix.Recvfrom(fd, header, 0)
		if errors.Is(err, unix.EAGAIN) {
			return seen, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read from the wire: %w", err)
		}
		if n == len(header) && header[0]>>4 == 4 {
			seen[int(header[9])]++
		}
	}
}

// connect makes a connection on a path, and waits for a byte from its other end.
func (s *Site) connect(ctx context.Context, path int) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	at := netip.AddrPortFrom(s.B.Inner(path), port).String()
	var listener net.Listener
	if err := s.B.Workload.Do(func() (err error) {
		listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp4", at)
		return err
	}); err != nil {
		return err
	}
	defer listener.Close()
	go func() {
		if c, err := listener.Accept(); err == nil {
			_, _ = c.Write([]byte{1}) // who waits for it sees what went wrong
			c.Close()
		}
	}()
	var c net.Conn
	if err := s.A.Workload.Do(func() (err error) {
		c, err = (&net.Dialer{}).DialContext(ctx, "tcp4", at)
		return err
	}); err != nil {
		return err
	}
	defer c.Close()
	deadline, _ := ctx.Deadline()
	if err := c.SetReadDeadline(deadline); err != nil {
		return err
	}
	_, err := c.Read(make([]byte, 1))
	return err
}
