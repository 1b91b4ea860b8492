package compile

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sluice/control/config"
	"sluice/tc"
	"sluice/xdp/classify"
)

// uplink is the least site that the fragments of the tests below are added to.
const uplink = "interfaces: [{name: eth0, role: uplink, addresses: [198.18.0.2/30]}]\n"

var eth0 = facts("eth0")

func rule(t *testing.T, p classify.Policy, name string) classify.Rule {
	t.Helper()
	i := slices.IndexFunc(p.Rules, func(r classify.Rule) bool { return r.Name == name })
	if i < 0 {
		t.Fatalf("policy %s has no rule %s", p.Name, name)
	}
	return p.Rules[i]
}

func TestSelf(t *testing.T) {
	for _, c := range []struct {
		name, yaml string
		facts      Facts
		want       string
	}{
		{"what the file writes, on every interface", `
interfaces: [{name: eth0, role: uplink, addresses: ["2001:db8::2/64", 198.18.0.2/30]}, {name: lo, addresses: [203.0.113.1/32]}]`,
			facts("eth0", "lo"), "198.18.0.2 203.0.113.1 2001:db8::2"},
		{"what a named interface has otherwise, link-local included, once", uplink,
			facts("eth0 198.18.0.2/30 198.18.0.9/24 fe80::5/64"), "198.18.0.2 198.18.0.9 fe80::5"},
		{"what other interfaces have, but no link-local ones: containers come and go", uplink,
			facts("eth0", "docker0 172.17.0.1/16 fe80::7/64"), "172.17.0.1 198.18.0.2"},
		{"no loopback addresses", uplink + "", facts("eth0", "lo 127.0.0.1/8 ::1/128 203.0.113.7/32"), "198.18.0.2 203.0.113.7"},
		{"the gateways that workloads see, there or not", uplink + "workloads: [{name: w, interface: veth-w, addresses: [10.0.1.1]}]",
			facts("eth0"), "169.254.1.1 198.18.0.2 fe80::1"},
		{"not the random link-local address of a workload's veth", uplink + "workloads: [{name: w, interface: veth-w, addresses: [10.0.1.1]}]",
			facts("eth0", "veth-w fe80::9/64"), "169.254.1.1 198.18.0.2 fe80::1"},
		{"a tunnel's addresses", uplink + tunnel("t", "addresses: [10.200.0.1/31]"), facts("eth0"), "10.200.0.1 198.18.0.2"},
		{"nothing where nothing is known yet", "interfaces: [{name: eth0, role: uplink}]", facts("eth0"), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := compile(t, parse(t, c.yaml), Runtime{}, c.facts)
			if got := list(d.XDP.Generation.Self); got != c.want {
				t.Errorf("XDP: self is %q, want %q", got, c.want)
			}
			if got := list(d.TC.Generation.Self); got != c.want {
				t.Errorf("tc: self is %q, want %q", got, c.want)
			}
		})
	}
}

// tunnel is a WireGuard tunnel with one peer, whose key is the first of keys; more are lines of the tunnel's own.
func tunnel(name string, more ...string) string {
	return fmt.Sprintf(`
tunnels:
  - {name: %s, type: wireguard, local: {address: 198.18.0.2, port: 51820}, wireguard: {private_key_file: /k/%s.key},
     peers: [{name: p, public_keys: [EBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi8=], endpoints: ["198.51.100.7:51820"], prefixes: [10.20.0.0/16]}]%s}
`, name, name, strings.Join(append([]string{""}, more...), ", "))
}

