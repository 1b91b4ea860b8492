package host

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// needs are those of a site with a tunnel of each kind.
func needs() *TunnelNeeds {
	local, peer := netip.MustParseAddr("198.18.0.2"), netip.MustParseAddr("198.51.100.7")
	return &TunnelNeeds{
		Links: []string{"fra1"}, Uplinks: []string{"eth0"}, Inside: []netip.Prefix{pfx("10.20.0.0/16")},
		Ports: []TunnelPort{
			{Tunnel: "fra1", UDP: 51820, Local: local, Peer: peer},
			{Tunnel: "six1", UDP: 4500, Local: netip.MustParseAddr("2001:db8::2")},
			{Tunnel: "ams1", Local: local, Peer: peer},
		},
	}
}

// aboutTunnels runs the part of the doctor that is about tunnels.
func aboutTunnels(t *testing.T, n *TunnelNeeds) map[string]Finding {
	t.Helper()
	out := map[string]Finding{}
	for _, f := range checkTunnels(t.Context(), *n) {
		if fine := f.Status == StatusOK; f.Detail == "" || (f.Cost == "") != fine || (f.Fix == "") != fine {
			t.Errorf("a finding says too little or too much: %+v", f)
		}
		if _, twice := out[f.Name]; twice {
			t.Errorf("two findings are called %s", f.Name)
		}
		out[f.Name] = f
	}
	return out
}

func TestTheDoctorIsSilentAboutTunnelsWhereThereAreNone(t *testing.T) {
	inNamespace(t)
	with := findings(t, DoctorOptions{Tunnels: needs()})
	for name := range findings(t, DoctorOptions{}) {
		delete(with, name)
		for _, word := range []string{"tunnel", "wireguard", "rp_filter", "clock", "charon", "esp"} {
			if strings.Contains(name, word) {
				t.Errorf("%s is told of without tunnels", name)
			}
		}
	}
	for _, name := range []string{"rp_filter", "clock", "tunnel-firewall", "tunnel-port/fra1/udp-51820", "tunnel-port/six1/udp-4500"} {
		if _, told := with[name]; !told {
			t.Errorf("%s is not told of with tunnels: %v", name, sortedKeys(with))
		}
	}
}

func TestTheDoctorNamesWhoHoldsAPortOfATunnel(t *testing.T) {
	inNamespace(t)
	n := needs()
	is(t, aboutTunnels(t, n)["tunnel-port/fra1/udp-51820"], StatusOK, "nobody else")
	other, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 51820})
	if err != nil {
		t.Fatal(err)
	}
	is(t, aboutTunnels(t, n)["tunnel-port/fra1/udp-51820"], StatusOK, "nobody else") // at another address it is not in the way
	other.Close()
	taken, err := net.ListenUDP("udp", &net.UDPAddr{Port: 51820})
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	got := aboutTunnels(t, n)["tunnel-port/fra1/udp-51820"]
	is(t, got, StatusMissing, "host.test (pid ")
	is(t, got, StatusMissing, "holds UDP [::]:51820")
	n.Ports[0].Holders = []string{"host.test"}
	is(t, aboutTunnels(t, n)["tunnel-port/fra1/udp-51820"], StatusOK, "nobody else")
	n.Ports[0].Holders, n.Ports[0].Command = nil, os.Args
	is(t, aboutTunnels(t, n)["tunnel-port/fra1/udp-51820"], StatusOK, "nobody else")
	n.Ports[0].Command = append(slices.Clone(os.Args), "more")
	is(t, aboutTunnels(t, n)["tunnel-port/fra1/udp-51820"], StatusMissing, "host.test (pid ")
}

func TestTheDoctorSeesStrictChecksOfSources(t *testing.T) {
	inNamespace(t)
	twoVeths(t)
	sysctl(t, "net/ipv4/conf/all/rp_filter", "0")
	sysctl(t, "net/ipv4/conf/default/rp_filter", "0")
	sysctl(t, "net/ipv4/conf/eth0/rp_filter", "2")
	is(t, aboutTunnels(t, needs())["rp_filter"], StatusOK, "no strict check")
	sysctl(t, "net/ipv4/conf/eth0/rp_filter", "1")
	is(t, aboutTunnels(t, needs())["rp_filter"], StatusWarn, "strict (1) on eth0")
	sysctl(t, "net/ipv4/conf/default/rp_filter", "1") // what fra1 gets, once it is there
	is(t, aboutTunnels(t, needs())["rp_filter"], StatusWarn, "strict (1) on fra1, eth0")
	sysctl(t, "net/ipv4/conf/default/rp_filter", "0")
	sysctl(t, "net/ipv4/conf/all/rp_filter", "1")
	got := aboutTunnels(t, needs())["rp_filter"]
	is(t, got, StatusWarn, "strict (1) on fra1, eth0")
	has(t, got.Fix, "net.ipv4.conf.all.rp_filter is 1")
}

