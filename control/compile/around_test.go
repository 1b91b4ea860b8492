package compile

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// whole is a tunnel that carries 0.0.0.0/0.
func whole(name string, port int, more, peer string) string {
	return wg(name, port, more, `{name: p, public_keys: [`+keyA+`], prefixes: [0.0.0.0/0]`+peer+`}`)
}

const (
	marked = "18810 mark 0x1000000/0x1000000 table 254"
	// unchecked is noted where a blackhole stands for a tunnel's prefix.
	unchecked = "uplinks do not check the sources of packets (rp_filter 0): a strict tunnel's blackhole would stop peers that roam; the kernel takes the larger of this and of net.ipv4.conf.all.rp_filter, which has to be 0, too"
	marked6   = "18810 inet6 mark 0x1000000/0x1000000 table 254"
)

func TestADefaultRouteIntoATunnelHasATableOfItsOwn(t *testing.T) {
	const first, second = `, endpoints: ["198.51.100.7:1"], metric: 100`, `, endpoints: ["198.51.100.8:1"], metric: 200`
	d := compile(t, parse(t, site+whole("t", 1, ", strict: true", first)+whole("u", 2, "", second)+wg("v", 3, "", `{name: p, public_keys: [`+keyA+`], prefixes: [10.20.0.0/16]}`)), Runtime{}, eth0)
	same(t, ruleLines(d), marked, "18811 table 254 shortest 1", "18812 mark 0x0/0x1000000 table 187")
	var p printer
	p.path(d.Path)
	p.wireguard(d.WireGuard)
	var got []string
	for line := range strings.Lines(p.out.String()) {
		got = append(got, strings.TrimSpace(line))
	}
	same(t, begin(got, "route", "blackhole"), "blackhole 0.0.0.0/0 table 187", "route 0.0.0.0/0 metric 100 table 187", "route 0.0.0.0/0 metric 200 table 187", "route 10.20.0.0/16")
	same(t, d.Notes, unchecked, "tunnel t: 0.0.0.0/0 leads into it past any default route of the main table; longer routes there come first",
		"tunnel u: 0.0.0.0/0 leads into it past any default route of the main table; longer routes there come first")
	for _, line := range []string{"net.ipv4.conf.eth0.rp_filter = 2"} {
		same(t, hostLines(t, "sysctl", site+whole("t", 1, "", first), eth0), line)
	}
	same(t, hostLines(t, "sysctl", site+whole("t", 1, ", strict: true", first), eth0), "net.ipv4.conf.eth0.rp_filter = 0")
	same(t, hostLines(t, "sysctl", site+wg("t", 1, ", strict: true", `{name: p, public_keys: [`+keyA+`], prefixes: [10.20.0.0/16, "::/0"]}`), eth0))
	same(t, hostLines(t, "sysctl", "sysctls: [{key: net.ipv4.conf.eth0.rp_filter, value: 0}]\n"+site+whole("t", 1, "", first), eth0), "net.ipv4.conf.eth0.rp_filter = 0")
}

