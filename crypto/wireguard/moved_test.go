package wireguard

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/crypto/path"
)

// TestAPrefixThatMovesBetweenPeersLosesNoPacket: both peers are at the other end, which takes what comes from either. Nothing is answered, for an answer
// would come from one of the two that has the prefix no longer.
func TestAPrefixThatMovesBetweenPeersLosesNoPacket(t *testing.T) {
	p := newPair(t)
	moving, own := list("10.21.0.0/16"), list("10.22.0.0/16")
	c := newKey(t, t.TempDir(), "c")
	p.wantB.Tunnels = append(p.wantB.Tunnels, Tunnel{Name: "fra2", Backend: Userspace, PrivateKeyFile: c.file, PublicKey: c.public, ListenPort: port + 1, MTU: 1420,
		Peers: []Peer{{Name: "a", PublicKey: p.wantA.Tunnels[0].PublicKey, AllowedIPs: list("10.200.0.0/32")}}})
	a := &p.wantA.Tunnels[0]
	a.Peers = append(a.Peers, Peer{Name: "c", PublicKey: c.public, Endpoint: addrPort("198.18.0.2:51821"), AllowedIPs: own})
	for _, to := range []netip.Prefix{moving[0], own[0]} {
		a.Routes = append(a.Routes, path.Route{Prefix: to, Metric: 100})
	}
	p.b.Address(t, "lo", "10.21.0.1/32", "10.22.0.1/32")
	p.up(t)
	arrived, greeted := p.b.collect(t, "10.21.0.1"), p.b.collect(t, "10.22.0.1")
	first := p.a.dial(t, "udp", "10.22.0.1")
	until(t, "there is a session with c", func() bool {
		first.Write(binary.BigEndian.AppendUint64(nil, 0))
		return greeted.Load() > 0
	})

	var wait sync.WaitGroup
	stop, sent := make(chan struct{}), new(atomic.Int64)
	defer func() { t.Logf("%d of %d datagrams have arrived", arrived.Load(), sent.Load()) }()
	conn := p.a.dial(t, "udp", "10.21.0.1")
	move := func(to string) {
		w := *a
		w.Peers = slices.Clone(a.Peers)
		for i := range w.Peers {
			if w.Peers[i].Name == to {
				w.Peers[i].AllowedIPs = slices.Concat(w.Peers[i].AllowedIPs, moving)
			}
		}
		slices.SortFunc(w.Peers, func(a, b Peer) int { return strings.Compare(a.PublicKey, b.PublicKey) })
		p.endA.converge(State{Tunnels: []Tunnel{w}})
	}
	move("b")
	wait.Go(func() {
		tick := time.NewTicker(500 * time.Microsecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			if sent.Load()-arrived.Load() > 100 {
				continue // the TUN holds 500
			}
			conn.Write(binary.BigEndian.AppendUint64(nil, uint64(sent.Add(1)))) // a refusal is a loss
		}
	})
	_, bytes := p.wire.seen()
	for i := range 40 {
		goal := sent.Load() + 20
		until(t, "datagrams between two moves", func() bool { return sent.Load() >= goal })
		move([]string{"c", "b"}[i%2])
	}
	close(stop)
	wait.Wait()
	until(t, "all of them have arrived", func() bool { return arrived.Load() == sent.Load() })
	_, after := p.wire.seen()
	for _, peer := range []uint16{port, port + 1} {
		if after(peer)-bytes(peer) < 100*100 {
			t.Errorf("%d bytes went to port %d, want those of hundreds of datagrams to either peer", after(peer)-bytes(peer), peer)
		}
	}
}

// collect counts the datagrams that come to an address, to the port that is answered at others.
func (s *space) collect(t *testing.T, address string) *atomic.Int64 {
	t.Helper()
	var c net.PacketConn
	s.Do(t, func() (err error) {
		c, err = net.ListenPacket("udp", net.JoinHostPort(address, "7"))
		return err
	})
	roomy(t, c.(*net.UDPConn))
	t.Cleanup(func() { c.Close() })
	n := new(atomic.Int64)
	go func() {
		buf := make([]byte, 100)
		for {
			if _, _, err := c.ReadFrom(buf); err != nil {
				return
			}
			n.Add(1)
		}
	}()
	return n
}
