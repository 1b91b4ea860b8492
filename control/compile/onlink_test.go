package compile

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// two uplinks and a LAN, all with networks of their own.
const linked = `interfaces:
  - {name: eth0, role: uplink, addresses: [198.18.0.2/24, "2001:db8::2/64"]}
  - {name: eth1, role: downstream, addresses: [10.1.0.1/24, "fd00:1::1/64"]}
  - {name: lo, addresses: [203.0.113.1/32]}
`

func TestNextHopsOnNoLinkAreRefused(t *testing.T) {
	const nowhere, fix = " is on no link of this box", "; correct it, or give an interface an address in its network"
	here := func(addrs ...string) Facts {
		f := facts("eth0", "eth1", "lo", "w")
		f.Host.OnLink = map[netip.Addr]bool{}
		for _, a := range addrs {
			f.Host.OnLink[netip.MustParseAddr(a)] = true
		}
		return f
	}
	for _, c := range []struct {
		name, yaml string
		facts      Facts
		want       string // "": good
	}{
		{"in the network of an uplink", linked + "routes: [{prefix: 0.0.0.0/0, via: [198.18.0.1]}]\n", here(), ""},
		{"in no network", linked + "routes:\n  - {prefix: 0.0.0.0/0, via: [198.18.7.1]}\n", here(), "edge.yaml:6:5: routes[0].via[0]: next hop 198.18.7.1" + nowhere + fix},
		{"the second of two", linked + "routes: [{prefix: 0.0.0.0/0, via: [198.18.0.1, 198.19.0.1]}]\n", here(), "edge.yaml:5:10: routes[0].via[1]: next hop 198.19.0.1" + nowhere + fix},
		{"a broadcast address", linked + "routes: [{prefix: 0.0.0.0/0, via: [198.18.0.255]}]\n", here("198.18.0.255"), "edge.yaml:5:10: routes[0].via[0]: next hop 198.18.0.255 is the broadcast address of 198.18.0.0/24; write the router's own address"},
		{"the other end of a link of two", "interfaces: [{name: eth0, role: uplink, addresses: [198.18.0.2/31]}]\nroutes: [{prefix: 0.0.0.0/0, via: [198.18.0.3]}]\n", here(), ""},
		{"IPv6 in no network", linked + "routes: [{prefix: '::/0', via: ['2001:db8:7::1']}]\n", here(), "edge.yaml:5:10: routes[0].via[0]: next hop 2001:db8:7::1" + nowhere + fix},
		{"the kernel has a way of somebody's", linked + "routes: [{prefix: 0.0.0.0/0, via: [198.18.7.1]}]\n", here("198.18.7.1"), ""},
		{"an interface that the file does not name", linked + "routes: [{prefix: 10.9.0.0/16, via: [172.17.0.9]}]\n", facts("docker0 172.17.0.1/16", "eth0", "eth1", "lo"), ""},
		{"an uplink whose addresses come from elsewhere", "interfaces: [{name: eth0, role: uplink}]\nroutes: [{prefix: 0.0.0.0/0, via: [198.18.7.1]}]\n", here(), ""},
		{"an uplink with a single address", "interfaces: [{name: eth0, role: uplink, addresses: [198.18.0.2/32]}]\nroutes: [{prefix: 0.0.0.0/0, via: [172.31.1.1]}]\n", here(), ""},
		{"an uplink with IPv4 alone", uplink + "routes: [{prefix: '::/0', via: ['2001:db8:7::1']}]\n", here(), ""},
		{"through a tunnel", linked + tunnel("t", "addresses: [10.200.0.1/31]") + "routes: [{prefix: 10.9.0.0/16, via: [10.20.0.1]}, {prefix: 10.8.0.0/16, via: [10.200.0.0]}]\n", here(), ""},
		{"a workload", linked + "workloads: [{name: w, interface: w, addresses: [10.7.0.2]}]\nroutes: [{prefix: 10.9.0.0/16, via: [10.7.0.2]}]\n", here(), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.want == "" {
				compile(t, parse(t, c.yaml), Runtime{}, c.facts)
				return
			}
			same(t, strings.Split(refusal(t, parse(t, c.yaml), c.facts).Error(), "\n"), c.want)
			d := compile(t, parse(t, c.yaml), Runtime{Accepted: true}, c.facts)
			if !slices.ContainsFunc(d.Warnings, func(w string) bool { return strings.Contains(w, "routes[0].via[") }) {
				t.Errorf("a file that was accepted before: warnings %q", d.Warnings)
			}
		})
	}
}

func TestNeighborsWhoseSessionWouldNotComeUpAreWarnedOf(t *testing.T) {
	const never = "neighbor tor: 203.0.113.77 is in no network of this box, and a session with another AS crosses no router unless multihop says how many: it will not come up"
	bgp := func(neighbor string) string {
		return linked + "bgp: {asn: 65010, router_id: 198.18.0.2, neighbors: [{name: tor, " + neighbor + "}]}\n"
	}
	for _, c := range []struct {
		name, yaml string
		want       []string
	}{
		{"in a network", bgp("address: 198.18.0.1, asn: 65000"), nil},
		{"in none", bgp("address: 203.0.113.77, asn: 65000"), []string{never}},
		{"in none, with TTL security of one hop", bgp("address: 203.0.113.77, asn: 65000, ttl_security: 1"), []string{never}},
		{"in none, and further away", bgp("address: 203.0.113.77, asn: 65000, ttl_security: 3"), nil},
		{"in none, with multihop", bgp("address: 203.0.113.77, asn: 65000, multihop: 3"), nil},
		{"in none, of our own AS", bgp("address: 203.0.113.77, asn: 65010"), nil},
		{"with a route of the file", bgp("address: 203.0.113.77, asn: 65000") + "routes: [{prefix: 203.0.113.77/32, via: [198.18.0.1]}]\n", nil},
		{"with the default route alone", bgp("address: 203.0.113.77, asn: 65000") + "routes: [{prefix: 0.0.0.0/0, via: [198.18.0.1]}]\n", []string{never}},
	} {
		t.Run(c.name, func(t *testing.T) {
			same(t, compile(t, parse(t, c.yaml), Runtime{}, facts("eth0", "eth1", "lo")).Warnings, c.want...)
		})
	}
}

func TestTheMachineIsAskedForWhatTheFileDoesNotReach(t *testing.T) {
	cfg := parse(t, linked+`routes: [{prefix: 0.0.0.0/0, via: [198.18.0.1, 198.19.0.1]}]
bgp: {asn: 65010, router_id: 198.18.0.2, neighbors: [{name: a, address: 10.1.0.9, asn: 65000}, {name: b, address: 203.0.113.77, asn: 65000}]}
`)
	if got := list(LooksAtHops(cfg)); got != "198.19.0.1 203.0.113.77" {
		t.Errorf("looks at %s", got)
	}
}
