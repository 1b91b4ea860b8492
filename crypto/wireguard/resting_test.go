package wireguard

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
)

// The way to the peer is by up0 all the time, and only the interface of the local address comes and goes.
func TestTheLocalAddressIsUsedWhileItsInterfaceIsUpWhateverTheWay(t *testing.T) {
	for _, c := range []struct {
		name  string
		steps []bool // up?
	}{{"down, then up", []bool{false, true, false}}, {"up, then down", []bool{true, false, true}}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			p.a.connect(t, p.a, "alt0", "198.18.7.1/24", "alt1", "198.18.7.2/24")
			back := &netlink.Route{Dst: &net.IPNet{IP: net.IPv4(198, 18, 7, 0).To4(), Mask: net.CIDRMask(24, 32)}, Gw: net.IPv4(198, 18, 0, 1)}
			if err := p.b.RouteAdd(back); err != nil {
				t.Fatal(err)
			}
			a := &p.wantA.Tunnels[0]
			a.Local, a.Peers[0].Keepalive = netip.MustParseAddr("198.18.7.1"), 0
			for i, up := range c.steps {
				set, want := p.a.LinkSetDown, []string{"198.18.0.1", "198.18.0.2"}
				if up {
					set, want = p.a.LinkSetUp, []string{"198.18.0.2", "198.18.7.1"}
				}
				if err := set(p.a.link(t, "alt0")); err != nil {
					t.Fatal(err)
				}
				if i == 0 {
					p.up(t)
					p.endA.must(request{Do: "run"})
				}
				var got []string
				until(t, "the source is another one", func() bool {
					p.a.answers(t, "10.20.0.1", marker)
					got = p.senders(t)
					return slices.Equal(got, want)
				})
			}
		})
	}
}
