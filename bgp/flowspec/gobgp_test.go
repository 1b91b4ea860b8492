package flowspec_test

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	gobgp "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"sluice/bgp/flowspec"
	"sluice/bgp/flowspec/flowspectest"
)

// GoBGP's encoder is a second opinion on the wire form: what it is told in its own words is what we read.
func TestWhatGoBGPWritesIsRead(t *testing.T) {
	for _, c := range []struct {
		family flowspec.Family
		rule   string
		want   string
	}{
		{4, "destination 192.0.2.0/24 source 203.0.113.0/25", "flow4 { dst 192.0.2.0/24; src 203.0.113.0/25; }"},
		{4, "protocol ==tcp ==udp", "flow4 { proto = 6 || = 17; }"},
		{4, "port >=137&<=139 ==8080", "flow4 { port >= 137 && <= 139 || = 8080; }"},
		{4, "destination-port !=22", "flow4 { dport != 22; }"},
		{4, "source-port <1024 >50000", "flow4 { sport < 1024 || > 50000; }"},
		{4, "icmp-type ==8 icmp-code ==0", "flow4 { icmp type = 8; icmp code = 0; }"},
		{4, "tcp-flags =S&!A", "flow4 { tcp flags =syn && !ack; }"},
		{4, "tcp-flags SA", "flow4 { tcp flags syn+ack; }"},
		{4, "packet-length >=1000&<=1500", "flow4 { length >= 1000 && <= 1500; }"},
		{4, "dscp ==46", "flow4 { dscp = 46; }"},
		{4, "fragment is-fragment =first-fragment", "flow4 { fragment is-fragment || =first-fragment; }"},
		{4, "fragment !dont-fragment", "flow4 { fragment !dont-fragment; }"},
		{6, "destination 2001:db8::/32 label ==70000", "flow6 { dst 2001:db8::/32; label = 70000; }"},
	} {
		family := gobgp.RF_FS_IPv4_UC
		if c.family == flowspec.IPv6 {
			family = gobgp.RF_FS_IPv6_UC
		}
		components, err := gobgp.ParseFlowSpecComponents(family, c.rule)
		if err != nil {
			t.Errorf("GoBGP does not know %q: %v", c.rule, err)
			continue
		}
		nlri, err := gobgp.NewFlowSpecUnicast(family, components)
		if err != nil {
			t.Fatal(err)
		}
		wire, err := nlri.Serialize()
		if err != nil {
			t.Fatal(err)
		}
		body, rest, err := flowspec.Split(wire)
		if err != nil || len(rest) > 0 {
			t.Errorf("%q: %x splits into %x and %x, %v", c.rule, wire, body, rest, err)
		}
		if r, err := flowspec.Parse(c.family, body); err != nil || r.String() != c.want {
			t.Errorf("%q is read as %s, %v; want %s", c.rule, r, err, c.want)
		}
	}
}

// And what we write, GoBGP reads as the same components. It does not know offsets of RFC 8956, nor lengths above 239.
func TestGoBGPReadsWhatWeWrite(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for range 5000 {
		r := flowspectest.Rule(rng, [...]flowspec.Family{flowspec.IPv4, flowspec.IPv6}[rng.IntN(2)])
		if strings.Contains(r.String(), "offset") {
			continue
		}
		wire, err := r.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		family := gobgp.RF_FS_IPv4_UC
		if r.Family == flowspec.IPv6 {
			family = gobgp.RF_FS_IPv6_UC
		}
		nlri, err := gobgp.NLRIFromSlice(family, wire)
		if err != nil {
			t.Fatalf("%s: %v", r, err)
		}
		if again, err := nlri.Serialize(); err != nil || !bytes.Equal(again, wire) {
			t.Fatalf("%s: %x, and by GoBGP %x, %v", r, wire, again, err)
		}
	}
}

func TestActionsThatGoBGPWrites(t *testing.T) {
	redirect4, err := gobgp.NewRedirectIPv4AddressSpecificExtended(netip.MustParseAddr("192.0.2.1"), 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		community gobgp.ExtendedCommunityInterface
		want      string
	}{
		{gobgp.NewTrafficRateExtended(65000, 0), "discard"},
		{gobgp.NewTrafficRateExtended(65000, 125000), "rate 125000 bytes/s"},
		{gobgp.NewTrafficActionExtended(true, true), "sample, go on"},
		{gobgp.NewTrafficActionExtended(false, true), "sample"},
		{gobgp.NewRedirectTwoOctetAsSpecificExtended(65000, 100), "redirect 65000:100"},
		{redirect4, "redirect 192.0.2.1:100"},
		{gobgp.NewRedirectFourOctetAsSpecificExtended(70000, 100), "redirect 70000:100"},
		{gobgp.NewTrafficRemarkExtended(46), "mark dscp 46"},
	} {
		wire, err := c.community.Serialize()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := flowspec.ParseActions(wire, nil); err != nil || flowspec.ActionsText(got) != c.want {
			t.Errorf("%x is %q, %v; want %q", wire, flowspec.ActionsText(got), err, c.want)
		}
	}
}
