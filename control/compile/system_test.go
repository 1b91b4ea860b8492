package compile

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"sluice/xdp/classify"
)

// system compiles a site whose own address is 198.18.0.2 and returns its system rules as text.
func systemText(t *testing.T, yaml string) []string {
	t.Helper()
	d := compile(t, parse(t, uplink+yaml), Runtime{}, eth0)
	p := d.XDP.Generation.System
	if p.Name != "system" || p.Default != classify.Continue || p.Fragments != classify.FragDefault {
		t.Errorf("policy %q has default %d and fragments %d; it must leave what it does not name to others", p.Name, p.Default, p.Fragments)
	}
	lines := []string{}
	for _, r := range p.Rules {
		if r.Action != classify.Accept || r.Shadow {
			t.Errorf("rule %s does not accept", r.Name)
		}
		lines = append(lines, r.Name+": "+strings.ReplaceAll(r.Match(), "198.18.0.2/32", "self"))
	}
	return lines
}

// many are addresses.
func many(n int) string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf("198.51.100.%d", i+1))
	}
	return strings.Join(out, ", ")
}

func TestSystemRules(t *testing.T) {
	const peerKey = "public_keys: [EBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi8=]"
	head := "tunnels: [{name: t, type: wireguard, local: {address: 198.18.0.2, port: 51820}, wireguard: {private_key_file: /k}, peers: ["
	for _, c := range []struct {
		name, yaml string
		want       []string
	}{
		{"nothing to speak of", "", []string{}},
		{"BGP opens from either side, on ports of its own", `
bgp: {asn: 65010, router_id: 198.18.0.2, listen: 1790, neighbors: [{name: a, address: 198.18.0.1, asn: 65000, port: 1791}]}`,
			[]string{
				"bgp-a-in: from 198.18.0.1/32 to self tcp ports 1790",
				"bgp-a-in-reply: from self to 198.18.0.1/32 tcp source_ports 1790",
				"bgp-a-out: from self to 198.18.0.1/32 tcp ports 1791",
				"bgp-a-out-reply: from 198.18.0.1/32 to self tcp source_ports 1791 ports 1024-65535",
			}},
		{"BFD passes both ways where it is wanted, and nothing that a router has touched", `
bgp: {asn: 65010, router_id: 198.18.0.2, neighbors: [{name: a, address: 198.18.0.1, asn: 65000, bfd: {}}]}`,
			[]string{
				"bgp-a-in: from 198.18.0.1/32 to self tcp ports 179",
				"bgp-a-in-reply: from self to 198.18.0.1/32 tcp source_ports 179",
				"bgp-a-out: from self to 198.18.0.1/32 tcp ports 179",
				"bgp-a-out-reply: from 198.18.0.1/32 to self tcp source_ports 179 ports 1024-65535",
				"bfd-a-in: from 198.18.0.1/32 to self udp ports 3784 ttl 255",
				"bfd-a-out: from self to 198.18.0.1/32 udp ports 3784 ttl 255",
			}},
		{"a passive neighbor is not dialled", `
bgp: {asn: 65010, router_id: 198.18.0.2, groups: [{name: g, asn: 65000, passive: true}], neighbors: [{name: a, address: 198.18.0.1, group: g}]}`,
			[]string{"bgp-a-in: from 198.18.0.1/32 to self tcp ports 179", "bgp-a-in-reply: from self to 198.18.0.1/32 tcp source_ports 179"}},
		{"peers of WireGuard may come from anywhere, for they roam", head + `
{name: a, ` + peerKey + `, endpoints: ["198.51.100.9:1"]}, {name: b, public_keys: [AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=]}]}]`,
			[]string{"tunnel-t-in: to self udp ports 51820", "tunnel-t-out: from self udp source_ports 51820"}},
		{"a tunnel without peers lets nobody in", head + "]}]",
			[]string{"tunnel-t-in: from nothing to self udp ports 51820", "tunnel-t-out: from self to nothing udp source_ports 51820"}},
		{"ESP", "tunnels:" + esp("t", "static", "", "{name: a, endpoints: [198.51.100.9, 198.51.100.7], master_key_file: /m, prefixes: [10.20.0.0/16]}"),
			[]string{
				"tunnel-t-in-esp: from 198.51.100.7/32,198.51.100.9/32 to self esp",
				"tunnel-t-out-esp: from self to 198.51.100.7/32,198.51.100.9/32 esp",
			}},
		{"ESP in UDP alone", "tunnels:" + esp("t", "static, encapsulation: udp", "", "{name: a, endpoints: [198.51.100.9], master_key_file: /m, prefixes: [10.20.0.0/16]}"),
			[]string{"tunnel-t-in: to self udp ports 4500", "tunnel-t-out: from self udp source_ports 4500"}},
		{"IKE, with ESP as it is found out", "tunnels:" + esp("t", "ike", "", "{name: a, endpoints: [fra1.example], preshared_key_file: /m, prefixes: [10.20.0.0/16]}"),
			[]string{
				"tunnel-t-in-ike: to self udp ports 500,4500", "tunnel-t-out-ike: from self udp source_ports 500,4500",
				"tunnel-t-in-esp: to self esp", "tunnel-t-out-esp: from self esp",
			}},
		{"IKE, with ESP in UDP", "tunnels:" + esp("t", "ike, encapsulation: udp", "", "{name: a, endpoints: [198.51.100.9], preshared_key_file: /m, prefixes: [10.20.0.0/16]}"),
			[]string{"tunnel-t-in-ike: from 198.51.100.9/32 to self udp ports 500,4500", "tunnel-t-out-ike: from self to 198.51.100.9/32 udp source_ports 500,4500"}},
		{"probes, and those of the other end", "tunnels:" + esp("t", "static, encapsulation: udp", `, addresses: [10.200.0.1/31, "fd00:200::1/64"], health: {}`,
			`{name: a, endpoints: [198.51.100.9], master_key_file: /m, probe: 10.200.0.0}, {name: b, endpoints: [198.51.100.9], master_key_file: /n, id: b, probe: "fd00:200::2"}, {name: c, endpoints: [198.51.100.9], master_key_file: /n, id: c, prefixes: [10.30.0.0/16]}`),
			[]string{
				"tunnel-t-in: to 10.200.0.1/32,self,fd00:200::1/128 udp ports 4500", "tunnel-t-out: from 10.200.0.1/32,self,fd00:200::1/128 udp source_ports 4500",
				"tunnel-t-probe: from 10.200.0.1/32,self,fd00:200::1/128 to 10.200.0.0/31 icmp",
				"tunnel-t-probed: from 10.200.0.0/31 to 10.200.0.1/32 icmp",
				"tunnel-t-probe6: from 10.200.0.1/32,self,fd00:200::1/128 to fd00:200::/64 icmpv6",
				"tunnel-t-probed6: from fd00:200::/64 to fd00:200::1/128 icmpv6",
			}},
		{"probes of what is in the peers' prefixes", head + `
{name: a, ` + peerKey + `, prefixes: [10.20.0.0/16, "fd00:20::/48"], probe: 10.20.0.1}], health: {}}]`,
			[]string{"tunnel-t-in: to self udp ports 51820", "tunnel-t-out: from self udp source_ports 51820", "tunnel-t-probe: from self to 10.20.0.1/32 icmp"}},
		{"many endpoints, of which none is named", "tunnels:" + esp("t", "static", "", "{name: a, endpoints: ["+many(33)+"], master_key_file: /m, prefixes: [10.20.0.0/16]}"),
			[]string{"tunnel-t-in-esp: to self esp", "tunnel-t-out-esp: from self esp"}},
		{"DNS for endpoints that are names", "node: {dns: [198.18.0.53, \"2001:db8::53\"]}\ntunnels:" + esp("t", "static, encapsulation: udp", "", "{name: a, endpoints: [fra1.example], master_key_file: /m, prefixes: [10.20.0.0/16]}"),
			[]string{
				"tunnel-t-in: to self udp ports 4500", "tunnel-t-out: from self udp source_ports 4500",
				"dns-198.18.0.53-17: from self to 198.18.0.53/32 udp ports 53", "dns-198.18.0.53-6: from self to 198.18.0.53/32 tcp ports 53",
				"dns-2001:db8::53-17: from self to 2001:db8::53/128 udp ports 53", "dns-2001:db8::53-6: from self to 2001:db8::53/128 tcp ports 53",
			}},
		{"no DNS for addresses", "node: {dns: [198.18.0.53]}\ntunnels:" + esp("t", "static, encapsulation: udp", "", "{name: a, endpoints: [198.51.100.9], master_key_file: /m, prefixes: [10.20.0.0/16]}"),
			[]string{"tunnel-t-in: to self udp ports 4500", "tunnel-t-out: from self udp source_ports 4500"}},
		{"echo requests of the checks, each once", `
apply: {checks: [{reach: 198.18.0.1}, {neighbors: keep}, {reach: "2001:db8::1"}, {reach: 198.18.0.1}]}`,
			[]string{
				"check-reach-198.18.0.1: from self to 198.18.0.1/32 icmp",
				"check-reach-2001:db8::1: from self to 2001:db8::1/128 icmpv6",
			}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := systemText(t, c.yaml); !slices.Equal(got, c.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}

// TestNamesOfSystemRulesDoNotMeet: rules are known by name, so a neighbor called like another's suffix must not lose one.
func TestNamesOfSystemRulesDoNotMeet(t *testing.T) {
	got := systemText(t, `
bgp:
  asn: 65010
  router_id: 198.18.0.2
  neighbors:
    - {name: a, address: 198.18.0.1, asn: 65000}
    - {name: a-in, address: 198.18.0.3, asn: 65000}
    - {name: a-out, address: 198.18.0.4, asn: 65000}
`)
	names := map[string]bool{}
	for _, line := range got {
		name, _, _ := strings.Cut(line, ":")
		names[name] = true
	}
	if len(got) != 12 || len(names) != 12 {
		t.Errorf("3 neighbors have %d rules of %d names, want 12 of 12: %q", len(got), len(names), got)
	}
}
