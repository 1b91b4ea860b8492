//go:build vmguest

package guest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"sluice/crypto/ipsec"
	"sluice/crypto/keys"
	"sluice/crypto/path"
)

// espSite is two nodes on one wire. Node a reaches everything by default through b, in clear.
type espSite struct {
	a, b *espNode
	wire *capture
}

type espNode struct {
	*node
	dir    string
	now    func() time.Time
	boots  int
	esp    *ipsec.Driver
	holes  *path.Driver
	want   ipsec.State
	strict path.State
	end    func() // of the keeper
}

type outer struct {
	v6    bool
	encap ipsec.Encapsulation
}

func newESPSite(t *testing.T, o outer) *espSite {
	t.Helper()
	s := &espSite{a: newESPNode(t), b: newESPNode(t)}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "up0"
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: "up1", PeerNamespace: netlink.NsFd(s.b.ns)}
	if err := s.a.nl.LinkAdd(veth); err != nil {
		t.Fatal(err)
	}
	s.a.setUp(t, "lo")
	s.b.setUp(t, "lo", "10.20.0.1/32", "fd00:20::1/128")
	s.a.setUp(t, "up0", "198.18.0.1/24", "2001:db8::1/64")
	s.b.setUp(t, "up1", "198.18.0.2/24", "2001:db8::2/64")
	for _, gw := range []string{"198.18.0.2", "2001:db8::2"} {
		if err := s.a.nl.RouteAdd(&netlink.Route{Gw: net.ParseIP(gw)}); err != nil {
			t.Fatal(err)
		}
	}
	s.wire = s.a.capture(t, "up0")
	s.b.serveEcho(t, "198.18.0.2", "10.20.0.1", "fd00:20::1")
	atA, atB := "198.18.0.1:0", "198.18.0.2:0"
	if o.v6 {
		atA, atB = "[2001:db8::1]:0", "[2001:db8::2]:0"
	}
	secret := filepath.Join(t.TempDir(), "master")
	if err := keys.GeneratePSK(secret); err != nil {
		t.Fatal(err)
	}
	tunnel := ipsec.Tunnel{Name: "fra1", MTU: 1400, FirewallMark: 0x51, Keying: ipsec.Static, Encapsulation: o.encap, ReplayWindow: 1024}
	ta, tb := tunnel, tunnel
	ta.ID, ta.Local, ta.Addresses = "a", netip.MustParseAddrPort(atA), list("10.200.0.0/31", "fd00:200::/127")
	ta.Peers = []ipsec.Peer{{Name: "b", ID: "b", Endpoint: netip.MustParseAddrPort(atB), SecretFile: secret,
		Prefixes: list("10.20.0.0/16", "10.200.0.1/32", "fd00:20::/64", "fd00:200::1/128")}}
	ta.Routes = []path.Route{{Prefix: list("10.20.0.0/16")[0], Metric: 100}, {Prefix: list("fd00:20::/64")[0], Metric: 100}}
	s.a.strict = path.State{Blackholes: []path.Blackhole{{Prefix: list("10.20.0.0/16")[0]}, {Prefix: list("fd00:20::/64")[0]}}}
	tb.ID, tb.Local, tb.Addresses = "b", netip.MustParseAddrPort(atB), list("10.200.0.1/31", "fd00:200::1/127")
	tb.Peers = []ipsec.Peer{{Name: "a", ID: "a", Endpoint: netip.MustParseAddrPort(atA), SecretFile: secret,
		Prefixes: list("10.200.0.0/32", "fd00:200::/128")}}
	s.a.want, s.b.want = ipsec.State{Tunnels: []ipsec.Tunnel{ta}}, ipsec.State{Tunnels: []ipsec.Tunnel{tb}}
	return s
}

func newESPNode(t *testing.T) *espNode {
	t.Helper()
	n := &espNode{node: newNode(t, netns.New), dir: t.TempDir(), now: time.Now}
	n.do(t, func() (err error) {
		n.holes, err = path.New(slog.New(slog.DiscardHandler))
		return err
	})
	n.boot(t)
	t.Cleanup(func() { n.stop(); n.boot(t); n.down(t); n.stop() })
	return n
}

// boot is a new daemon that knows its state directory alone.
func (n *espNode) boot(t *testing.T) {
	t.Helper()
	n.do(t, func() (err error) {
		n.esp, err = ipsec.New(slog.New(slog.NewTextHandler(os.Stdout, nil)), ipsec.Options{
			StateDir: n.dir, Holder: []string{"/proc/self/exe", ipsec.HolderVerb}, Now: func() time.Time { return n.now() },
			Boot: fmt.Sprint("boot ", n.boots),
		})
		return err
	})
}

// keep runs the keeper until stop.
func (n *espNode) keep(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.try(func() error { return n.esp.Run(ctx) }) }()
	n.end = func() { cancel(); <-done }
}

func (n *espNode) stop() {
	if n.end != nil {
		n.end()
		n.end = nil
	}
	if n.esp != nil {
		n.esp.Stop()
		n.esp = nil
	}
}

