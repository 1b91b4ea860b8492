package netns

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/cmd/lab"
)

// A client that comes again from a port whose last connection the server has closed (TIME_WAIT) is let in by Linux, by its
// SYN alone. XDP answers in the listener's name, and must leave such a SYN to it.
func TestAPortThatIsUsedAgainConnectsWhereXDPAnswers(t *testing.T) {
	t.Parallel()
	s := newProtected(t)
	at := netip.AddrPortFrom(lab.Web4[0], 8080)
	server := s.serveEcho(s.Workload(1), at)
	s.comesAgain(at, func(conn net.Conn) {
		s.carries(conn, 100)
		_ = server.of(t, conn).Close() // first: TIME_WAIT is the server's
	})
}

// The same where the answer and its FIN are one segment: then the client has acknowledged nothing before the connection begins to end.
func TestAPortThatIsUsedAgainConnectsThoughTheAnswerWasShort(t *testing.T) {
	t.Parallel()
	s := newProtected(t)
	at := netip.AddrPortFrom(lab.Web4[0], 8080)
	cork := func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_CORK, 1) }
	server := s.serveEcho(s.Workload(1), at, cork) // what it accepts has it too
	s.comesAgain(at, func(conn net.Conn) {
		if _, err := conn.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		c := server.of(t, conn)
		// The echo waits in the cork, which opens by itself after 200 ms: who comes later has an ordinary close.
		eventually(t, func() error {
			if i := info(t, c); i.Notsent_bytes == 0 && i.Data_segs_out == 0 {
				return errors.New("not echoed yet")
			}
			return nil
		})
		_ = c.Close()
		if b, err := io.ReadAll(conn); string(b) != "x" || err != nil {
			t.Errorf("answered %q, %v", b, err)
		}
	})
}

// comesAgain connects twice from each of some ports, and uses the connection until the server has closed it.
func (s *site) comesAgain(at netip.AddrPort, use func(net.Conn)) {
	s.t.Helper()
	s.byCookie(s.Client, at)
	answered := uint64(0)
	for port := 33330; port < 33336; port++ {
		before := s.packets("xdp", "eth0", "syn-cookie")
		for range 2 {
			conn, err := s.dialFrom(port, at)
			if err != nil {
				s.t.Fatal(err)
			}
			use(conn)
			_, _ = conn.Read(make([]byte, 1))
			_ = conn.Close()
		}
		answered += s.packets("xdp", "eth0", "syn-cookie") - before
	}
	if answered == 0 || answered > 6 {
		s.t.Errorf("XDP answered %d SYNs, want some of the first six and none of the others", answered)
	}
}

// dialFrom waits for a port that has not heard yet that its last connection's FIN arrived.
func (s *site) dialFrom(port int, at netip.AddrPort) (conn net.Conn, err error) {
	for range 50 {
		ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Second)
		err = s.Client.Do(func() (err error) {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: lab.Client4.AsSlice(), Port: port}}
			conn, err = d.DialContext(ctx, "tcp", at.String())
			return err
		})
		cancel()
		if !errors.Is(err, unix.EADDRINUSE) {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	return conn, err
}
