package compile

import (
	"net/netip"
	"strings"
	"testing"
)

func bgpLines(t *testing.T, word, yaml string, f Facts) []string {
	t.Helper()
	var p printer
	p.bgp(compile(t, parse(t, yaml), Runtime{}, f).BGP)
	lines := []string{}
	for line := range strings.Lines(p.out.String()) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), word+" "); ok {
			lines = append(lines, rest)
		}
	}
	return lines
}

func TestNoBGPIsNoSpeaker(t *testing.T) {
	if s := compile(t, parse(t, uplink), Runtime{}, eth0).BGP; s.ASN != 0 || s.RouterID.IsValid() || s.Neighbors != nil || s.Learn.Tunnels != nil {
		t.Errorf("a file without bgp: makes %+v", s)
	}
}

func TestNextHops(t *testing.T) {
	neighbor := func(address string) string {
		return "\nbgp: {asn: 65010, router_id: 198.18.0.2, neighbors: [{name: a, address: '" + address + "', asn: 65000, families: [ipv4-unicast, ipv6-unicast]}]}"
	}
	const two = `interfaces: [{name: eth0, role: uplink, addresses: ["2001:db8:0::2/64", 198.18.0.2/30]}, {name: eth1, role: uplink, addresses: ["2001:db8:1::2/64", 198.18.0.6/30]}]`
	const bare = "interfaces: [{name: eth0, role: uplink, addresses: [198.18.0.2/30]}]"
	const hold = " port 179 asn 65000 ipv4 ipv6 hold 1m30s"
	for _, c := range []struct {
		name, yaml string
		facts      Facts
		want       string
	}{
		{"of IPv6 over IPv4: the address of the interface that reaches the neighbor", two + neighbor("198.18.0.5"), facts("eth0", "eth1"),
			"a 198.18.0.5" + hold + " nexthop6 2001:db8:1::2"},
		{"of IPv4 over IPv6 likewise", two + neighbor("2001:db8:1::1"), facts("eth0", "eth1"), "a 2001:db8:1::1" + hold + " nexthop4 198.18.0.6"},
		{"of a neighbor that is further away: the first uplink's", two + neighbor("198.51.100.1"), facts("eth0", "eth1"),
			"a 198.51.100.1" + hold + " nexthop6 2001:db8::2"},
		{"from the machine where the file has none, but never link-local", bare + neighbor("198.18.0.1"),
			facts("eth0 fe80::9/64 2001:db8::9/64"), "a 198.18.0.1" + hold + " nexthop6 2001:db8::9"},
		{"of the file before the machine's", two + neighbor("198.18.0.1"), facts("eth0 2001:db8::1/64", "eth1"),
			"a 198.18.0.1" + hold + " nexthop6 2001:db8::2"},
		{"of a neighbor behind a tunnel: the tunnel's, for an uplink's would lead past it",
			two + tunnel("t", `addresses: [10.200.0.1/31, "fd00:200::1/127"]`) + neighbor("10.200.0.0"), facts("eth0", "eth1"), "a 10.200.0.0" + hold + " nexthop6 fd00:200::1"},
	} {
		t.Run(c.name, func(t *testing.T) { same(t, bgpLines(t, "neighbor", c.yaml, c.facts), c.want) })
	}
	t.Run("of the session's own family are the session's address", func(t *testing.T) {
		same(t, bgpLines(t, "neighbor", two+`
bgp: {asn: 65010, router_id: 198.18.0.2, neighbors: [{name: b, address: "2001:db8:0::1", asn: 65000}, {name: a, address: 198.18.0.1, asn: 65000, port: 1790, hold_time: 9s}]}`,
			facts("eth0", "eth1")),
			"a 198.18.0.1 port 1790 asn 65000 ipv4 hold 9s", "b 2001:db8::1 port 179 asn 65000 ipv6 hold 1m30s")
	})
}

