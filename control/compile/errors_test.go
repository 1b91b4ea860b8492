package compile

import (
	"fmt"
	"strings"
	"testing"

	"sluice/xdp/abi"
)

func TestErrorsSayWhatIsWrongWhereAndWhatToDo(t *testing.T) {
	own := facts("eth0")
	own.PublicKeys = map[string]string{"/k/t.key": "EBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi8="}
	var crowd []string
	for i := range 30 {
		crowd = append(crowd, fmt.Sprintf("veth%d", i))
	}
	for _, c := range []struct {
		name, yaml string
		facts      Facts
		want       []string
	}{
		{"an interface that is not there", "interfaces:\n  - {name: lo, addresses: [203.0.113.1/32]}\n  - {name: eht0, role: uplink}\n", facts("eth0", "lo"),
			[]string{"edge.yaml:3:5: interfaces[1].name: there is no interface eht0; interfaces here are eth0, lo"}},
		{"an interface that is not there, among many", uplink, facts(crowd...), []string{
			"edge.yaml:1:14: interfaces[0].name: there is no interface eth0; interfaces here are " + strings.Join(crowd[:20], ", ") + " and 10 more"}},
		{"no interface at all", uplink, Facts{},
			[]string{"edge.yaml:1:14: interfaces[0].name: there is no interface eth0; no interface is here at all"}},
		{"both ends of a veth here", uplink + "workloads:\n  - {name: a, interface: a, addresses: [10.0.1.1]}\n  - {name: w, interface: w, addresses: [10.0.1.2]}\n", facts("eth0", "a", "w here"),
			[]string{"edge.yaml:4:5: workloads[1].interface: both ends of the veth w are in this namespace; move the other end into the workload's own namespace"}},
		{"no next hop", uplink + "bgp:\n  asn: 65010\n  router_id: 198.18.0.2\n  neighbors:\n    - {name: a, address: 198.18.0.1, asn: 65000, families: [ipv6-unicast]}\n", facts("eth0 fe80::5/64"),
			[]string{"edge.yaml:6:7: bgp.neighbors[0].families: ipv6-unicast over this session needs an IPv6 next hop; give an uplink an IPv6 address, or leave the family out"}},
		{"no IPv4 next hop", "interfaces: [{name: eth0, role: uplink}]\nbgp:\n  asn: 65010\n  router_id: 198.18.0.2\n  neighbors:\n    - {name: a, address: '2001:db8::1', asn: 65000, families: [ipv4-unicast]}\n", facts("eth0 2001:db8::2/64"),
			[]string{"edge.yaml:6:7: bgp.neighbors[0].families: ipv4-unicast over this session needs an IPv4 next hop; give an uplink an IPv4 address, or leave the family out"}},
		{"the node's own key", uplink + tunnel("t"), own,
			[]string{"edge.yaml:5:14: tunnels[0].peers[0].public_keys[0]: this is the node's own key; give the peer's public key: `sluice key show` on the peer prints it"}},
		{"a peer of IPsec to whom nothing could be sent", uplink + "tunnels:" + esp("t", "static", "", "{name: a, endpoints: [198.51.100.7], master_key_file: /m}") +
			esp("u", "static", ", addresses: [10.200.0.1/31]", "{name: a, id: b, endpoints: [198.51.100.7], master_key_file: /m}"), eth0,
			[]string{"edge.yaml:3:91: tunnels[0].peers[0]: the peer has no prefixes, so that nothing could be sent to it; write prefixes; with routes: false where BGP has the routes"}},
		{"all at once, sorted by place", "workloads:\n  - {name: w, interface: w, addresses: [10.0.1.2]}\n" + uplink, facts("w here"), []string{
			"edge.yaml:2:5: workloads[0].interface: both ends of the veth w are in this namespace; move the other end into the workload's own namespace",
			"edge.yaml:3:14: interfaces[0].name: there is no interface eth0; interfaces here are w",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			same(t, strings.Split(refusal(t, parse(t, c.yaml), c.facts).Error(), "\n"), c.want...)
		})
	}
}

