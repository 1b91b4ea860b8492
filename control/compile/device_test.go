package compile

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"sluice/control/host"
	"sluice/xdp"
)

const lanOfVLANs = `
interfaces:
  - {name: eth0, role: uplink, mtu: 9000, addresses: [198.18.0.2/30]}
  - {name: eth0.100, parent: eth0, vlan: 100, role: downstream, addresses: [10.0.1.1/24]}
  - {name: eth0.7, parent: eth0, vlan: 7, role: downstream, mtu: 1500, addresses: [10.0.2.1/24]}
  - {name: trunk.5, parent: trunk, vlan: 5, role: downstream, addresses: [10.0.3.1/24]}
  - {name: bond0, members: [m1, m0, m2], lacp: slow, role: downstream, addresses: [10.0.4.1/24]}
`

func TestDevicesAreToBeMadeBeforeTheyAreThere(t *testing.T) {
	d := compile(t, parse(t, lanOfVLANs), Runtime{}, facts("eth0", "trunk", "m0", "m1 fe80::5/64"))
	var got []string
	for _, device := range d.Host.Devices {
		got = append(got, device.String())
	}
	if want := "bond bond0 of m0 m1 lacp slow|vlan eth0.100 link eth0 id 100|vlan eth0.7 link eth0 id 7|vlan trunk.5 link trunk id 5"; strings.Join(got, "|") != want {
		t.Errorf("devices are %q, want %q", got, want)
	}
	for _, want := range []host.Link{{Name: "eth0.100", Up: true, MTU: 9000}, {Name: "eth0.7", Up: true, MTU: 1500}, {Name: "trunk", Up: true}, {Name: "bond0", Up: true}} {
		if !slices.Contains(d.Host.Links, want) {
			t.Errorf("%+v is not among the links %+v", want, d.Host.Links)
		}
	}
	if !slices.Equal(d.Warnings, []string{"bond bond0: m2 is not there; it joins when it appears"}) {
		t.Errorf("warnings are %q", d.Warnings)
	}
	if want := []xdp.VLANChild{{Ifindex: 1, VLAN: 7}, {Ifindex: 1, VLAN: 100}}; !slices.Equal(d.XDP.Generation.Children, want) {
		t.Errorf("XDP passes %v, want %v", d.XDP.Generation.Children, want)
	}
	if !slices.Equal(LooksAtTags(parse(t, lanOfVLANs)), []string{"eth0"}) || !slices.Equal(d.Host.Tags, []host.Tags{{Link: "eth0", InFrame: true}}) {
		t.Errorf("tags are %v", d.Host.Tags)
	}
}

func TestMachinesThatCannotHaveTheDevices(t *testing.T) {
	good := facts("eth0", "trunk", "m0", "m1", "m2")
	for name, c := range map[string]struct {
		facts  Facts
		change func(*Facts)
		says   string
	}{
		"no parent":          {facts("eth0", "m0"), nil, "edge.yaml:6:5: interfaces[3].parent: there is no interface trunk; interfaces here are eth0, m0"},
		"no member":          {facts("eth0", "trunk"), nil, "edge.yaml:7:5: interfaces[4].members: none of the members is here; interfaces here are eth0, trunk"},
		"a member's address": {facts("eth0", "trunk", "m0 198.18.5.1/24 fe80::1/64"), nil, "edge.yaml:7:5: interfaces[4].members[1]: m0 has an address of its own, 198.18.5.1/24, which would be out of reach; remove it from m0, and write it at the bond"},
		"a link of that name": {good, func(f *Facts) {
			f.Host.Links = append(slices.Clone(f.Host.Links), host.LinkFact{Name: "bond0", Kind: "bridge"})
		}, "edge.yaml:7:5: interfaces[4].name: there is a bridge of the name bond0 already; choose another name, or remove it"},
		"no module": {good, func(f *Facts) { f.Host.NoDevices = map[string]string{"bond": "this kernel has no module bonding"} },
			"edge.yaml:7:5: interfaces[4].name: this kernel has no module bonding, and cannot make the bond bond0; install the module, or another kernel"},
		"hidden tags": {good, func(f *Facts) {
			f.Host.Receivers = map[string][]host.Receiver{"eth0": {{Link: "eth0", HidesTags: "its driver does"}}}
		}, "edge.yaml:4:5: interfaces[1].parent: XDP cannot tell the frames of eth0.100 from those of eth0: its driver does; write xdp: {mode: none} at eth0, so that tcx judges both"},
	} {
		if c.change != nil {
			c.change(&c.facts)
		}
		if got := refusal(t, parse(t, lanOfVLANs), c.facts).Error(); !strings.HasPrefix(got, c.says) {
			t.Errorf("%s: got %s\nwant %s", name, got, c.says)
		}
	}
	large := parse(t, strings.Replace(lanOfVLANs, "vlan: 5,", "vlan: 5, mtu: 9000,", 1))
	if got := refusal(t, large, good).Error(); got != "edge.yaml:6:5: interfaces[3].mtu: MTU 9000 is larger than that of trunk, 1500; write 1500 or less, or give trunk a larger mtu" {
		t.Errorf("got %s", got)
	}
	small := parse(t, strings.Replace(lanOfVLANs, "role: uplink, mtu: 9000", "role: uplink", 1)+"  - {name: eth0.8, parent: eth0, vlan: 8, role: downstream, mtu: 1501}\n")
	if got := refusal(t, small, good).Error(); got != "edge.yaml:8:5: interfaces[5].mtu: MTU 1501 is larger than that of eth0, 1500; write 1500 or less, or give eth0 a larger mtu" {
		t.Errorf("got %s", got)
	}
}

