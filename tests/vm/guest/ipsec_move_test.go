//go:build vmguest

package guest

import (
	"encoding/binary"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"sluice/crypto/ipsec"
)

// knock has b send something through the tunnel; nobody need answer.
func (n *espNode) knock(t *testing.T) {
	t.Helper()
	n.do(t, func() error {
		c, err := net.Dial("udp", "10.200.0.0:9")
		if err != nil {
			return err
		}
		defer c.Close()
		c.Write([]byte("here I am")) // an error is the refusal of the one before
		return nil
	})
}

// A NAT shows as another port or address of the peer: b takes them itself, and a is not told.
func TestESPPeerThatMovesIsFollowed(t *testing.T) {
	s := newESPSite(t, outer{false, ipsec.UDP})
	s.b.setUp(t, "up1", "198.18.0.3/24")
	var ahead atomic.Int64
	s.a.now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	s.up(t)
	s.follows(t)
	ahead.Store(int64(time.Hour)) // else each move but the first would wait for the minute of its epoch
	for _, to := range []string{"198.18.0.2:4501", "198.18.0.3:4501", "198.18.0.3:4500", "198.18.0.2:4500"} {
		s.b.want = clone(s.b.want)
		s.b.want.Tunnels[0].Local = netip.MustParseAddrPort(to)
		s.b.converge(t)
		eventually(t, "a sends to "+to, func() bool {
			s.b.knock(t)
			return s.a.peer(t).Endpoint == to
		})
		s.a.answers(t, "10.20.0.1")
		s.a.answers(t, "fd00:20::1")
		if p := s.a.peer(t); !p.Moved {
			t.Errorf("at %s the status says %+v", to, p)
		}
		if ops := s.a.converge(t); len(ops) != 0 {
			t.Errorf("an apply does %q to a peer that moved to %s", ops, to)
		}
		epoch := s.a.peer(t).Epoch
		s.a.stop()
		s.a.boot(t)
		if ops := s.a.converge(t); len(ops) != 0 {
			t.Errorf("a restart does %q to a peer that moved to %s", ops, to)
		}
		s.a.keep(t)
		s.a.answers(t, "10.20.0.1")
		if p := s.a.peer(t); p.Endpoint != to || p.Epoch != epoch {
			t.Errorf("after a restart it is sent to %s in epoch %d, and was at %s in %d", p.Endpoint, p.Epoch, to, epoch)
		}
	}
	// Who knows the SPI and not the key moves nobody.
	before := s.a.peer(t)
	b := s.b.peer(t)
	forged := binary.BigEndian.AppendUint32(nil, b.SPI)
	forged = binary.BigEndian.AppendUint32(forged, uint32(b.Sequence)+100) // which b has not used yet
	forged = append(forged, make([]byte, 92)...)
	s.b.do(t, func() error {
		c, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(198, 18, 0, 3), Port: 5555}, &net.UDPAddr{IP: net.IPv4(198, 18, 0, 1), Port: 4500})
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write(forged)
		return err
	})
	eventually(t, "the forged packet is counted", func() bool { return s.a.peer(t).Forged > before.Forged })
	s.a.answers(t, "10.20.0.1")
	if p := s.a.peer(t); p.Endpoint != before.Endpoint {
		t.Errorf("a forged packet moved the peer to %s", p.Endpoint)
	}
	if clear, _ := s.passed(t); clear != 0 {
		t.Errorf("%d frames in clear", clear)
	}
}
