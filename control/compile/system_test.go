package compile

import (
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
		{"the underlay of a tunnel, with all peers' endpoints", head + `
{name: a, ` + peerKey + `, endpoints: ["198.51.100.9:1"]}, {name: b, public_keys: [AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=], endpoints: ["198.51.100.7:2"]}]}]`,
			[]string{
				"tunnel-t-in: from 198.51.100.7/32,198.51.100.9/32 to self udp ports 51820",
				"tunnel-t-out: from self to 198.51.100.7/32,198.51.100.9/32 udp source_ports 51820",
			}},
		{"a peer that calls may come from anywhere", head + `
{name: a, ` + peerKey + `, endpoints: ["198.51.100.9:1"]}, {name: b, public_keys: [AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=]}]}]`,
			[]string{"tunnel-t-in: to self udp ports 51820", "tunnel-t-out: from self udp source_ports 51820"}},
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