func (n *espNode) converge(t *testing.T) []string {
	t.Helper()
	said, err := n.tryConverge(t)
	if err != nil {
		t.Fatal(err)
	}
	return said
}

// tryConverge applies the differences, blackholes first and teardowns last, as the engine does.
func (n *espNode) tryConverge(t *testing.T) (said []string, err error) {
	t.Helper()
	ctx := context.Background()
	err = n.try(func() error {
		holes, err := n.holes.Observe(ctx)
		if err != nil {
			return err
		}
		for _, op := range path.Diff(holes, n.strict) {
			if err := n.holes.Apply(ctx, op); err != nil {
				return err
			}
		}
		have, err := n.esp.Observe(ctx)
		if err != nil {
			return err
		}
		ops := ipsec.Diff(have, n.want)
		for _, teardown := range []bool{false, true} {
			for _, op := range ops {
				if op.Teardown() != teardown {
					continue
				}
				said = append(said, op.String())
				if err := n.esp.Apply(ctx, op); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return said, err
}

func (n *espNode) look(t *testing.T) (s ipsec.State) {
	t.Helper()
	n.do(t, func() (err error) {
		s, err = n.esp.Observe(context.Background())
		return err
	})
	return s
}

// peer is the status of the one peer of the one tunnel.
func (n *espNode) peer(t *testing.T) ipsec.PeerStatus {
	t.Helper()
	var all []ipsec.TunnelStatus
	n.do(t, func() (err error) {
		all, err = n.esp.Status(context.Background())
		return err
	})
	if len(all) != 1 || len(all[0].Peers) != 1 {
		t.Fatalf("status %+v", all)
	}
	return all[0].Peers[0]
}

func (n *espNode) rotate(t *testing.T) {
	t.Helper()
	n.do(t, func() error { return n.esp.Rotate(context.Background(), "fra1") })
}

func (n *espNode) down(t *testing.T) {
	t.Helper()
	n.do(t, func() error { return errors.Join(n.esp.Down(context.Background()), n.holes.Down(context.Background())) })
}

func (n *espNode) statistic(t *testing.T, name string) uint64 {
	t.Helper()
	var all map[string]uint64
	n.do(t, func() (err error) {
		all, err = ipsec.Statistics()
		return err
	})
	n1, ok := all[name]
	if !ok {
		t.Fatalf("the kernel has no counter %s: %v", name, all)
	}
	return n1
}

// up makes the tunnel at both ends and waits until it carries traffic.
func (s *espSite) up(t *testing.T) {
	t.Helper()
	for _, n := range []*espNode{s.b, s.a} {
		n.converge(t)
		n.keep(t)
	}
	s.a.answers(t, "10.20.0.1")
	s.a.answers(t, "fd00:20::1")
}

// passed waits until the capture has all that was sent, and counts frames in clear and ESP.
func (s *espSite) passed(t *testing.T) (clear, esp int) {
	t.Helper()
	(&site{a: s.a.node, wire: s.wire}).seen(t)
	s.wire.mu.Lock()
	defer s.wire.mu.Unlock()
	return s.wire.clear, s.wire.esp
}

// rests waits until nothing more comes of what was sent, and counts the ESP frames: who asks in vain asks again, and goes on when the first
// answer comes.
func (s *espSite) rests(t *testing.T) (esp int) {
	t.Helper()
	esp = -1
	eventually(t, "no more ESP frames come", func() bool {
		before := esp
		_, esp = s.passed(t)
		return esp == before
	})
	return esp
}

// leaksNothing sends the marker into the strict prefixes.
func (s *espSite) leaksNothing(t *testing.T, when string) {
	t.Helper()
	before, _ := s.passed(t)
	s.a.shout(t)
	if after, _ := s.passed(t); after != before {
		t.Errorf("when %s, %d frames leave in clear", when, after-before)
	}
}

// shout sends without waiting for anything.
func (n *espNode) shout(t *testing.T) {
	t.Helper()
	for _, address := range []string{"10.20.0.1", "fd00:20::1"} {
		n.do(t, func() error {
			c, err := net.Dial("udp", net.JoinHostPort(address, "7"))
			if err != nil {
				return nil // a blackhole refuses at once
			}
			defer c.Close()
			for range 20 {
				c.Write(marker) // its error is a refusal as well
			}
			return nil
		})
	}
}

// eventually polls.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after %s still not: %s", patience, what)
		}
	}
}

// flush takes states, policies or both from the kernel as nobody of ours would.
func (n *espNode) flush(t *testing.T, states, policies bool) {
	t.Helper()
	n.do(t, func() (err error) {
		if policies {
			err = netlink.XfrmPolicyFlush()
		}
		if states {
			err = errors.Join(err, netlink.XfrmStateFlush(unix.IPPROTO_ESP))
		}
		return err
	})
}

func (n *espNode) link(t *testing.T, name string) netlink.Link {
	t.Helper()
	l, err := n.nl.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func clone(s ipsec.State) ipsec.State {
	s.Tunnels = slices.Clone(s.Tunnels)
	for i := range s.Tunnels {
		s.Tunnels[i].Peers = slices.Clone(s.Tunnels[i].Peers)
	}
	return s
}