func TestOnlyPrefixesAroundAnEndpointAreSetAside(t *testing.T) {
	peer := func(prefixes, endpoint string) string {
		return `{name: p, public_keys: [` + keyA + `], prefixes: [` + prefixes + `], endpoints: ["` + endpoint + `"]}`
	}
	in := func(endpoint string) Runtime { return running(PeerNow{Endpoint: netip.MustParseAddrPort(endpoint)}) }
	for _, c := range []struct {
		name, tunnels string
		rt            Runtime
		routes, rules string
	}{
		{"a prefix around the endpoint", wg("t", 1, "", peer("198.51.100.0/24, 10.20.0.0/16", "198.51.100.7:1")), Runtime{},
			"route 10.20.0.0/16|route 198.51.100.0/24 table 187", marked + "|18811 table 254 shortest 25|18812 mark 0x0/0x1000000 table 187"},
		{"the endpoint itself", wg("t", 1, "", peer("198.51.100.7/32", "198.51.100.7:1")), Runtime{},
			"route 198.51.100.7/32 table 187", marked + "|18811 table 254 shortest 33|18812 mark 0x0/0x1000000 table 187"},
		{"the shortest of several", wg("t", 1, "", peer("198.51.100.0/24, 198.51.0.0/16", "198.51.100.7:1")), Runtime{},
			"route 198.51.0.0/16 table 187|route 198.51.100.0/24 table 187", marked + "|18811 table 254 shortest 17|18812 mark 0x0/0x1000000 table 187"},
		{"both halves, of which one holds it", wg("t", 1, "", peer("0.0.0.0/1, 128.0.0.0/1", "198.51.100.7:1")), Runtime{},
			"route 0.0.0.0/1|route 128.0.0.0/1 table 187", marked + "|18811 table 254 shortest 2|18812 mark 0x0/0x1000000 table 187"},
		{"what a name stands for", wg("t", 1, "", peer("10.0.0.0/8", "fra1.example:1")), in("10.9.9.9:1"),
			"route 10.0.0.0/8 table 187", marked + "|18811 table 254 shortest 9|18812 mark 0x0/0x1000000 table 187"},
		{"a name that stands for nothing", wg("t", 1, "", peer("10.0.0.0/8", "fra1.example:1")), Runtime{}, "route 10.0.0.0/8", ""},
		{"a default route of the family that no endpoint is of", wg("t", 1, "", peer(`10.0.0.0/8, "::/0"`, "198.51.100.7:1")), Runtime{},
			"route 10.0.0.0/8|route ::/0 table 187", marked6 + "|18811 inet6 table 254 shortest 1|18812 inet6 mark 0x0/0x1000000 table 187"},
		{"for all tunnels that carry it", wg("t", 1, "", `{name: p, public_keys: [`+keyA+`], prefixes: [198.51.100.0/24], endpoints: ["198.51.100.7:1"], metric: 1}`) +
			wg("u", 2, "", `{name: p, public_keys: [`+keyA+`], prefixes: [198.51.100.0/24], endpoints: ["203.0.113.7:1"], metric: 2}`), Runtime{},
			"route 198.51.100.0/24 metric 1 table 187|route 198.51.100.0/24 metric 2 table 187", marked + "|18811 table 254 shortest 25|18812 mark 0x0/0x1000000 table 187"},
		{"without routes, for the blackhole", wg("t", 1, ", strict: true", `{name: p, public_keys: [`+keyA+`], prefixes: [198.51.100.0/24], endpoints: ["198.51.100.7:1"], routes: false}`), Runtime{},
			"blackhole 198.51.100.0/24 table 187", marked + "|18810 to 198.51.100.7/32 table 254|18811 table 254 shortest 25|18812 mark 0x0/0x1000000 table 187"},
		{"of IKE, whose own packets have no mark", esp("t", "ike", "", `{name: p, preshared_key_file: /p, prefixes: [0.0.0.0/0, "::/0"], endpoints: [198.51.100.7]}`) +
			esp("u", "static", "", `{name: p, master_key_file: /p, endpoints: [198.51.100.8], prefixes: [10.1.0.0/16], routes: false}`) +
			esp("v", "ike", "", `{name: p, id: far, preshared_key_file: /p, endpoints: [198.51.100.7], prefixes: [10.2.0.0/16], routes: false}, {name: q, preshared_key_file: /p, endpoints: [198.51.100.6], prefixes: [10.3.0.0/16], routes: false}`), Runtime{},
			"route 0.0.0.0/0 table 187|route ::/0 table 187",
			marked + "|18810 to 198.51.100.6/32 table 254|18810 to 198.51.100.7/32 table 254|18810 to 198.51.100.8/32 table 254|18811 table 254 shortest 1|18812 mark 0x0/0x1000000 table 187|" +
				marked6 + "|18811 inet6 table 254 shortest 1|18812 inet6 mark 0x0/0x1000000 table 187"},
		{"of static keys", esp("t", "static", "", `{name: p, master_key_file: /p, prefixes: [0.0.0.0/0], endpoints: [198.51.100.7]}`), Runtime{},
			"route 0.0.0.0/0 table 187", marked + "|18810 to 198.51.100.7/32 table 254|18811 table 254 shortest 1|18812 mark 0x0/0x1000000 table 187"},
		{"of a strict tunnel", wg("t", 1, ", strict: true", peer("0.0.0.0/0", "198.51.100.7:1")), Runtime{},
			"blackhole 0.0.0.0/0 table 187|route 0.0.0.0/0 table 187", marked + "|18811 table 254 shortest 1|18812 mark 0x0/0x1000000 table 187"},
		{"of a strict tunnel whose route is withdrawn", wg("t", 1, ", strict: true", peer("0.0.0.0/0", "198.51.100.7:1")) + wg("u", 2, "", peer("10.7.0.0/16", "198.51.100.8:1")), running(PeerNow{Down: true}),
			"blackhole 0.0.0.0/0 table 187|route 10.7.0.0/16", marked + "|18810 to 198.51.100.7/32 table 254|18810 to 198.51.100.8/32 table 254|18811 table 254 shortest 1|18812 mark 0x0/0x1000000 table 187"},
		{"of another that leads past the blackhole", wg("t", 1, ", strict: true", peer("0.0.0.0/0", "198.51.100.7:1")) + wg("u", 2, "", peer("203.0.113.0/24", "203.0.113.8:1")), running(PeerNow{Down: true}),
			"blackhole 0.0.0.0/0 table 187|route 203.0.113.0/24 table 187", marked + "|18810 to 198.51.100.7/32 table 254|18811 table 254 shortest 1|18812 mark 0x0/0x1000000 table 187"},
		{"of a tunnel whose route is withdrawn, and nothing else is there", wg("t", 1, "", peer("0.0.0.0/0", "198.51.100.7:1")), running(PeerNow{Down: true}),
			"", marked + "|18811 table 254 shortest 1|18812 mark 0x0/0x1000000 table 187"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := compile(t, parse(t, site+c.tunnels), c.rt, eth0)
			var p printer
			p.path(d.Path)
			p.wireguard(d.WireGuard)
			p.ipsec(d.IPsec)
			var got []string
			for line := range strings.Lines(p.out.String()) {
				got = append(got, strings.TrimSpace(line))
			}
			if routes := strings.Join(begin(got, "route", "blackhole"), "|"); routes != c.routes {
				t.Errorf("routes %s\nwant %s", routes, c.routes)
			}
			if rules := strings.Join(ruleLines(d), "|"); !sameLines(rules, c.rules) {
				t.Errorf("rules %s\nwant %s", rules, c.rules)
			}
		})
	}
}