func TestABondThatTheOperatorNeedsStaysWithItsChildren(t *testing.T) {
	cfg := parse(t, `
interfaces:
  - {name: bond0, members: [m0], lacp: fast}
  - {name: bond0.10, parent: bond0, vlan: 10, role: uplink, addresses: [198.18.0.2/30]}
  - {name: bond0.20, parent: bond0, vlan: 20, role: downstream, addresses: [10.0.2.1/24]}
`)
	d := compile(t, cfg, Runtime{}, facts("m0"))
	stays := map[string]bool{}
	for _, device := range d.Remains().Host.Devices {
		stays[device.Name] = true
	}
	if len(stays) != 2 || !stays["bond0"] || !stays["bond0.10"] {
		t.Errorf("what stays is %v", stays)
	}
	if len(d.XDP.Interfaces) != 0 || !d.TC.Interfaces[0].Judge {
		t.Errorf("XDP is on %v, and tcx has %+v", d.XDP.Interfaces, d.TC.Interfaces)
	}
}

func TestLANsHavePoliciesBehindThoseOfWorkloads(t *testing.T) {
	cfg := parse(t, `
interfaces:
  - {name: eth0, role: uplink, addresses: [198.18.0.2/30]}
  - name: lan1
    role: downstream
    egress: {default: drop, rules: [{name: web, protocol: tcp, ports: [443], action: limit, limit: {rate: 1Mbps}}]}
  - {name: lan2, role: downstream}
  - {name: lan0, role: downstream, ingress: {rules: [{name: "no", from: [web], action: drop}]}}
workloads: [{name: web, interface: web, addresses: [10.0.1.1]}]
`)
	d := compile(t, cfg, Runtime{}, facts("eth0", "lan0", "lan1", "lan2", "web"))
	var names []string
	for _, p := range d.TC.Generation.Policies()[4:] {
		names = append(names, p.Name+" "+p.Default.String())
		if p.DefaultID == 0 {
			t.Errorf("the default of %s is not counted", p.Name)
		}
	}
	want := "workload/web/ingress accept|workload/web/egress accept|interface/lan0/ingress accept|interface/lan0/egress accept|interface/lan1/ingress accept|interface/lan1/egress drop"
	if strings.Join(names, "|") != want {
		t.Errorf("policies are %q", names)
	}
	for name, line := range map[string]int{"interface/lan0/ingress/no": 8, "interface/lan1/egress/web": 6} {
		if d.RuleIDs[name] == 0 {
			t.Errorf("%s has no id", name)
		}
		if at := RulePlaces(cfg)[name]; at.Line != line {
			t.Errorf("%s stands in line %d", name, at.Line)
		}
	}
	// Another LAN's policy makes another generation, and its lack as well.
	before := d.TC.Generation.Digest()
	cfg.Interfaces[3].Ingress.Default = "drop"
	if compile(t, cfg, Runtime{}, facts("eth0", "lan0", "lan1", "lan2", "web")).TC.Generation.Digest() == before {
		t.Error("the digest does not know the policies of LANs")
	}
	if len(d.TC.Generation.Strict) != 0 || !slices.Contains(d.TC.Generation.Self, netip.MustParseAddr("198.18.0.2")) {
		t.Errorf("the generation is %+v", d.TC.Generation)
	}
}