func TestTheDoctorSeesRoutesThatCharonPutBeforeOurs(t *testing.T) {
	inNamespace(t)
	twoVeths(t)
	ip(t, "route add 10.99.0.0/16 dev eth0 table 220")
	if f, told := aboutTunnels(t, needs())["charon-routes"]; told {
		t.Errorf("a route elsewhere is told of: %+v", f)
	}
	ip(t, "route add 10.20.7.0/24 dev eth0 table 220")
	is(t, aboutTunnels(t, needs())["charon-routes"], StatusWarn, "table 220 has routes for what lies behind our peers: 10.20.7.0/24")
}

func TestAClockBeforeTheProgramWasBuiltIsNotSet(t *testing.T) {
	if f := checkClock(time.Now().Add(time.Hour)); f.Status != StatusMissing || !strings.Contains(f.Detail, "it is not set") {
		t.Errorf("got %+v", f)
	}
	if f := checkClock(time.Time{}); f.Status == StatusMissing {
		t.Errorf("got %+v", f)
	}
}

// Rules as people have them, each tried by packets in a namespace of its own: what they do is the kernel's to say.
func TestTheDoctorTriesWhetherAFirewallLetsTunnelsIn(t *testing.T) {
	const input = "add table inet filter; add chain inet filter input { type filter hook input priority 0; policy drop; }; "
	const fra1, six1, ams1 = "tunnel-firewall/fra1/udp-51820", "tunnel-firewall/six1/udp-4500", "tunnel-firewall/ams1/esp"
	for _, c := range []struct {
		name, rules, legacy string
		dropped             []string
	}{
		{name: "everything is dropped", rules: input, dropped: []string{fra1, six1, ams1}},
		{name: "all tunnels are accepted", rules: input + "add rule inet filter input udp dport { 4500, 51820 } accept; add rule inet filter input meta l4proto esp accept"},
		{name: "ESP is forgotten", rules: input + "add rule inet filter input udp dport { 4500, 51820 } accept", dropped: []string{ams1}},
		{name: "another peer is accepted", rules: input + "add rule inet filter input ip saddr 198.51.100.8 accept; add rule inet filter input ip6 version 6 accept", dropped: []string{fra1, ams1}},
		{name: "by the uplink's name", rules: input + `add rule inet filter input iifname "eth0" accept`},
		{name: "a chain behind a jump, and a set", rules: "add table ip f; add set ip f bad { type ipv4_addr; flags interval; elements = { 198.51.100.0/24 } }; add chain ip f c; " +
			"add rule ip f c ip saddr @bad counter drop; add chain ip f pre { type filter hook prerouting priority -300; }; add rule ip f pre jump c", dropped: []string{fra1, ams1}},
		{name: "established alone", rules: input + "add rule inet filter input ct state established,related accept", dropped: []string{fra1, six1, ams1}},
		{name: "only output and forward", rules: "add table inet x; add chain inet x f { type filter hook forward priority 0; policy drop; }"},
		{name: "legacy iptables", legacy: "-A INPUT -p udp --dport 51820 -j DROP", dropped: []string{fra1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inNamespace(t)
			twoVeths(t)
			if c.rules != "" {
				run(t, "nft", c.rules)
			}
			if c.legacy != "" {
				run(t, "iptables-legacy", strings.Fields(c.legacy)...)
			}
			before := machine(t)
			got := aboutTunnels(t, needs())
			same(t, "the machine", before, machine(t))
			for _, name := range []string{fra1, six1, ams1} {
				_, dropped := got[name]
				want := false
				for _, d := range c.dropped {
					want = want || d == name
				}
				if dropped != want {
					t.Errorf("%s dropped: %v, want %v", name, dropped, want)
				}
			}
			if _, good := got["tunnel-firewall"]; good != (len(c.dropped) == 0) {
				t.Errorf("got %+v", got["tunnel-firewall"])
			}
		})
	}
}
