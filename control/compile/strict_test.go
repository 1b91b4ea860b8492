package compile

import "testing"

func TestAStrictPrefixThatCoversManagementOrANeighborIsWarnedOf(t *testing.T) {
	const rest = `
management: {accept: [{name: ssh, protocol: tcp, ports: [22], from: [10.20.7.0/24, 198.18.0.0/24]}]}
bgp: {asn: 65010, router_id: 198.18.0.2, neighbors: [{name: far, address: 10.20.0.9, asn: 65000}, {name: near, address: 198.18.0.1, asn: 65000}]}
`
	got := compile(t, parse(t, uplink+tunnel("t", "strict: true")+rest), Runtime{}, eth0).Warnings
	same(t, got,
		"tunnel t: strict prefix 10.20.0.0/16 covers management source 10.20.7.0/24: what the box sends there by an uplink is dropped",
		"tunnel t: strict prefix 10.20.0.0/16 covers BGP neighbor far: what the box sends there by an uplink is dropped")
	if loose := compile(t, parse(t, uplink+tunnel("t")+rest), Runtime{}, eth0).Warnings; len(loose) != 0 {
		t.Errorf("a tunnel that is not strict warns: %q", loose)
	}
}