// sameLines compares without regard to order.
func sameLines(a, b string) bool {
	count := map[string]int{}
	for _, l := range strings.Split(a, "|") {
		count[l]++
	}
	for _, l := range strings.Split(b, "|") {
		count[l]--
	}
	for _, n := range count {
		if n != 0 {
			return false
		}
	}
	return true
}

func TestWhatADefaultRouteTakesAlongIsToldOf(t *testing.T) {
	yaml := `
interfaces: [{name: eth0, role: uplink, addresses: [198.18.0.2/24]}, {name: eth1, role: downstream, addresses: [10.0.2.1/24], snat: auto}]
routes: [{prefix: 0.0.0.0/0, via: [198.18.0.1]}, {prefix: 203.0.113.0/24, via: [198.18.0.1]}]
management:
  accept:
    - {name: near, protocol: tcp, ports: [22], from: [198.18.0.0/25, 203.0.113.5, 10.0.2.0/24, "2001:db8::/32"]}
    - {name: far, protocol: tcp, ports: [22], from: [198.18.0.0/25, 192.0.2.0/24, 192.0.3.0/24]}
    - {name: all, protocol: icmp}
bgp:
  asn: 65010
  router_id: 198.18.0.2
  neighbors: [{name: near, address: 198.18.0.1, asn: 65000}, {name: far, address: 192.0.2.9, asn: 65000}]
tunnels:` + whole("t", 1, "", `, endpoints: ["198.51.100.7:1"]`) + wg("u", 2, "", `{name: q, public_keys: [`+keyA+`], endpoints: ["ams1.example:1"]}, {name: r, public_keys: [`+keyC+`], endpoints: ["198.51.100.7:1"]}`) +
		wg("v", 3, "", `{name: p, public_keys: [`+keyA+`], prefixes: ["::/0"], routes: false}`)
	d := compile(t, parse(t, yaml), Runtime{}, facts("eth0", "eth1"))
	const goes, keeps = " goes into the tunnel with the rest of 0.0.0.0/0", "; a route of their own keeps them on the uplink"
	same(t, d.Warnings,
		"tunnel t: what the box sends to management source 192.0.2.0/24"+goes+keeps,
		"tunnel t: what the box sends to whom management all lets in"+goes+keeps,
		"tunnel t: what the box sends to BGP neighbor far"+goes+keeps,
		"tunnel t: the names of peer q of tunnel u are asked of DNS servers that may be behind 0.0.0.0/0: give these servers a route of their own")
	same(t, d.Notes,
		"tunnel t: 0.0.0.0/0 leads into it past any default route of the main table; longer routes there come first",
		"tunnel t: sources are translated where they leave by an uplink, not in the tunnel: the peer needs ways back to them")
}

