package compile

import (
	"slices"
	"strings"
	"testing"

	"sluice/tc"
)

func TestAStrictPrefixThatCoversManagementOrANeighborIsWarnedOf(t *testing.T) {
	const rest = `
management: {accept: [{name: ssh, protocol: tcp, ports: [22], from: [10.20.7.0/24, 198.18.0.0/24]}]}
bgp: {asn: 65010, router_id: 198.18.0.2, neighbors: [{name: far, address: 10.20.0.9, asn: 65000}, {name: near, address: 198.18.0.1, asn: 65000}]}
`
	got := compile(t, parse(t, uplink+tunnel("t", "strict: true")+rest), Runtime{}, eth0).Warnings
	same(t, got,
		"tunnel t: strict prefix 10.20.0.0/16 covers management source 10.20.7.0/24: what the box sends there by an uplink is dropped",
		"tunnel t: strict prefix 10.20.0.0/16 covers BGP neighbor far: what the box sends there by an uplink is dropped")
	same(t, compile(t, parse(t, uplink+tunnel("t")+rest), Runtime{}, eth0).Warnings,
		"tunnel t: what the box sends to BGP neighbor far goes into the tunnel with the rest of 10.20.0.0/16; a route of their own keeps them on the uplink")
}

// TestNetworksOnWiresOfTheBoxAreExemptFromWiderStrictPrefixes: a LAN inside a strict 10.0.0.0/8 is reached by its own wire, and by no other.
func TestNetworksOnWiresOfTheBoxAreExemptFromWiderStrictPrefixes(t *testing.T) {
	const wires = `
interfaces:
  - {name: eth0, role: uplink, addresses: [198.18.0.2/30, 10.20.9.1/24]}
  - {name: lan0, role: downstream, addresses: [10.20.1.1/24, 192.0.2.1/24, fe80::9/64]}
  - {name: lan1, role: downstream, addresses: [10.20.1.2/24]}
  - {name: mgmt, role: management, addresses: [10.20.2.1/24]}
  - {name: lan2, role: downstream, addresses: [10.20.0.1/16]}
routes:
  - {prefix: 10.20.7.0/24, via: [10.20.1.254]}
  - {prefix: 10.20.8.0/24, via: [198.18.0.1]}
  - {prefix: 0.0.0.0/0, via: [10.20.2.254]}
`
	all := facts("eth0", "lan0", "lan1", "mgmt", "lan2")
	// A route of the tunnel's to the network of lan2 would be refused.
	routeless := func(more ...string) string {
		return wires + strings.Replace(tunnel("t", more...), "prefixes:", "routes: false, prefixes:", 1)
	}
	d := compile(t, parse(t, routeless("strict: true")), Runtime{}, all)
	var got []string
	for _, o := range d.TC.Generation.OnLink {
		got = append(got, o.Prefix.String()+" at "+o.Interface)
	}
	same(t, got, "10.20.1.0/24 at lan0", "10.20.2.0/24 at mgmt", "10.20.7.0/24 at lan0")
	same(t, d.Warnings, "tunnel t: strict prefix 10.20.0.0/16 is the network of lan2, too: what goes there by that interface is dropped; a longer prefix would be exempt")
	if !slices.ContainsFunc(d.TC.Interfaces, func(i tc.Interface) bool { return i.Name == "t" && i.Encrypted }) {
		t.Errorf("the tunnel is not known to encrypt: %+v", d.TC.Interfaces)
	}
	if loose := compile(t, parse(t, routeless()), Runtime{}, all); len(loose.TC.Generation.OnLink) != 0 {
		t.Errorf("a tunnel that is not strict needs no exceptions: %v", loose.TC.Generation.OnLink)
	}
}
