package ipsec

import (
	"net/netip"
	"slices"
	"testing"

	"sluice/crypto/path"
)

func TestWhatIsWantedLacksTheRoutesOfWithheldPeers(t *testing.T) {
	pfx := netip.MustParsePrefix
	toA, toB, probe := path.Route{Prefix: pfx("10.20.0.0/16")}, path.Route{Prefix: pfx("10.30.0.0/16")}, path.Route{Prefix: pfx("10.20.0.9/32"), Table: path.ProbeTable}
	want := State{Tunnels: []Tunnel{{Name: "t", Routes: []path.Route{toA, probe, toB},
		Peers: []Peer{{Name: "a", Prefixes: []netip.Prefix{pfx("10.20.0.0/16"), pfx("10.20.0.9/32")}}, {Name: "b", Prefixes: []netip.Prefix{pfx("10.30.0.0/16")}}}}}}
	var d Driver
	for _, c := range []struct {
		peers  map[string][]string
		routes []path.Route
	}{
		{nil, []path.Route{toA, probe, toB}},
		{map[string][]string{"t": {"a"}}, []path.Route{probe, toB}},
		{map[string][]string{"t": {"a", "b"}}, []path.Route{probe}},
		{map[string][]string{"u": {"a"}}, []path.Route{toA, probe, toB}},
	} {
		d.withheld.Set(c.peers)
		if got := d.Wanted(want).Tunnels[0].Routes; !slices.Equal(got, c.routes) {
			t.Errorf("%v: %v, want %v", c.peers, got, c.routes)
		}
	}
	if len(want.Tunnels[0].Routes) != 3 {
		t.Error("what was wanted is not what it was")
	}
}