// TestTheMatrixIsAskedBeforeTunnelsTakeOver: what enters from outside is done with before the rules of tunnels.
func TestTheMatrixIsAskedBeforeTunnelsTakeOver(t *testing.T) {
	d := compile(t, parse(t, site+whole("t", 1, "", "")), Runtime{}, eth0)
	last := 0
	for _, r := range d.Host.Rules {
		if r.Priority < last {
			t.Errorf("rule %s stands behind one of priority %d", r, last)
		}
		last = r.Priority
		if in := r.InLink != ""; in != (r.Priority <= ruleProhibit) {
			t.Errorf("rule %s", r)
		}
	}
	if !(ruleProhibit < ruleProbe && ruleProbe < ruleUnderlay && ruleUnderlay < ruleLonger && ruleLonger < ruleTunnels) || last != ruleTunnels {
		t.Error("the priorities are out of order")
	}
}

func TestDefaultRoutesInHalvesAndOfStrictTunnelsAreToldOf(t *testing.T) {
	const rest = `
node: {dns: [192.0.2.53, 10.7.0.53]}
interfaces: [{name: eth0, role: uplink, addresses: [198.18.0.2/24]}]
management: {accept: [{name: far, protocol: tcp, ports: [22], from: [192.0.2.0/24]}]}
tunnels:`
	peer := func(prefixes, endpoint string) string {
		return `{name: p, public_keys: [` + keyA + `], prefixes: [` + prefixes + `], endpoints: ["` + endpoint + `"]}`
	}
	warnings := func(yaml string, rt Runtime) []string { return compile(t, parse(t, yaml), rt, eth0).Warnings }
	const keeps, strict = "; a route of their own keeps them on the uplink", "; strict lets nothing past it, whatever route they have"
	same(t, warnings(rest+wg("t", 1, "", peer("0.0.0.0/1, 128.0.0.0/1", "fra1.example:1")), Runtime{}),
		"tunnel t: what the box sends to DNS server 10.7.0.53 goes into the tunnel with the rest of 0.0.0.0/1"+keeps,
		"tunnel t: what the box sends to management source 192.0.2.0/24 goes into the tunnel with the rest of 128.0.0.0/1"+keeps,
		"tunnel t: what the box sends to DNS server 192.0.2.53 goes into the tunnel with the rest of 128.0.0.0/1"+keeps)
	const covers = "tunnel t: strict prefix 0.0.0.0/0 covers management source 192.0.2.0/24: what the box sends there by an uplink is dropped"
	both := []string{covers, "tunnel t: what the box sends to DNS server 192.0.2.53 goes into the tunnel with the rest of 0.0.0.0/0" + strict,
		"tunnel t: what the box sends to DNS server 10.7.0.53 goes into the tunnel with the rest of 0.0.0.0/0" + strict}
	closed := rest + wg("t", 1, ", strict: true", peer("0.0.0.0/0", "fra1.example:1"))
	same(t, warnings(closed, Runtime{Accepted: true}), append(both, "tunnels[0].peers[0].endpoints: DNS server 192.0.2.53 is in strict prefix 0.0.0.0/0, and the endpoints are names: nobody can be asked for them")...)
	same(t, warnings(rest+wg("t", 1, ", strict: true", peer("0.0.0.0/0", `198.51.100.7:1", "fra1.example:1`)), Runtime{}), both...)
	same(t, warnings(closed+wg("u", 2, "", peer("10.7.0.0/16", "198.51.100.7:1")), Runtime{})[:3], both...) // one server is behind a peer with an address
	_, err := Compile(parse(t, closed), Runtime{}, eth0)
	if err == nil || !strings.Contains(err.Error(), "tunnels[0].peers[0].endpoints: DNS server 192.0.2.53 is in strict prefix 0.0.0.0/0") {
		t.Errorf("a tunnel that waits for itself: %v", err)
	}
	same(t, warnings(site+wg("t", 1, ", strict: true", peer("0.0.0.0/0", "fra1.example:1")), Runtime{}),
		"tunnel t: the names of peer p of tunnel t are asked of DNS servers that may be behind 0.0.0.0/0: strict lets nothing past it: write an address among the endpoints")
	same(t, warnings(site+wg("t", 1, "", peer("198.51.100.0/24, 198.51.0.0/16", "198.51.100.7:1")), Runtime{}),
		"tunnels: prefix 198.51.100.0/24, which holds an endpoint, stands beside the shorter 198.51.0.0/16: routes of the main table that are longer than /16 come before both; write prefixes of one length")
}

