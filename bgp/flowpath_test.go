package bgp

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"sluice/bgp/flowspec"
	"sluice/bgp/flowspec/flowspectest"
)

// Whatever GoBGP makes of a rule, we have its octets or know that we do not: never another rule.
func TestARuleComesThroughGoBGPWholeOrIsRefused(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 10))
	whole, refused, unread := 0, 0, 0
	for range 10000 {
		r := flowspectest.Rule(rng, [...]flowspec.Family{flowspec.IPv4, flowspec.IPv6}[rng.IntN(2)])
		want, err := r.MarshalComponents()
		if err != nil {
			t.Fatal(err)
		}
		family := bgp.RF_FS_IPv4_UC
		if r.Family == flowspec.IPv6 {
			family = bgp.RF_FS_IPv6_UC
		}
		nlri, err := bgp.NLRIFromSlice(family, append([]byte{byte(len(want))}, want...))
		if err != nil && strings.Contains(r.String(), "offset") { // GoBGP refuses what it takes for components, and the session ends
			unread++
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v", r, err)
		}
		got, err := components(nlri.(*bgp.FlowSpecNLRI))
		switch {
		case errors.Is(err, errOffset):
			refused++
		case err != nil || !bytes.Equal(got, want):
			t.Fatalf("%s: %x became %x, %v", r, want, got, err)
		default:
			whole++
		}
	}
	t.Logf("%d whole, %d refused, %d that GoBGP did not read", whole, refused, unread)
	if refused == 0 || refused > whole/10 {
		t.Error("want some with an offset that is misread, and most not")
	}
}

func TestOriginOfAPath(t *testing.T) {
	sequence := func(kind uint8, as ...uint32) bgp.AsPathParamInterface { return bgp.NewAs4PathParam(kind, as) }
	for _, c := range []struct {
		path []bgp.AsPathParamInterface
		want uint32
	}{
		{nil, 0},
		{[]bgp.AsPathParamInterface{sequence(bgp.BGP_ASPATH_ATTR_TYPE_SEQ, 65001, 65002)}, 65001},
		{[]bgp.AsPathParamInterface{sequence(bgp.BGP_ASPATH_ATTR_TYPE_CONFED_SEQ, 64512)}, 0},
		{[]bgp.AsPathParamInterface{sequence(bgp.BGP_ASPATH_ATTR_TYPE_CONFED_SEQ, 64512), sequence(bgp.BGP_ASPATH_ATTR_TYPE_SEQ, 65001)}, 65001},
	} {
		if got := firstAS([]bgp.PathAttributeInterface{bgp.NewPathAttributeAsPath(c.path)}); got != c.want {
			t.Errorf("%v begins with %d, want %d", c.path, got, c.want)
		}
	}
}

// The same of octets that are no rule: GoBGP refuses them, or what we have of them is told by flowspec.Parse; and a right rule is never another.
func FuzzRulesThroughGoBGP(f *testing.F) {
	rng := rand.New(rand.NewPCG(11, 12))
	for i := range 20 {
		family := [...]flowspec.Family{flowspec.IPv4, flowspec.IPv6}[i%2]
		wire, err := flowspectest.Rule(rng, family).MarshalComponents()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire, family == flowspec.IPv4)
	}
	f.Fuzz(func(t *testing.T, wire []byte, ipv4 bool) {
		if len(wire) >= 240 { // GoBGP reads the length wrongly
			return
		}
		family, theirs := flowspec.IPv6, bgp.RF_FS_IPv6_UC
		if ipv4 {
			family, theirs = flowspec.IPv4, bgp.RF_FS_IPv4_UC
		}
		nlri, err := bgp.NLRIFromSlice(theirs, append([]byte{byte(len(wire))}, wire...))
		if err != nil {
			return
		}
		got, err := components(nlri.(*bgp.FlowSpecNLRI))
		if err != nil {
			return
		}
		have, refused := flowspec.Parse(family, got)
		want, err := flowspec.Parse(family, wire)
		if err == nil && (refused != nil || flowspec.Compare(have, want) != 0) {
			t.Fatalf("%x is %s, and came through GoBGP as %x: %s, %v", wire, want, got, have, refused)
		}
	})
}
