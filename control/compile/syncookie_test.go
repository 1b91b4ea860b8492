package compile

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/control/host"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
)

// guarded is a box with two workloads and one rule with syn_cookie; rest may follow.
func guarded(to, ports, rest string) string {
	return "interfaces:\n  - {name: eth0, role: uplink, addresses: [198.18.0.2/30, '2001:db8::2/64']}\n" +
		"management: {accept: [{protocol: tcp, ports: [22]}]}\n" +
		"workloads:\n  - {name: web-1, interface: web-1, addresses: [203.0.113.10, 'fd00:1::10']}\n  - {name: vm-1, interface: vm-1, addresses: [203.0.113.11]}\n" +
		"policy:\n  ingress:\n    rules:\n      - {name: flood, to: " + to + ", protocol: tcp, ports: " + ports + ", action: syn_cookie" + rest
}

func behind(f Facts, what map[string]host.Behind) Facts {
	f.Host.Behind = what
	return f
}

func listeners(texts ...string) []netip.AddrPort {
	var out []netip.AddrPort
	for _, text := range texts {
		out = append(out, netip.MustParseAddrPort(text))
	}
	return out
}

func TestListenersOfSYNCookie(t *testing.T) {
	here := behind(facts("eth0 198.18.0.2/30 2001:db8::2/64 fe80::1:2/64", "web-1", "vm-1"),
		map[string]host.Behind{"web-1": {Kind: "veth"}, "vm-1": {Kind: "tun", Unreachable: "no"}})
	for _, c := range []struct {
		name, yaml string
		facts      Facts
		want       []netip.AddrPort
		sysctls    string
	}{
		{"of the box: no link-local address, none of a workload", guarded("[self]", "[443]", "}\n"), here,
			listeners("169.254.1.1:443", "198.18.0.2:443", "[2001:db8::2]:443")[1:], "own"},
		{"of a workload", guarded("[web-1]", "[80, 443]", "}\n"), here,
			listeners("203.0.113.10:80", "203.0.113.10:443", "[fd00:1::10]:80", "[fd00:1::10]:443"), "web-1"},
		{"of both, by address, with an exception", guarded("[198.18.0.2, web-1]", "[8000-8001]", ", not_to: ['fd00:1::/64']}\n"), here,
			listeners("198.18.0.2:8000", "198.18.0.2:8001", "203.0.113.10:8000", "203.0.113.10:8001"), "own web-1"},
		{"a prefix that is made of them", guarded("[203.0.113.10/32]", "[443]", "}\n"), here, listeners("203.0.113.10:443"), "web-1"},
		{"two rules share some", guarded("[198.18.0.2]", "[443]", "}\n      - {name: more, to: [self], protocol: 6, ports: [443, 25], action: syn_cookie}\n"), here,
			listeners("198.18.0.2:25", "198.18.0.2:443", "[2001:db8::2]:25", "[2001:db8::2]:443"), "own"},
		{"a shadow rule has none", guarded("[self]", "[443]", ", mode: shadow}\n"), here, nil, ""},
		{"a workload that is not there yet", guarded("[web-1]", "[443]", "}\n"), facts("eth0"), nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := Compile(parse(t, c.yaml), Runtime{}, c.facts)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, d.XDP.Generation.SYNListeners, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
				t.Errorf("listeners (- wanted, + got):\n%s", diff)
			}
			var workloads []netip.Addr
			if c.want != nil { // vm-1 has no listeners, and its address is not to be answered all the same
				workloads = []netip.Addr{netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("203.0.113.11"), netip.MustParseAddr("fd00:1::10")}
			}
			if got := d.XDP.Generation.Workloads; !slices.Equal(got, workloads) {
				t.Errorf("addresses of workloads %v, want %v", got, workloads)
			}
			if got := rule(t, d.XDP.Generation.Ingress, "flood").Action; got != classify.SYNCookie {
				t.Errorf("the action is %v", got)
			}
			if got := cookieSettingsOf(d); got != c.sysctls {
				t.Errorf("settings of %q, want %q", got, c.sysctls)
			}
		})
	}
}