func TestTunnelsThatCarryTheSameDoNotCheckSourcesStrictly(t *testing.T) {
	peer := func(key, more string) string {
		return `{name: p, public_keys: [` + key + `], endpoints: ["198.51.100.7:1"], prefixes: [` + more + `}`
	}
	both := []string{"net.ipv4.conf.t.rp_filter = 2", "net.ipv4.conf.u.rp_filter = 2"}
	const probe, addresses = ", health: {probe: 10.20.0.9}", ", addresses: [10.200.0.1/31]"
	for _, c := range []struct {
		name, yaml string
		want       []string
		warnings   int
	}{
		{"a prefix", wg("t", 1, "", peer(keyA, "10.20.0.0/16], metric: 1")) + wg("u", 2, "", peer(keyB, "10.20.0.0/16, 10.30.0.0/16], metric: 2")) +
			wg("v", 3, "", peer(keyC, "10.40.0.0/16]")), both, 0},
		{"nothing", wg("t", 1, "", peer(keyA, "10.20.0.0/16]")) + wg("u", 2, "", peer(keyB, "10.30.0.0/16]")), nil, 0},
		{"IPv6, which has no such check", wg("t", 1, "", peer(keyA, `"fd00:20::/48"], metric: 1`)) + wg("u", 2, "", peer(keyB, `"fd00:20::/48"], metric: 2`)), nil, 0},
		{"one address that is probed", wg("t", 1, probe+addresses, peer(keyA, "10.20.0.0/16], metric: 1")) +
			wg("u", 2, probe+", addresses: [10.200.0.3/31]", peer(keyB, "10.20.0.0/16], metric: 2")), both, 0},
		{"and no address of its own", wg("t", 1, probe+addresses, peer(keyA, "10.20.0.0/16], metric: 1")) +
			wg("u", 2, probe, peer(keyB, "10.20.0.0/16], metric: 2")), both, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, line := range hostLines(t, "sysctl", site+c.yaml, eth0) {
				if strings.Contains(line, "rp_filter") {
					got = append(got, line)
				}
			}
			same(t, got, c.want...)
			warnings := compile(t, parse(t, site+c.yaml), Runtime{}, eth0).Warnings
			if len(warnings) != c.warnings || c.warnings > 0 && !strings.HasPrefix(warnings[0], "tunnel u: 10.20.0.9 is probed through tunnel t, too") {
				t.Errorf("warnings %q", warnings)
			}
		})
	}
}