func TestPathsAreMergedByPrefix(t *testing.T) {
	same(t, bgpLines(t, "path", uplink+`
workloads:
  - {name: w, interface: w, addresses: [203.0.113.7, "2001:db8:9::1"]}
bgp:
  asn: 65010
  router_id: 198.18.0.2
  neighbors: [{name: a, address: 198.18.0.1, asn: 65000}]
  advertise:
    - {prefixes: [203.0.113.7/32, 203.0.113.0/24], communities: ["0:3", "0:1"]}
    - {workloads: true, communities: ["0:2", "0:3"]}
`, facts("eth0", "w")),
		"203.0.113.0/24 communities 1 3", "203.0.113.7/32 communities 1 2 3", "2001:db8:9::1/128 communities 2 3")
}

func TestNothingIsLearnedPastStrictTunnelsAndNothingThatCatchesTheirPackets(t *testing.T) {
	learn := "\nbgp: {asn: 65010, router_id: 198.18.0.2, neighbors: [{name: a, address: 198.18.0.1, asn: 65000}], learn: {accept: [{prefix: 0.0.0.0/0, ge: 8, le: 24}]}}"
	strict := tunnel("t", "strict: true")
	same(t, bgpLines(t, "beside", uplink+strict+learn, eth0), "tunnel t strict 10.20.0.0/16 to 198.51.100.7")
	same(t, bgpLines(t, "accept", uplink+strict+learn, eth0), "0.0.0.0/0 8 to 24")
	same(t, bgpLines(t, "beside", uplink+tunnel("t")+learn, eth0), "tunnel t to 198.51.100.7")
	moved := Runtime{Tunnels: map[string]TunnelNow{"t": {Peers: map[string]PeerNow{"p": {Endpoint: netip.MustParseAddrPort("192.0.2.7:1")}}}}}
	if got := compile(t, parse(t, uplink+tunnel("t")+learn), moved, eth0).BGP.Learn.Tunnels; len(got) != 1 || list(got[0].Endpoints) != "192.0.2.7 198.51.100.7" {
		t.Errorf("beside a peer that has moved: %+v", got)
	}

	d := compile(t, parse(t, uplink+strict), Runtime{}, eth0)
	if got := list(d.TC.Generation.Strict); got != "10.20.0.0/16" {
		t.Errorf("tc guards %q", got)
	}
	if got := d.Path.Blackholes; len(got) != 1 || got[0].Prefix.String() != "10.20.0.0/16" {
		t.Errorf("blackholes are %v", got)
	}
	loose := compile(t, parse(t, uplink+tunnel("t")), Runtime{}, eth0)
	if len(loose.TC.Generation.Strict) != 0 || len(loose.Path.Blackholes) != 0 {
		t.Errorf("a tunnel that is not strict: tc guards %v, blackholes %v", loose.TC.Generation.Strict, loose.Path.Blackholes)
	}
}

func TestPeersWithoutRoutes(t *testing.T) {
	d := compile(t, parse(t, `
interfaces: [{name: eth0, role: uplink}]
tunnels:
  - name: t
    type: wireguard
    local: {address: 198.18.0.2, port: 1}
    strict: true
    wireguard: {private_key_file: /k, backend: userspace}
    peers:
      - {name: z, public_keys: [EBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi8=, AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=], prefixes: [10.20.0.0/16], routes: false}
      - {name: a, public_keys: [AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=], prefixes: [10.30.0.0/16, 10.29.0.0/16], metric: 7}
`), Runtime{}, eth0)
	var p printer
	p.wireguard(d.WireGuard)
	p.path(d.Path)
	var got []string
	for line := range strings.Lines(p.out.String()) {
		got = append(got, strings.TrimSpace(line))
	}
	same(t, got,
		"tunnel t userspace key /k port 1 mtu 1420 mark 0x1000000 addresses",
		"peer a AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8= allowed 10.29.0.0/16 10.30.0.0/16",
		"peer z AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA= allowed",
		"peer z EBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi8= allowed 10.20.0.0/16",
		"route 10.29.0.0/16 metric 7", "route 10.30.0.0/16 metric 7",
		"blackhole 10.20.0.0/16", "blackhole 10.29.0.0/16", "blackhole 10.30.0.0/16")
}
