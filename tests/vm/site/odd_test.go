//go:build vmguest

package site

import (
	"fmt"
	"io"
	"net"
	"regexp"
	"time"

	"golang.org/x/sys/unix"

	"sluice/control/api"
)

// fetch reads a megabyte from the inner host by TCP, and sends one.
func (s *site) fetch(when string) {
	s.t.Helper()
	const size = 1 << 20
	begin := time.Now()
	c, err := s.Workload(1).Dial(s.t.Context(), "tcp4", inner+":9")
	if err == nil {
		defer c.Close()
		err = c.SetDeadline(time.Now().Add(20 * time.Second))
	}
	var got int64
	if err == nil {
		go func() { _, _ = c.Write(make([]byte, size)) }()
		got, err = io.Copy(io.Discard, c)
	}
	if err != nil || got != size {
		s.t.Errorf("%s, TCP carried %d of %d bytes: %v", when, got, size, err)
	}
	s.t.Logf("%s, TCP carried %d bytes each way in %s", when, size, time.Since(begin))
}

// serveTCP sends back a megabyte once it was sent one.
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
				n, _ := io.CopyN(io.Discard, c, 1<<20)
				_, _ = c.Write(make([]byte, n))
			}()
		}
	}()
}

func (s *site) aPeerWithAnotherMTUIsUnderstood() {
	s.serveTCP()
	for _, way := range []struct{ own, other string }{{"fra1", "edge1"}, {"fra2", "edge2"}} {
		s.routeIs(way.own)
		s.fetch(way.own + " with one MTU")
		s.peer.edit("  - name: "+way.other+"\n    type", "  - name: "+way.other+"\n    mtu: 1300\n    type")
		s.peer.apply()
		s.fetch(way.own + " with a smaller one at the peer")
		s.peer.edit("    mtu: 1300\n", "")
		s.peer.apply()

		// The way becomes narrower beyond the ToR. It cuts WireGuard's packets, which allow that; of ESP's it sends an error.
		s.must(s.Peer.Namespace, "ip link set eth0 mtu 1300")
		s.must(s.ToR, "ip link set peer mtu 1300")
		s.fetch(way.own + " while the way is narrower")
		s.must(s.ToR, "ip link set peer mtu 1500")
		s.must(s.Peer.Namespace, "ip link set eth0 mtu 1500")
		if way.own == "fra1" {
			s.cut(udp, true)
		}
	}
	took := eventually(s.t, func() error {
		if now, _ := s.gateway.tunnel("fra2"); now.MTU != 1246 || now.Underlay != 1300 {
			return fmt.Errorf("fra2 has MTU %d on %d", now.MTU, now.Underlay)
		}
		return nil
	})
	s.t.Logf("fra2 has the MTU of the way after %s", took)
	s.cut(udp, false)
}

// The clock concerns WireGuard's handshakes, whose times must rise, and IPsec's epochs, which must not fall.
func (s *site) aClockThatIsSetBackStopsNothing() {
	f := s.startStream(s.Workload(1), inner)
	f.more(50)
	f.lost()
	_, before := s.gateway.tunnel("fra2")
	s.setBack(2 * time.Hour)
	f.more(200)
	f.lostNothing("when the clock was set back")
	s.gateway.sluice("key rotate fra2")
	s.gateway.kill()
	s.gateway.start()
	f.more(100)
	s.gateway.tunnelsAre(api.PeerUp, "fra1", "fra2")
	s.gateway.nothingToDo()
	_, after := s.gateway.tunnel("fra2")
	if after.SA == nil || after.SA.Epoch != before.SA.Epoch+1 {
		s.t.Errorf("the epoch is %+v, was %+v", after.SA, before.SA)
	}
	if out := s.gateway.sluice("show tunnels"); regexp.MustCompile(` -\d`).MatchString(out) {
		s.t.Errorf("show tunnels tells of times to come:\n%s", out)
	}
	f.lostNothing("over a restart with a clock that was set back")

	// States that are gone as well: the epoch goes on, whatever the clock says.
	s.gateway.kill()
	s.must(s.Gateway.Namespace, "ip link del fra2")
	s.must(s.Gateway.Namespace, "ip xfrm state flush")
	s.gateway.start()
	s.gateway.tunnelsAre(api.PeerUp, "fra2")
	if _, now := s.gateway.tunnel("fra2"); now.SA == nil || now.SA.Epoch <= after.SA.Epoch {
		s.t.Errorf("the epoch is %+v, was %+v", now.SA, after.SA)
	}

	// WireGuard's session is over after three minutes at most, and each end takes the other's greeting for an old one. The
	// other tunnel carries what this one cannot.
	for range 4 {
		f.more(5000)
	}
	eventually(s.t, func() error {
		_, wg := s.gateway.tunnel("fra1")
		_, ipsec := s.gateway.tunnel("fra2")
		if ipsec.State != api.PeerUp {
			return fmt.Errorf("fra2 is %s: %s", ipsec.State, ipsec.Why)
		}
		s.t.Logf("fra1 is %s: %s", wg.State, wg.Why)
		return nil
	})
	s.t.Logf("lost %v of 100 datagrams a second", f.lost())
}

// setBack turns the clock of the machine, and with it that of all daemons.
func (s *site) setBack(by time.Duration) {
	s.t.Helper()
	turn := func(by time.Duration) {
		now := unix.NsecToTimeval(time.Now().Add(-by).UnixNano())
		if err := unix.Settimeofday(&now); err != nil {
			s.t.Fatal(err)
		}
	}
	turn(by)
	s.t.Cleanup(func() { turn(-by) })
}