func TestWhatListenersAreSetNotToTake(t *testing.T) {
	here := behind(facts("eth0 198.18.0.2/30", "web-1"),
		map[string]host.Behind{host.Here: {NoWindowScaling: true}, "web-1": {Kind: "veth", NoSACK: true}})
	d, err := Compile(parse(t, guarded("[198.18.0.2, web-1]", "[443]", "}\n")), Runtime{}, here)
	if err != nil {
		t.Fatal(err)
	}
	want := map[netip.AddrPort]uint8{
		netip.MustParseAddrPort("198.18.0.2:443"):   abi.ListenerWindowScale,
		netip.MustParseAddrPort("203.0.113.10:443"): abi.ListenerSACK,
		netip.MustParseAddrPort("[fd00:1::10]:443"): abi.ListenerSACK,
	}
	if got := d.XDP.Generation.Refuses; !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// cookieSettingsOf says where both settings are made.
func cookieSettingsOf(d *Desired) string {
	var where []string
	for _, key := range cookieSysctls {
		if slices.Contains(d.Host.Sysctls, host.Sysctl{Key: key, Value: "2"}) {
			where = append(where, "own")
		}
		for _, s := range d.Host.Inner {
			if s.Key == key && s.Value == "2" {
				where = append(where, s.Link)
			}
		}
	}
	half := where[:len(where)/2]
	if !slices.Equal(half, where[len(where)/2:]) {
		return fmt.Sprint("not both: ", where)
	}
	return strings.Join(half, " ")
}

func TestWhatSYNCookieCannotProtectIsRefused(t *testing.T) {
	here := facts("eth0", "web-1", "vm-1")
	const at = "edge.yaml:10:9: policy.ingress.rules[0]"
	const forwarded = "name self, workloads, or their addresses one by one; action: limit bounds SYNs to what is only forwarded"
	for _, c := range []struct {
		name, yaml string
		facts      Facts
		want       string
	}{
		{"a forwarded prefix", guarded("[self, 198.51.100.0/24]", "[443]", "}\n"), here,
			at + ".to: rule flood: syn_cookie answers in the name of listeners on this machine, and 198.51.100.0/24 holds other addresses; " + forwarded},
		{"a prefix that holds others too", guarded("[203.0.113.8/30]", "[443]", "}\n"), here,
			at + ".to: rule flood: syn_cookie answers in the name of listeners on this machine, and 203.0.113.8/30 holds other addresses; " + forwarded},
		{"every address", guarded("['::/0']", "[443]", "}\n"), here,
			at + ".to: rule flood: syn_cookie answers in the name of listeners on this machine, and ::/0 holds other addresses; " + forwarded},
		{"a virtual machine", guarded("[web-1, vm-1]", "[443]", "}\n"), behind(here, map[string]host.Behind{"web-1": {Kind: "veth"}, "vm-1": {Kind: "tuntap"}}),
			at + ".to: rule flood: workload vm-1 is behind vm-1, which is no veth but tuntap: its kernel is another one and does not know this one's cookies; " +
				"leave it out; a virtual machine makes its own cookies"},
		{"a passed-through function of a NIC", guarded("[vm-1]", "[443]", "}\n"), behind(here, map[string]host.Behind{"vm-1": {}}),
			at + ".to: rule flood: workload vm-1 is behind vm-1, which is no veth but physical: its kernel is another one and does not know this one's cookies; " +
				"leave it out; a virtual machine makes its own cookies"},
		{"a namespace out of reach", guarded("[web-1]", "[443]", "}\n"), behind(here, map[string]host.Behind{"web-1": {Kind: "veth", Unreachable: "it hides"}}),
			at + ".to: rule flood: tcp_syncookies and tcp_timestamps of workload web-1 cannot be set: it hides; " +
				"run sluice in the host's PID namespace, give the namespace a name (`ip netns attach`), or leave the workload out"},
		{"too many ports", guarded("[self]", "[1-1366]", "}\n"), facts("eth0", "web-1", "vm-1", "lo 203.0.113.1/32"),
			at + ": rule flood: 3 addresses times its ports are 4098 listeners; all rules with syn_cookie together may have 4096; name the ports where something listens"},
		{"all ports", guarded("[self]", "[1-65535]", "}\n"), here,
			at + ": rule flood: 2 addresses times its ports are 131070 listeners; all rules with syn_cookie together may have 4096; name the ports where something listens"},
		{"a setting of the file that stands against it", "sysctls: [{key: net.ipv4.tcp_syncookies, value: \"1\"}]\n" + guarded("[self]", "[443]", "}\n"), here,
			"edge.yaml:1:11: sysctls[0]: net.ipv4.tcp_syncookies must be 2 where syn_cookie protects the box's own addresses; remove the line: the rule sets it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			same(t, strings.Split(refusal(t, parse(t, c.yaml), c.facts).Error(), "\n"), c.want)
		})
	}
}

func TestUplinksWithoutXDPAreTold(t *testing.T) {
	yaml := strings.Replace(guarded("[self]", "[443]", "}\n"), "'2001:db8::2/64']", "'2001:db8::2/64'], xdp: {mode: none}", 1)
	d, err := Compile(parse(t, yaml), Runtime{}, facts("eth0", "web-1", "vm-1"))
	if err != nil {
		t.Fatal(err)
	}
	same(t, d.Warnings, "interface eth0: syn_cookie rules accept here and answer nothing, because xdp.mode is none; the kernel's own cookies remain")
}

func TestUplinksThatAreVethsAreTold(t *testing.T) {
	for mode, told := range map[string]bool{"auto": true, "native": true, "generic": false} {
		yaml := strings.Replace(guarded("[self]", "[443]", "}\n"), "'2001:db8::2/64']", "'2001:db8::2/64'], xdp: {mode: "+mode+"}", 1)
		f := facts("eth0", "web-1", "vm-1")
		f.Host.Links[0].Kind = "veth"
		d := compile(t, parse(t, yaml), Runtime{}, f)
		if got := strings.Contains(strings.Join(d.Warnings, "\n"), "interface eth0 is a veth: its other end loses what syn_cookie rules answer"); got != told {
			t.Errorf("xdp.mode %s: warnings %q, want it told: %v", mode, d.Warnings, told)
		}
	}
}

func TestOnlyRulesWithSYNCookieMakeItLookBehindWorkloads(t *testing.T) {
	with := guarded("[self]", "[443]", "}\n")
	if got := LooksBehind(parse(t, with), nil); !slices.Equal(got, []string{"web-1", "vm-1", host.Here}) {
		t.Errorf("got %v", got)
	}
	if got := LooksBehind(parse(t, strings.Replace(with, "action: syn_cookie", "action: accept", 1)), nil); got != nil {
		t.Errorf("got %v", got)
	}
}
