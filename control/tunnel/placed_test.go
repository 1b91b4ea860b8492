package tunnel

import (
	"net/netip"
	"testing"

	"sluice/control/config"
)

// A change of the file has the ways to endpoints looked up at once where they may be others, and not where they cannot; and so are
// devices asked what they see.
func TestTheUnderlayIsLookedUpWhereAChangeMayMoveIt(t *testing.T) {
	with := func(change func(*config.Tunnel)) []config.Tunnel {
		c := one(e1, e2)
		c.Peers = append(c.Peers, config.Peer{Name: "b", Endpoints: endpoints(e1), PublicKeys: []string{"key-b"}})
		change(&c)
		return []config.Tunnel{c}
	}
	none := func(*config.Tunnel) {}
	for _, c := range []struct {
		what   string
		change func(*config.Tunnel)
		due    bool
	}{
		{"nothing", none, false},
		{"a prefix", func(c *config.Tunnel) { c.Peers[1].Prefixes = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} }, false},
		{"an endpoint", func(c *config.Tunnel) { c.Peers[1].Endpoints = endpoints(e2) }, true},
		{"one that is not in use", func(c *config.Tunnel) { c.Peers[0].Endpoints = endpoints(e1, e3) }, true},
		{"a peer less", func(c *config.Tunnel) { c.Peers = c.Peers[:1] }, true},
		{"a key", func(c *config.Tunnel) { c.Peers[1].PublicKeys = []string{"key-c"} }, true},
		{"a key more", func(c *config.Tunnel) { c.Peers[1].PublicKeys = []string{"key-b", "key-c"} }, true},
		{"another peer", func(c *config.Tunnel) { c.Peers[1].Name = "c" }, true},
		{"the MTU", func(c *config.Tunnel) { c.MTU = 1400 }, true},
		{"the tunnel's name", func(c *config.Tunnel) { c.Name = "fra2" }, true},
	} {
		w := newWorld(t, with(none)...)
		for _, e := range endpoints(e1, e2) {
			w.mtu[e.Addr] = 1500
		}
		w.run(underlayEvery / 2)
		if same := w.m.follow(with(c.change), w.now); same == c.due {
			t.Errorf("%s changes: the same peers: %v, want %v", c.what, same, !c.due)
		}
		if due := !w.m.underlayDue.After(w.now); due != c.due {
			t.Errorf("%s changes: looked up at once: %v, want %v", c.what, due, c.due)
		}
	}
}
