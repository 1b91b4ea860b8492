package netns

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"sluice/cmd/lab"
)

// A client that comes again from a port whose last connection the server has closed (TIME_WAIT) is let in by Linux, by its
// SYN alone. XDP answers in the listener's name, and must leave such a SYN to it.
func TestAPortThatIsUsedAgainConnectsWhereXDPAnswers(t *testing.T) {
	t.Parallel()
	s := newProtected(t)
	at := netip.AddrPortFrom(lab.Web4[0], 8080)
	server := s.serveEcho(s.Workload(1), at)
	from := func(port int) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		var conn net.Conn
		err := s.Client.Do(func() (err error) {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: lab.Client4.AsSlice(), Port: port}}
			conn, err = d.DialContext(ctx, "tcp", at.String())
			return err
		})
		return conn, err
	}
	s.byCookie(s.Client, at)
	answered := uint64(0)
	for port := 33330; port < 33336; port++ {
		before := s.packets("xdp", "eth0", "syn-cookie")
		for range 2 {
			conn, err := from(port)
			if err != nil {
				t.Fatal(err)
			}
			s.carries(conn, 100)
			for c := range server.accepted {
				if c.RemoteAddr().(*net.TCPAddr).Port == port {
					_ = c.Close() // first: TIME_WAIT is the server's
					break
				}
			}
			_, _ = conn.Read(make([]byte, 1))
			_ = conn.Close()
		}
		answered += s.packets("xdp", "eth0", "syn-cookie") - before
	}
	if answered == 0 || answered > 6 {
		t.Errorf("XDP answered %d SYNs, want some of the first six and none of the others", answered)
	}
}
