package compile

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/control/config"
	"sluice/tc"
	"sluice/xdp/classify"
)

// snatSite is a box with two uplinks and a LAN. %s is what a test adds to its workload and beside it.
const snatSite = `
interfaces:
  - {name: eth0, role: uplink, addresses: [198.18.0.2/30, "2001:db8::2/64"]}
  - {name: eth1, role: uplink}
  - {name: lan, role: downstream, addresses: [10.0.2.1/24]%s}
  - {name: lo, addresses: [203.0.113.1/32]}
workloads: [{name: web, interface: web, addresses: [%s]%s}]
%s
`

// translations compiles and prints what concerns SNAT.
func translations(t *testing.T, links []string, lan, addresses, workload, more string) (string, []string) {
	t.Helper()
	f := facts(links...)
	f.Host.LocalPorts = [2]uint16{32768, 60999}
	d := compile(t, parse(t, fmt.Sprintf(snatSite, lan, addresses, workload, more)), Runtime{}, f)
	var out []string
	for _, i := range d.TC.Interfaces {
		if i.SNAT != (tc.SNAT{}) {
			out = append(out, fmt.Sprintf("%s %+v", i.Name, i.SNAT))
		}
	}
	for _, a := range d.TC.Generation.SNATAddresses {
		out = append(out, fmt.Sprintf("%s %s", a.IPv4, a.IPv6))
	}
	if ports := d.TC.Generation.SNATPorts; ports.Last != 0 {
		out = append(out, fmt.Sprintf("ports %d-%d", ports.First, ports.Last))
	}
	if a := d.TC.Generation.Announced; len(a) > 0 {
		out = append(out, "announced "+list(a))
	}
	var warnings []string
	for _, w := range d.Warnings {
		if strings.Contains(w, "snat") || strings.Contains(w, "translate") {
			warnings = append(warnings, w)
		}
	}
	return strings.Join(out, "\n"), append(warnings, d.Notes...)
}

