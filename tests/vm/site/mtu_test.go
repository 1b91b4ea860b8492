//go:build vmguest

package site

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"
)

// connect is a TCP connection from the workload to the inner host.
func (s *site) connect() net.Conn {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	c, err := s.Workload(1).Dial(ctx, "tcp4", inner+":9")
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	return c
}

// exchange sends full segments both ways.
func (s *site) exchange(c net.Conn, when string) {
	s.t.Helper()
	const size = 256 << 10
	begin := time.Now()
	if err := c.SetDeadline(begin.Add(patience)); err != nil {
		s.t.Fatal(err)
	}
	go func() { _, _ = c.Write(make([]byte, size)) }()
	if got, err := io.CopyN(io.Discard, c, size); err != nil {
		s.t.Errorf("%s, TCP carried %d of %d bytes: %v", when, got, size, err)
	}
	s.t.Logf("%s, TCP carried %d bytes each way in %s", when, size, time.Since(begin))
}

// serveTCP sends back what it is sent.
func (s *site) serveTCP() {
	s.t.Helper()
	var l net.Listener
	if err := s.Peer.Do(func() (err error) {
		l, err = net.Listen("tcp4", inner+":9")
		return err
	}); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
}

// wayIs sets the MTU of the wire between the ToR and the peer.
func (s *site) wayIs(mtu int) {
	s.t.Helper()
	s.must(s.Peer.Namespace, fmt.Sprintf("ip link set eth0 mtu %d", mtu))
	s.must(s.ToR, fmt.Sprintf("ip link set peer mtu %d", mtu))
}

// mtuIs waits until an end has found out.
func (e *end) mtuIs(name string, mtu, underlay int) {
	e.t.Helper()
	took := eventually(e.t, func() error {
		if now, _ := e.tunnel(name); now.MTU != mtu || now.Underlay != underlay {
			return fmt.Errorf("%s has MTU %d on %d, want %d on %d", name, now.MTU, now.Underlay, mtu, underlay)
		}
		return nil
	})
	e.t.Logf("%s has MTU %d on %d after %s", name, mtu, underlay, took)
}

func (s *site) aPeerWithAnotherMTUIsUnderstood() {
	s.serveTCP()
	defer s.wayIs(1500)
	for _, way := range []struct {
		own, other         string
		usual, small, seen int // the tunnel's MTU; that of the narrow way, as the peer knows it and as the gateway finds it
	}{
		{"fra1", "edge1", 1440, 1240, 1440}, // the ToR cuts WireGuard's packets, which allow that, and tells nobody
		{"fra2", "edge2", 1446, 1246, 1246}, // of ESP's it sends an error
	} {
		s.routeIs(way.own)
		f := s.startStream(s.Workload(1), inner)
		f.more(50)
		f.lost()
		c := s.connect()
		s.exchange(c, way.own+" with one MTU")
		s.peer.edit("  - name: "+way.other+"\n    type", "  - name: "+way.other+"\n    mtu: 1300\n    type")
		s.peer.apply()
		s.exchange(c, way.own+" with a smaller one at the peer")
		s.exchange(s.connect(), way.own+" with a smaller one at the peer, anew")
		s.peer.edit("    mtu: 1300\n", "")
		s.peer.apply()
		f.logLost("on " + way.own + " while the peer's MTU was changed")

		// The segments of a connection that stands are too large now.
		c = s.connect()
		s.exchange(c, way.own+" before the way is narrower")
		s.wayIs(1300)
		s.exchange(c, way.own+" while the way is narrower")
		s.peer.mtuIs(way.other, way.small, 1300)
		s.gateway.mtuIs(way.own, way.seen, 1500-way.usual+way.seen)
		s.exchange(s.connect(), way.own+" while the way is narrower, anew")
		s.wayIs(1500)
		s.must(s.Gateway.Namespace, "ip route flush cache") // what it has learned, which it forgets by itself after ten minutes
		s.peer.mtuIs(way.other, way.usual, 1500)
		f.more(50)
		f.logLost("on " + way.own + " while the way was narrower")
		if way.own == "fra1" {
			defer s.cut(udp)()
		}
	}
}