// A rule that held another tunnel's probe would lead it into that tunnel.
func TestRulesForProbesAreFewAndHoldNoOtherTunnels(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var all, some []netip.Addr
		for range 1 + r.IntN(30) {
			// Near each other, or anywhere.
			a := netip.AddrFrom4([4]byte{10, 20, byte(r.IntN(2)), byte(r.IntN(32))})
			if r.IntN(8) == 0 {
				a = netip.AddrFrom4([4]byte{byte(r.IntN(256)), byte(r.IntN(256)), 0, 1})
			}
			all = append(all, a)
		}
		slices.SortFunc(all, netip.Addr.Compare)
		all = slices.Compact(all)
		for _, a := range all {
			if r.IntN(3) > 0 {
				some = append(some, a)
			}
		}
		if len(some) == 0 {
			continue
		}
		rules := aroundAll(some, all)
		for _, a := range all {
			held := 0
			for _, p := range rules {
				if p == (netip.Prefix{}) || p.Contains(a) {
					held++
				}
			}
			want := 0
			if slices.Contains(some, a) {
				want = 1
			}
			if held != want {
				t.Fatalf("%s of %v is in %d of %v, ours are %v", a, all, held, rules, some)
			}
		}
		if len(some) == len(all) && len(rules) != 1 {
			t.Fatalf("%v where nobody else probes", rules)
		}
	}
}

func TestAThousandProbesOfOneTunnelTakeOneRule(t *testing.T) {
	var peers []string
	for i := range 1000 {
		peers = append(peers, fmt.Sprintf("{name: p%d, public_keys: [%s], prefixes: [10.%d.%d.0/24], probe: 10.%d.%d.1}", i, base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint64(make([]byte, 24), uint64(i+1))), 64+i>>8, i&255, 64+i>>8, i&255))
	}
	one := wg("t", 1, ", addresses: [10.200.0.1/24], health: {}", strings.Join(peers, ", "))
	same(t, ruleLines(compile(t, parse(t, site+one), Runtime{}, eth0)), "18809 from 10.200.0.1/32 to 10.64.0.0/14 table 188", "18809 oif t table 188")
	other := wg("u", 2, ", addresses: [10.201.0.1/24], health: {}", `{name: q, public_keys: [`+keyA+`], prefixes: [10.67.255.0/24], probe: 10.67.255.1}`)
	same(t, ruleLines(compile(t, parse(t, site+one+other), Runtime{}, eth0)),
		"18809 from 10.200.0.1/32 to 10.64.0.0/15 table 188", "18809 from 10.200.0.1/32 to 10.66.0.0/16 table 188",
		"18809 from 10.200.0.1/32 to 10.67.0.0/17 table 188", "18809 from 10.200.0.1/32 to 10.67.128.0/18 table 188", "18809 from 10.200.0.1/32 to 10.67.192.0/19 table 188",
		"18809 from 10.200.0.1/32 to 10.67.224.0/21 table 188",
		"18809 from 10.201.0.1/32 to 10.67.255.1/32 table 188", "18809 oif t table 188", "18809 oif u table 188")
}