// TestABudgetErrorStandsAtItsRule: what does not fit is told before anything is loaded, and where.
func TestABudgetErrorStandsAtItsRule(t *testing.T) {
	many := func(n int) string {
		var items []string
		for i := range n {
			items = append(items, fmt.Sprintf("        - {name: r%d, protocol: tcp, source_ports: [%d], action: drop}\n", i, i+1))
		}
		return strings.Join(items, "")
	}
	const advice = "too many rules differ in nothing that is looked up: protocol, ports and addresses that do not nest; join them, or put the widest first"
	for _, c := range []struct{ name, yaml, want string }{
		{"of the node's policy", uplink + "policy:\n  ingress:\n      rules:\n" + many(abi.MaxWalk+5),
			"edge.yaml:2053:11: policy.ingress.rules[2048]: rule ingress/r2048 needs 1 places in one list of rules to compare, " +
				"0 of 2048 are left (all rules together: 2053): " + advice},
		{"of a workload, which only tc holds", uplink + "policy: {ingress: {rules: [{name: r, action: drop}]}}\nworkloads:\n  - {name: v, interface: v, addresses: [10.0.1.2]}\n" +
			"  - name: w\n    interface: w\n    addresses: [10.0.1.1]\n    egress:\n      rules:\n" + many(abi.MaxWalk+1),
			"edge.yaml:2058:11: workloads[1].egress.rules[2048]: rule workload/w/egress/r2048 needs 1 places in one list of rules to compare, " +
				"0 of 2048 are left (all rules together: 2049): " + advice},
	} {
		t.Run(c.name, func(t *testing.T) {
			same(t, strings.Split(refusal(t, parse(t, c.yaml), facts("eth0", "v", "w")).Error(), "\n"), c.want)
		})
	}
}

func TestUplinksWithXDPHaveABudget(t *testing.T) {
	var names, lines []string
	for n := range abi.InterfaceSlots {
		names = append(names, fmt.Sprintf("up%d", n))
		lines = append(lines, fmt.Sprintf("  - {name: up%d, role: uplink}\n", n))
	}
	yaml := "interfaces:\n" + strings.Join(lines, "")
	same(t, strings.Split(refusal(t, parse(t, yaml), facts(names...)).Error(), "\n"),
		"edge.yaml:2:5: interfaces: 256 uplinks have XDP, one box holds 255; write xdp: {mode: none} at some: tcx judges there")
	compile(t, parse(t, strings.Replace(yaml, "{name: up7, role: uplink}", "{name: up7, role: uplink, xdp: {mode: none}}", 1)), Runtime{}, facts(names...))
}

func TestTheFailsafeHasABudgetOfItsOwn(t *testing.T) {
	prefixes := func(n int) string {
		var out []string
		for i := range n {
			out = append(out, fmt.Sprintf("10.0.%d.0/24", i))
		}
		return strings.Join(out, ", ")
	}
	site := func(n int) string {
		return uplink + "management:\n  accept:\n    - {protocol: tcp, ports: [22, 80, 443], from: [" + prefixes(n) + "]}\n    - {protocol: icmp}\n    - {protocol: tcp, ports: [1, 3]}\n"
	}
	compile(t, parse(t, site(84)), Runtime{}, eth0) // 252 + 1 + 2 of 256
	same(t, strings.Split(refusal(t, parse(t, site(85)), eth0).Error(), "\n"),
		"edge.yaml:6:7: management.accept[2]: the rule needs 2 entries of prefix and port range, 0 of 256 are left; "+
			"merge prefixes or ports: management: is for the few who run the box")
}

func TestTooManyWorkloadsAndAddresses(t *testing.T) {
	var links, workloads, addresses []string
	for i := range abi.MaxWorkloads + 1 {
		links = append(links, fmt.Sprintf("w%d", i))
		workloads = append(workloads, fmt.Sprintf("  - {name: w%d, interface: w%d, addresses: [10.%d.%d.1]}\n", i, i, i/256, i%256))
		addresses = append(addresses, fmt.Sprintf("10.%d.%d.1/32", i/256, i%256))
	}
	same(t, strings.Split(refusal(t, parse(t, uplink+"workloads:\n"+strings.Join(workloads, "")), facts(append(links, "eth0")...)).Error(), "\n"),
		fmt.Sprintf("edge.yaml:%d:5: workloads: 1025 workloads are here, one box holds 1024; move some to another box", 3+abi.MaxWorkloads))
	same(t, strings.Split(refusal(t, parse(t, uplink), facts("eth0", "many "+strings.Join(addresses, " "))).Error(), "\n"),
		"interfaces: the box has 1026 own addresses, 1024 fit; announce a prefix and give its addresses to workloads, rather than adding them to interfaces")
}