func TestSourcesAreTranslatedToTheAddressesOfTheUplink(t *testing.T) {
	links := []string{"eth0", "eth1", "lan", "lo 127.0.0.1/8 ::1/128", "web"}
	for _, test := range []struct {
		name, lan, addresses, workload, more string
		links                                []string
		want                                 string
		warnings                             []string
	}{
		{name: "nobody asks for it", addresses: "10.0.1.1", want: ""},
		{name: "none is nothing", addresses: "10.0.1.1", workload: ", snat: none", want: ""},
		{
			name: "each uplink has its own, of lo where it has none", addresses: "10.0.1.1", workload: ", snat: auto",
			want: "eth0 {IPv4:false IPv6:false All:false Address:1}\neth1 {IPv4:false IPv6:false All:false Address:2}\n" +
				"web {IPv4:true IPv6:false All:false Address:0}\n198.18.0.2 2001:db8::2\n203.0.113.1 invalid IP\nports 1024-32767",
		},
		{
			name: "a family that an uplink lacks", addresses: `10.0.1.1, "fd00::1"`, workload: ", snat: auto",
			want: "eth0 {IPv4:false IPv6:false All:false Address:1}\neth1 {IPv4:false IPv6:false All:false Address:2}\n" +
				"web {IPv4:true IPv6:true All:false Address:0}\n198.18.0.2 2001:db8::2\n203.0.113.1 invalid IP\nports 1024-32767",
			warnings: []string{"uplink eth1 has no IPv6 address to translate to, nor has lo: what workload web sends out there from private IPv6 addresses is dropped"},
		},
		{
			name: "addresses that DHCP gave", addresses: `"fd00::1"`, workload: ", snat: auto",
			links: []string{"eth0 fe80::1/64", "eth1 192.0.2.7/24 fe80::1/64 2001:db8:1::7/64", "lan", "lo", "web"},
			want: "eth0 {IPv4:false IPv6:false All:false Address:1}\neth1 {IPv4:false IPv6:false All:false Address:2}\n" +
				"web {IPv4:false IPv6:true All:false Address:0}\n198.18.0.2 2001:db8::2\n192.0.2.7 2001:db8:1::7\nports 1024-32767",
		},
		{
			name: "public sources stay", addresses: `203.0.113.80, "2001:db8:80::1"`, workload: ", snat: auto",
			want: "eth0 {IPv4:false IPv6:false All:false Address:1}\neth1 {IPv4:false IPv6:false All:false Address:2}\n" +
				"198.18.0.2 2001:db8::2\n203.0.113.1 invalid IP\nports 1024-32767",
			warnings: []string{"workload web: snat: auto translates private sources, and it has none"},
		},
		{
			name: "what is announced stays", addresses: `10.0.1.1, "fd00::1"`, workload: ", snat: auto",
			more: "bgp: {asn: 65010, router_id: 198.18.0.2, advertise: [{workloads: true}, {prefixes: [0.0.0.0/0, 203.0.113.0/24]}]}",
			want: "eth0 {IPv4:false IPv6:false All:false Address:1}\neth1 {IPv4:false IPv6:false All:false Address:2}\n" +
				"198.18.0.2 2001:db8::2\n203.0.113.1 invalid IP\nports 1024-32767\nannounced 10.0.1.1/32 fd00::1/128",
			warnings: []string{"workload web: snat: auto does not translate 10.0.1.1 and fd00::1, which BGP announces: answers find their way",
				"bgp.advertise[1]: with 0.0.0.0/0 neighbors send here what they have no other route for"},
		},
		{
			name: "a LAN may hide others", lan: ", snat: auto", addresses: "10.0.1.1",
			more: "bgp: {asn: 65010, router_id: 198.18.0.2, advertise: [{prefixes: [10.0.0.0/16]}]}",
			want: "eth0 {IPv4:false IPv6:false All:false Address:1}\neth1 {IPv4:false IPv6:false All:false Address:2}\n" +
				"lan {IPv4:true IPv6:true All:false Address:0}\n198.18.0.2 2001:db8::2\n203.0.113.1 invalid IP\nports 1024-32767\nannounced 10.0.0.0/16",
			warnings: []string{"downstream lan: snat: auto does not translate 10.0.2.0/24, which BGP announces: answers find their way"},
		},
		{
			name: "one address for all", addresses: `10.0.1.1, "fd00::1"`, workload: ", snat: 203.0.113.1",
			more: "snat: {ports: 2000-2999}\nsysctls: [{key: net.ipv4.ip_local_port_range, value: 1024 20000}]",
			want: "eth0 {IPv4:false IPv6:false All:false Address:2}\neth1 {IPv4:false IPv6:false All:false Address:1}\n" +
				"web {IPv4:true IPv6:false All:true Address:1}\n203.0.113.1 invalid IP\n198.18.0.2 2001:db8::2\nports 2000-2999",
			warnings: []string{"snat.ports 2000-2999 and net.ipv4.ip_local_port_range 1024-20000 overlap: what the box itself sends from a port " +
				"that a translated flow to the same destination has is dropped"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.links == nil {
				test.links = links
			}
			got, warnings := translations(t, test.links, test.lan, test.addresses, test.workload, test.more)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.warnings, warnings); diff != "" {
				t.Errorf("warnings (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAnAddressOfAnotherBoxIsNoSource(t *testing.T) {
	cfg := parse(t, fmt.Sprintf(snatSite, ", snat: 203.0.113.9", "10.0.1.1", ", snat: 203.0.113.2", ""))
	errs := refusal(t, cfg, facts("eth0", "eth1", "lan", "lo", "web"))
	if len(errs) != 2 || !strings.Contains(errs[0].Error(), "interfaces[2].snat: 203.0.113.9 is not an address of this box") ||
		!strings.Contains(errs[1].Error(), "workloads[0].snat: 203.0.113.2 is not an address of this box; write auto, or give the address to an interface, such as lo") {
		t.Error(errs)
	}
}

// Not when its interface comes: then nobody is there to be told.
func TestAnAddressOfAnotherBoxIsNoSourceOfAWorkloadThatIsAway(t *testing.T) {
	links := []string{"eth0", "eth1", "lan", "lo"}
	errs := refusal(t, parse(t, fmt.Sprintf(snatSite, "", "10.0.1.1", ", snat: 203.0.113.2", "")), facts(links...))
	if len(errs) != 1 || !strings.Contains(errs[0].Error(), "workloads[0].snat: 203.0.113.2 is not an address of this box") {
		t.Error(errs)
	}
	away := parse(t, fmt.Sprintf(snatSite, "", "10.0.1.1", ", snat: 203.0.113.1", ""))
	if d := compile(t, away, Runtime{}, facts(links...)); len(d.TC.Generation.SNATAddresses) != 0 || d.TC.Generation.SNATPorts.Last != 0 {
		t.Errorf("nobody is there, and %v is translated to", d.TC.Generation.SNATAddresses)
	}
	added := Added{Workload: config.Workload{Name: "api", Interface: "api", Added: true, Addresses: []netip.Addr{netip.MustParseAddr("10.0.1.2")},
		SNAT: config.SNAT{Address: netip.MustParseAddr("203.0.113.2")}}}
	d := compile(t, away, Runtime{Accepted: true, Workloads: []Added{added}}, facts(links...))
	if len(d.Refused) != 1 || d.Refused[0].Why != "workload api.snat: 203.0.113.2 is not an address of this box; write auto, or give the address to an interface, such as lo" {
		t.Errorf("refused are %+v", d.Refused)
	}
}

func TestNoSourceIsTranslatedBehindAVRF(t *testing.T) {
	cfg := parse(t, fmt.Sprintf(snatSite, ", snat: auto", "10.0.1.1", ", snat: auto", ""))
	f := facts("eth0", "eth1", "lan", "lo", "web")
	f.Host.Links[2].VRF = "red"
	errs := refusal(t, cfg, f)
	want := "interfaces[2].snat: lan belongs to the VRF red, whose packets cannot be told apart where they leave; take the interface out of the VRF"
	if len(errs) != 1 || !strings.Contains(errs[0].Error(), want) {
		t.Error(errs)
	}
}

func TestTranslatedPortsKeepClearOfTheKernels(t *testing.T) {
	for _, test := range []struct {
		local [2]uint16
		want  classify.PortRange
	}{
		{[2]uint16{32768, 60999}, classify.PortRange{First: 1024, Last: 32767}},
		{[2]uint16{15000, 25000}, classify.PortRange{First: 25001, Last: 65535}},
		{[2]uint16{1024, 65535}, classify.PortRange{First: 1024, Last: 65535}},
		{[2]uint16{100, 40000}, classify.PortRange{First: 40001, Last: 65535}},
		{[2]uint16{100, 900}, classify.PortRange{First: 1024, Last: 65535}},
		{[2]uint16{0, 0}, classify.PortRange{First: 1024, Last: 65535}},
	} {
		c := &compiler{cfg: parse(t, "interfaces: [{name: eth0, role: uplink}]"), facts: Facts{}}
		c.facts.Host.LocalPorts = test.local
		if got := c.snatPorts(); got != test.want {
			t.Errorf("local ports %v: got %v, want %v", test.local, got, test.want)
		}
	}
}

func TestPrivateAddressesAreThoseOfTheStandards(t *testing.T) {
	for address, want := range map[string]bool{
		"10.0.0.0": true, "9.255.255.255": false, "172.15.0.1": false, "172.16.0.1": true, "172.31.255.255": true, "172.32.0.0": false,
		"192.168.0.1": true, "192.167.0.1": false, "100.64.0.1": true, "100.127.255.255": true, "100.128.0.0": false, "169.254.3.4": true,
		"198.18.0.1": false, "fd00::1": true, "fc00::1": true, "fe00::1": false, "2001:db8::1": false, "fe80::1": false,
	} {
		if got := isPrivate(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: private %v, want %v", address, got, want)
		}
	}
}