func TestReferencesBecomePrefixes(t *testing.T) {
	const site = uplink + `
sets:
  - {name: one, prefixes: [198.51.100.0/24, 10.0.0.0/8, 10.0.0.0/8, "2001:db8:1::/48"]}
  - {name: file, files: [x.netset]}
  - {name: none, prefixes: []}
workloads: [{name: w, interface: w, addresses: [10.0.1.2, 10.0.1.1, "fd00::1"]}]
policy: {ingress: {rules: [{name: r, action: drop, %s}]}}
`
	self := "169.254.1.1/32 198.18.0.2/32 fe80::1/128"
	for _, c := range []struct{ fields, want string }{ // from, to, not_from, not_to
		{"protocol: any", "any | any | any | any"},
		{"from: [one]", "10.0.0.0/8 198.51.100.0/24 2001:db8:1::/48 | any | any | any"},
		{"from: [file], not_from: [192.0.2.7]", "192.0.2.0/24 | any | 192.0.2.7/32 | any"},
		{"from: [none]", "nothing | any | any | any"},
		{"from: [none, none]", "nothing | any | any | any"},
		{"from: [none, file]", "192.0.2.0/24 | any | any | any"},
		{"not_from: [none]", "any | any | nothing | any"},
		{"to: [self]", "any | " + self + " | any | any"},
		{"to: [w], not_to: [10.0.1.2]", "any | 10.0.1.1/32 10.0.1.2/32 fd00::1/128 | any | 10.0.1.2/32"},
		{"to: [self, w, file, 192.0.2.0/24]", "any | 10.0.1.1/32 10.0.1.2/32 169.254.1.1/32 192.0.2.0/24 198.18.0.2/32 fd00::1/128 fe80::1/128 | any | any"},
	} {
		t.Run(c.fields, func(t *testing.T) {
			d := compile(t, parse(t, fmt.Sprintf(site, c.fields)), Runtime{}, facts("eth0", "w"))
			r := rule(t, d.XDP.Generation.Ingress, "r")
			var got []string
			for _, l := range [][]netip.Prefix{r.From, r.To, r.NotFrom, r.NotTo} {
				switch {
				case l == nil:
					got = append(got, "any")
				case len(l) == 0:
					got = append(got, "nothing")
				default:
					got = append(got, list(l))
				}
			}
			if got := strings.Join(got, " | "); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestASetIsSweptOnceHoweverManyRulesNameIt(t *testing.T) {
	d := compile(t, parse(t, uplink+`
sets: [{name: s, prefixes: [192.0.2.0/24, 198.51.100.0/24]}]
policy: {ingress: {rules: [{name: a, from: [s], action: drop}, {name: b, to: [s], action: drop}]}}
`), Runtime{}, eth0)
	a, b := rule(t, d.XDP.Generation.Ingress, "a").From, rule(t, d.TC.Generation.Ingress, "b").To
	if &a[0] != &b[0] {
		t.Error("two rules hold two copies of one set")
	}
}

func TestBothObjectsJudgeTheSamePolicies(t *testing.T) {
	d := compile(t, load(t, "edge-default-drop.yaml"), Runtime{}, facts("eth0", "lo", "web-1", "web-2"))
	x, g := d.XDP.Generation, d.TC.Generation
	for _, pair := range [][2]any{
		{x.Self, g.Self}, {x.Failsafe, g.Failsafe}, {x.System, g.System}, {x.Ingress, g.Ingress}, {x.FlowSlots, g.FlowSlots}, {x.RuleSlots, g.RuleSlots}, {x.LimitSlots, g.LimitSlots},
	} {
		if diff := cmp.Diff(pair[0], pair[1], comparers); diff != "" {
			t.Errorf("XDP and tc differ:\n%s", diff)
		}
	}
	if d.XDP.Digest != x.Digest() || d.TC.Digest != g.Digest() || d.XDP.Digest == d.TC.Digest {
		t.Errorf("digests: xdp %s, tc %s", d.XDP.Digest, d.TC.Digest)
	}
}

var cmpEquate = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}, netip.AddrPort{})

// comparers are for types of net/netip, which have fields that cmp may not see.
var comparers = cmp.Options{
	cmpEquate,
	cmp.Comparer(func(a, b *classify.Tables) bool { return reflect.DeepEqual(a, b) }),
}

func TestActionsAndFragments(t *testing.T) {
	for _, c := range []struct {
		fields    string
		action    classify.Action
		fragments classify.Fragments
	}{
		{"", classify.Accept, classify.FragDefault},
		{"default: accept", classify.Accept, classify.FragDefault},
		{"default: drop, fragments: accept", classify.Drop, classify.FragAccept},
		{"default: drop, fragments: drop", classify.Drop, classify.FragDrop},
		{"default: drop, fragments: track", classify.Drop, classify.FragTrack},
	} {
		t.Run(c.fields, func(t *testing.T) {
			d := compile(t, parse(t, uplink+"management: {accept: [{protocol: any}]}\npolicy: {ingress: {"+c.fields+"}}"), Runtime{}, eth0)
			if p := d.XDP.Generation.Ingress; p.Default != c.action || p.Fragments != c.fragments {
				t.Errorf("default %d, fragments %d; want %d, %d", p.Default, p.Fragments, c.action, c.fragments)
			}
		})
	}
}

func TestRulesKeepTheirOrderAndFields(t *testing.T) {
	d := compile(t, parse(t, uplink+`
policy:
  ingress:
    rules:
      - {name: z, protocol: udp, ports: [53, 1000-2000], source_ports: [1024-65535], action: accept}
      - {name: a, protocol: 132, action: drop, mode: shadow}
`), Runtime{}, eth0)
	want := []classify.Rule{
		{ID: 1, Name: "z", Protocol: 17, Ports: []classify.PortRange{{First: 53, Last: 53}, {First: 1000, Last: 2000}},
			SourcePorts: []classify.PortRange{{First: 1024, Last: 65535}}, Action: classify.Accept},
		{ID: 2, Name: "a", Protocol: 132, Action: classify.Drop, Shadow: true},
	}
	if diff := cmp.Diff(want, d.XDP.Generation.Ingress.Rules, comparers); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
}

func TestTheFailsafeIsForTheBoxAloneAndNeverDenies(t *testing.T) {
	d := compile(t, parse(t, uplink+`
management:
  accept:
    - {protocol: tcp, ports: [22], from: [198.18.0.0/24]}
    - {name: any, protocol: any}
`), Runtime{}, facts("eth0 198.18.0.2/30"))
	p := d.XDP.Generation.Failsafe
	self := []netip.Prefix{netip.MustParsePrefix("198.18.0.2/32")}
	want := classify.Policy{Name: "failsafe", Default: classify.Continue, Rules: []classify.Rule{
		{ID: 1, Name: "management-1", From: []netip.Prefix{netip.MustParsePrefix("198.18.0.0/24")}, To: self, Protocol: 6,
			Ports: []classify.PortRange{{First: 22, Last: 22}}, Action: classify.Accept},
		{ID: 2, Name: "any", To: self, Protocol: classify.AnyProtocol, Action: classify.Accept},
	}}
	if diff := cmp.Diff(want, p, comparers); diff != "" {
		t.Errorf("failsafe (-want +got):\n%s", diff)
	}
}

// TestTheFailsafeOpensNothingWhereNoAddressIsKnown: an empty list means no address, and nil would mean every one.
func TestTheFailsafeOpensNothingWhereNoAddressIsKnown(t *testing.T) {
	d := compile(t, load(t, "minimal.yaml"), Runtime{}, eth0)
	if to := d.XDP.Generation.Failsafe.Rules[0].To; to == nil || len(to) != 0 {
		t.Errorf("to is %v, want an empty list", to)
	}
}

func TestMatrix(t *testing.T) {
	base := []string{"none to none", "none to uplink", "none to downstream", "uplink to none", "uplink to downstream", "uplink to workload",
		"downstream to none", "downstream to uplink", "downstream to tunnel", "workload to uplink", "workload to tunnel"}
	roles := []config.Role{config.RoleUplink, config.RoleDownstream, config.RoleWorkload, config.RoleTunnel, config.RoleManagement}
	pairs := func(m tc.Matrix) (out []string) {
		for from := range m {
			for to, may := range m[from] {
				if may {
					out = append(out, fmt.Sprintf("%s to %s", tc.Role(from), tc.Role(to)))
				}
			}
		}
		return out
	}
	if got := pairs(compile(t, parse(t, uplink), Runtime{}, eth0).TC.Generation.Matrix); !slices.Equal(got, base) {
		t.Errorf("without forward: %q, want %q", got, base)
	}
	for _, from := range roles {
		for _, to := range roles {
			entry := fmt.Sprintf("{from: %s, to: %s%s}", from, to, map[bool]string{true: ", transit: true"}[from == to && from == config.RoleUplink])
			want := append(slices.Clone(base), fmt.Sprintf("%s to %s", from, to))
			got := pairs(compile(t, parse(t, uplink+"forward: ["+entry+"]"), Runtime{}, eth0).TC.Generation.Matrix)
			slices.Sort(want)
			slices.Sort(got)
			if want = slices.Compact(want); !slices.Equal(got, want) {
				t.Errorf("forward %s: %q, want %q", entry, got, want)
			}
		}
	}
}
