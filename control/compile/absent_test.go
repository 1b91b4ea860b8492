package compile

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"sluice/control/host"
	"sluice/crypto/path"
	"sluice/tc"
)

const losing = `
interfaces:
  - {name: eth0, role: uplink, addresses: [198.18.0.2/30]}
  - {name: eth1, role: uplink, addresses: [198.18.0.6/30]}
  - {name: eth1.5, parent: eth1, vlan: 5, role: downstream, addresses: [10.0.1.1/24]}
  - {name: lan0, role: downstream, addresses: [10.0.2.1/24], snat: auto, bandwidth: {egress: 1Gbps}, ingress: {default: drop}}
  - {name: bond0, members: [m0, m1], lacp: slow, role: downstream, addresses: [10.0.3.1/24]}
routes:
  - {prefix: 0.0.0.0/0, via: [198.18.0.1, 198.18.0.5]}
  - {prefix: 10.90.0.0/16, via: [10.0.2.9]}
`

// touches are of the interfaces that each subsystem touches.
func touches(d *Desired) string {
	var out []string
	add := func(what string, list ...string) {
		slices.Sort(list)
		out = append(out, what+" "+strings.Join(slices.Compact(list), " "))
	}
	var links, addresses, on, xdp, keys []string
	for _, l := range d.Host.Links {
		links = append(links, l.Name)
	}
	for _, a := range d.Host.Addresses {
		addresses = append(addresses, a.Link)
	}
	for _, q := range d.Host.Qdiscs {
		links = append(links, q.Link)
	}
	for _, v := range d.Host.Devices {
		links = append(links, v.Name)
	}
	for _, s := range d.Host.Sysctls {
		if parts := strings.Split(s.Key, "."); len(parts) > 4 || parts[2] == "conf" && parts[3] != "all" {
			keys = append(keys, strings.Join(parts[3:len(parts)-1], "."))
		}
	}
	for _, i := range d.TC.Interfaces {
		on = append(on, i.Name)
	}
	for _, p := range d.TC.Generation.Paced {
		on = append(on, p.Interface)
	}
	for _, i := range d.XDP.Interfaces {
		xdp = append(xdp, i.Name)
	}
	add("links", links...)
	add("addresses", addresses...)
	add("sysctls", keys...)
	add("tc", on...)
	add("xdp", xdp...)
	return strings.Join(out, "; ")
}

func TestAnAcceptedFileDoesWithoutInterfacesThatAreNotThere(t *testing.T) {
	cfg := parse(t, losing)
	left := facts("eth0")
	if got := refusal(t, cfg, left).Error(); strings.Count(got, "\n") != 2 {
		t.Errorf("a new file is refused for %s", got)
	}
	d := compile(t, cfg, Runtime{Accepted: true}, left)
	if got, want := touches(d), "links eth0; addresses eth0; sysctls eth0; tc eth0; xdp eth0"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	same(t, d.Missing, "eth1: there is no interface eth1", "lan0: there is no interface lan0", "bond0: none of the members is here",
		"eth1.5: eth1 is missing")
	hops := func() (text string) {
		for _, r := range d.Host.Routes {
			text += fmt.Sprint(r.Prefix, " ", r.Via, "; ")
		}
		return text
	}
	if got, want := hops(), "0.0.0.0/0 [198.18.0.1]; "; got != want {
		t.Errorf("routes %s, want %s", got, want)
	}
	d = compile(t, cfg, Runtime{Accepted: true}, facts("eth0", "eth1", "lan0", "m0"))
	const all = "bond0 eth0 eth1 eth1.5 lan0"
	if got, want := touches(d), fmt.Sprintf("links %s; addresses %s; sysctls %s; tc %s; xdp eth0 eth1", all, all, all, all); got != want || len(d.Missing) > 0 {
		t.Errorf("got  %s, without %q\nwant %s", got, d.Missing, want)
	}
	if got, want := hops(), "0.0.0.0/0 [198.18.0.1 198.18.0.5]; 10.90.0.0/16 [10.0.2.9]; "; got != want {
		t.Errorf("routes %s, want %s", got, want)
	}
}

// A bond that stands keeps its addresses until its members are back.
func TestABondOutlivesItsMembers(t *testing.T) {
	there := facts("eth0", "eth1", "lan0")
	there.Host.Links = append(slices.Clone(there.Host.Links), host.LinkFact{Name: "bond0", Kind: "bond"})
	if d := compile(t, parse(t, losing), Runtime{Accepted: true}, there); len(d.Missing) > 0 || !strings.Contains(touches(d), "tc bond0") {
		t.Errorf("without %q: %s", d.Missing, touches(d))
	}
}

func TestSomebodyElsesLinkIsNotTakenForATunnels(t *testing.T) {
	cfg := parse(t, site+wg("t", 1, "", `{name: p, public_keys: [`+keyA+`], prefixes: [10.20.0.0/16]}`))
	for alias, ours := range map[string]bool{path.Alias("t"): true, "": false} {
		f := eth0
		f.Host.Links = append(slices.Clone(f.Host.Links), host.LinkFact{Name: "t", Kind: "wireguard", Alias: alias})
		d := compile(t, cfg, Runtime{Accepted: true}, f)
		attached := slices.ContainsFunc(d.TC.Interfaces, func(i tc.Interface) bool { return i.Name == "t" })
		set := slices.ContainsFunc(d.Host.Links, func(l host.Link) bool { return l.Name == "t" })
		if attached != ours || set != ours || len(d.WireGuard.Tunnels) != 1 {
			t.Errorf("alias %q: tcx %v, link %v", alias, attached, set)
		}
	}
}

func TestNothingIsAnnouncedByTheAddressOfAnInterfaceThatIsNotThere(t *testing.T) {
	cfg := parse(t, `
interfaces:
  - {name: eth0, role: uplink, addresses: [198.18.0.2/30, "2001:db8:1::2/64"]}
  - {name: eth1, role: uplink, addresses: [198.18.0.6/30, "2001:db8:2::2/64"]}
bgp:
  asn: 65010
  router_id: 198.18.0.2
  neighbors: [{name: a, address: 198.18.0.1, asn: 65000, families: [ipv4-unicast, ipv6-unicast]}]
`)
	for left, want := range map[string]string{"eth0": "2001:db8:1::2", "eth1": "2001:db8:2::2", "lo": "invalid IP"} {
		n := compile(t, cfg, Runtime{Accepted: true}, facts(left)).BGP.Neighbors[0]
		if n.NextHop6.String() != want || n.IPv6 != n.NextHop6.IsValid() {
			t.Errorf("with %s left: %v (%v), want %s", left, n.NextHop6, n.IPv6, want)
		}
	}
}
