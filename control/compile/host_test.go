package compile

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// hostLines compiles and returns the lines of the host's part that begin with a word.
func hostLines(t *testing.T, word, yaml string, f Facts) []string {
	t.Helper()
	var p printer
	p.host(compile(t, parse(t, yaml), Runtime{}, f).Host)
	lines := []string{}
	for line := range strings.Lines(p.out.String()) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), word+" "); ok {
			lines = append(lines, rest)
		}
	}
	return lines
}

func same(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func TestDownKeepsTheUplinksWhereThereIsNoManagementInterface(t *testing.T) {
	const yaml = `
interfaces:
  - {name: eth0, role: uplink, addresses: [198.18.0.2/30]}
  - {name: eth1, role: downstream, addresses: [10.0.2.1/24]}
  - {name: lo, addresses: [203.0.113.1/32]}
routes: [{prefix: 0.0.0.0/0, via: [198.18.0.1]}, {prefix: 10.9.0.0/16, via: [10.0.2.9]}]
`
	f := facts("eth0", "eth1", "lo")
	same(t, hostLines(t, "address", yaml, f), "eth0 198.18.0.2/30 keep", "eth1 10.0.2.1/24", "lo 203.0.113.1/32")
	same(t, hostLines(t, "route", yaml, f), "unicast 0.0.0.0/0 via 198.18.0.1 table 254 keep", "unicast 10.9.0.0/16 via 10.0.2.9 table 254")
}

func TestDownKeepsTheManagementInterfaceAlone(t *testing.T) {
	const yaml = `
interfaces:
  - {name: eth0, role: uplink, addresses: [198.18.0.2/30]}
  - {name: eth2, role: management, addresses: [10.0.9.2/24]}
routes:
  - {prefix: 0.0.0.0/0, via: [198.18.0.1]}
  - {prefix: 10.0.0.0/8, via: [10.0.9.1], metric: 5}
  - {prefix: 10.8.0.0/16, via: [198.18.0.1, 10.0.9.1]}
`
	f := facts("eth0", "eth2")
	same(t, hostLines(t, "address", yaml, f), "eth0 198.18.0.2/30", "eth2 10.0.9.2/24 keep")
	same(t, hostLines(t, "route", yaml, f), "unicast 0.0.0.0/0 via 198.18.0.1 table 254",
		"unicast 10.0.0.0/8 via 10.0.9.1 metric 5 table 254 keep", "unicast 10.8.0.0/16 via 198.18.0.1 10.0.9.1 table 254 keep")
}

// TestDownKeepsARouteThroughAnAddressFromDHCP: the address stays, as it is not ours, and the way to the operator with it.
func TestDownKeepsARouteThroughAnAddressFromDHCP(t *testing.T) {
	same(t, hostLines(t, "route", `
interfaces: [{name: eth0, role: uplink}]
routes: [{prefix: 10.0.0.0/8, via: [198.18.0.1]}]
`, facts("eth0 198.18.0.2/30")), "unicast 10.0.0.0/8 via 198.18.0.1 table 254 keep")
}

func TestOnlyWhatTheFileWritesIsTouchedOnALink(t *testing.T) {
	same(t, hostLines(t, "link", `
interfaces:
  - {name: eth0, role: uplink}
  - {name: eth1, role: downstream, mtu: 9000}
  - {name: eth2, role: management}
  - {name: gre0, role: tunnel}
  - {name: w, role: workload, mtu: 1400}
workloads: [{name: w, interface: w, addresses: [10.0.1.1]}]
`, facts("eth0", "eth1", "eth2", "gre0", "w")),
		"eth0 up group 18800", "eth1 up mtu 9000", "eth2 up group 18800", "gre0 up group 18800", "w up mtu 1400")
}

func TestAWorkloadsVethGetsGatewaysOfItsFamilies(t *testing.T) {
	for addresses, want := range map[string][]string{
		"[10.0.1.1, 10.0.1.2]":  {"w 169.254.1.1/32"},
		`["fd00::1"]`:           {"w fe80::1/64"},
		`["fd00::1", 10.0.1.1]`: {"w 169.254.1.1/32", "w fe80::1/64"},
	} {
		yaml := "interfaces: [{name: eth0, role: uplink}]\nworkloads: [{name: w, interface: w, addresses: " + addresses + "}]"
		same(t, hostLines(t, "address", yaml, facts("eth0", "w")), want...)
	}
}

func TestKernelMatrix(t *testing.T) {
	const site = `
interfaces:
  - {name: eth0, role: uplink}
  - {name: eth1, role: downstream}
  - {name: eth2, role: management}
  - {name: gre0, role: tunnel}
`
	f := facts("eth0", "eth1", "eth2", "gre0")
	for _, c := range []struct {
		forward string // from>to ...
		guarded string
	}{
		{"", "eth0 eth2 gre0 t"},
		{"tunnel>downstream downstream>downstream downstream>management uplink>workload", "eth0 eth2 gre0 t"},
		{"tunnel>tunnel", "eth0 eth2"},
		{"uplink>uplink", "eth2 gre0 t"},
		// Both ways: the replies of what goes from one outside to another come back, and a routing rule knows no flows.
		{"uplink>tunnel", "eth2"},
		{"tunnel>uplink", "eth2"},
		{"management>uplink", "gre0 t"},
		{"uplink>tunnel management>management", ""},
	} {
		t.Run(c.forward, func(t *testing.T) {
			var entries []string
			for _, pair := range strings.Fields(c.forward) {
				from, to, _ := strings.Cut(pair, ">")
				transit := map[bool]string{true: ", transit: true"}[pair == "uplink>uplink"]
				entries = append(entries, fmt.Sprintf("{from: %s, to: %s%s}", from, to, transit))
			}
			want := []string{}
			for _, kind := range []string{"18800 %siif %s table 254 suppress group 18800", "18801 %siif %s prohibit"} {
				for _, family := range []string{"", "inet6 "} {
					for _, link := range strings.Fields(c.guarded) {
						want = append(want, fmt.Sprintf(kind, family, link))
					}
				}
			}
			same(t, hostLines(t, "rule", site+tunnel("t")+"\nforward: ["+strings.Join(entries, ", ")+"]", f), want...)
		})
	}
}

func TestSysctls(t *testing.T) {
	v4 := func(links string) (out []string) {
		for _, l := range strings.Fields(links) {
			out = append(out, "net.ipv4.conf."+l+".forwarding = 1")
		}
		return out
	}
	v6 := func(links string) []string {
		out := []string{"net.ipv6.conf.all.forwarding = 1"}
		for _, l := range strings.Fields(links) {
			out = append(out, "net.ipv6.conf."+l+".forwarding = 1")
		}
		return out
	}
	const eth0eth2 = `interfaces: [{name: eth0, role: uplink, addresses: ["2001:db8::2/64"]}, {name: eth2, role: management}, {name: lo, addresses: [203.0.113.1/32]}]
`
	for _, c := range []struct {
		name, yaml string
		want       []string
	}{
		{"a box that forwards nothing is left alone", eth0eth2 + tunnel("t"), []string{}},
		{"a workload makes a router of IPv4", eth0eth2 + "workloads: [{name: w, interface: w, addresses: [10.0.1.1]}]", v4("eth0 w")},
		{"a workload with IPv6 makes one of both", eth0eth2 + `workloads: [{name: w, interface: w, addresses: ["fd00::1"]}]`,
			append(v4("eth0 w"), v6("eth0 w")...)},
		{"a workload that is away does not", eth0eth2 + "workloads: [{name: x, interface: x, addresses: [10.0.1.1]}]", []string{}},
		{"a downstream does, with tunnels", "interfaces: [{name: eth0, role: uplink}, {name: eth1, role: downstream, addresses: [10.0.2.1/24]}]\n" +
			tunnel("t"), v4("eth0 eth1 t")},
		{"a downstream with IPv6", `interfaces: [{name: eth1, role: downstream, addresses: ["fd00:2::1/64"]}, {name: eth0, role: uplink}]`,
			append(v4("eth0 eth1"), v6("eth0 eth1")...)},
		{"forward: alone, with management where it is named", eth0eth2 + "forward: [{from: uplink, to: management}]",
			append(v4("eth0 eth2"), v6("eth0 eth2")...)},
		{"the file has the last word", eth0eth2 + "workloads: [{name: w, interface: w, addresses: [10.0.1.1]}]\n" +
			"sysctls: [{key: net.ipv4.conf.eth0.forwarding, value: 0}, {key: net.core.somaxconn, value: 99}]",
			[]string{"net.core.somaxconn = 99", "net.ipv4.conf.eth0.forwarding = 0", "net.ipv4.conf.w.forwarding = 1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			same(t, hostLines(t, "sysctl", c.yaml, facts("eth0", "eth1", "eth2", "lo", "w")), c.want...)
		})
	}
}

func TestHooksByRole(t *testing.T) {
	d := compile(t, parse(t, `
interfaces:
  - {name: up-native, role: uplink, xdp: {mode: native, fail: closed}}
  - {name: up-none, role: uplink, xdp: {mode: none}}
  - {name: down, role: downstream}
  - {name: mgmt, role: management}
  - {name: gre0, role: tunnel}
  - {name: w, role: workload}
  - {name: lo, addresses: [203.0.113.1/32]}
workloads: [{name: w, interface: w, addresses: [10.0.1.1]}, {name: x, interface: x, addresses: [10.0.1.2]}]
management: {accept: [{protocol: any}]}
`+tunnel("t")), Runtime{}, facts("up-native", "up-none", "down", "mgmt", "gre0", "lo", "w"))
	got := []string{}
	for _, i := range d.TC.Interfaces {
		got = append(got, fmt.Sprintf("tc %s %s judge=%v", i.Name, i.Role, i.Judge))
	}
	for _, i := range d.XDP.Interfaces {
		got = append(got, fmt.Sprintf("xdp %s %s open=%v", i.Name, i.Mode, i.FailOpen))
	}
	same(t, got, "tc down downstream judge=false", "tc gre0 tunnel judge=true", "tc mgmt management judge=false",
		"tc t tunnel judge=true", "tc up-native uplink judge=false", "tc up-none uplink judge=true", "tc w workload judge=false",
		"xdp up-native native open=false")
}

func TestAMissingWorkloadIsWarnedOfAndNeitherAttachedNorAdvertised(t *testing.T) {
	const yaml = uplink + `
workloads:
  - {name: here, interface: veth-here, addresses: [10.0.1.1]}
  - {name: away, interface: veth-away, addresses: [10.0.1.2]}
policy: {ingress: {rules: [{name: r, to: [away], action: accept}]}}
bgp: {asn: 65010, router_id: 198.18.0.2, neighbors: [{name: a, address: 198.18.0.1, asn: 65000}], advertise: [{workloads: true}]}
`
	d := compile(t, parse(t, yaml), Runtime{}, facts("eth0", "veth-here"))
	same(t, d.Warnings, "workload away: interface veth-away is not there yet; it is attached when it appears")
	all := text(d)
	for _, absent := range []string{"veth-away", "10.0.1.2/32 dev", "path 10.0.1.2", "workload away at"} {
		for line := range strings.Lines(all) {
			if strings.Contains(line, absent) && !strings.Contains(line, "not there yet") {
				t.Errorf("there is %q: %s", absent, line)
			}
		}
	}
	// A rule may name it all the same: the address is known.
	if to := list(rule(t, d.XDP.Generation.Ingress, "r").To); to != "10.0.1.2/32" {
		t.Errorf("the rule is for %s", to)
	}
	arrived := compile(t, parse(t, yaml), Runtime{RuleIDs: d.RuleIDs}, facts("eth0", "veth-here", "veth-away"))
	if len(arrived.Warnings) != 0 || len(arrived.TC.Generation.Workloads) != 2 || len(arrived.BGP.Paths) != 2 {
		t.Errorf("after its arrival: %d workloads, %d paths, warnings %q", len(arrived.TC.Generation.Workloads), len(arrived.BGP.Paths), arrived.Warnings)
	}
}
