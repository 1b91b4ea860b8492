package host

import (
	"os/exec"
	"strings"
	"testing"
)

// tunnelRules are those that control/compile has for tunnels with a default route, and with probes; eth0 is an uplink.
func tunnelRules() []Rule {
	const group, main, tunnels, probes, underlay = 18800, 254, 187, 188, 1 << 24
	return []Rule{
		{Priority: 18800, InLink: "eth0", Table: main, SuppressGroup: group},
		{Priority: 18801, InLink: "eth0", Prohibit: true},
		{Priority: 18809, OutLink: "t0", Table: probes},
		{Priority: 18809, IPv6: true, OutLink: "t0", Table: probes},
		{Priority: 18809, From: pfx("10.200.0.1/32"), To: pfx("10.20.0.9/32"), Table: probes},
		{Priority: 18810, Mark: underlay, Mask: underlay, Table: main},
		{Priority: 18810, To: pfx("198.51.100.9/32"), Table: main},
		{Priority: 18811, Table: main, Shortest: 1},
		{Priority: 18812, Mask: underlay, Table: tunnels},
		{Priority: 18812, IPv6: true, Mask: underlay, Table: tunnels},
	}
}

// leaves says by which device the kernel sends what ip(8) is asked for, or its refusal.
func leaves(t *testing.T, get string) string {
	t.Helper()
	out, err := exec.Command("ip", append(strings.Fields("-o"), strings.Fields(get)...)...).CombinedOutput()
	if err != nil {
		return strings.TrimSpace(strings.TrimPrefix(string(out), "RTNETLINK answers:"))
	}
	_, dev, _ := strings.Cut(string(out), " dev ")
	dev, _, _ = strings.Cut(dev, " ")
	return dev
}

// TestWaysOfTunnels: routes that stand for those of the tunnels' drivers, in a network of veths.
func TestWaysOfTunnels(t *testing.T) {
	inNamespace(t)
	for _, link := range []string{"eth0", "lan0", "t0", "u0"} {
		ip(t, "link add "+link+" type veth peer name "+link+"p")
		ip(t, "link set "+link+" up")
		ip(t, "link set "+link+"p up")
	}
	for _, line := range []string{
		"addr add 198.18.0.2/30 dev eth0", "addr add 10.0.2.1/24 dev lan0", "addr add 10.200.0.1/31 dev t0", "addr add 10.201.0.1/31 dev u0",
		"link set eth0 group 18800", "link set t0 group 18800", "link set u0 group 18800",
		"route add default via 198.18.0.1 dev eth0", "route add default dev t0 table 187", "route add 10.20.0.9/32 dev t0 table 188",
		"route add 10.20.0.0/16 dev u0 metric 200", "route add blackhole 10.20.0.0/16 metric 4294967295",
		"-6 route add fd00:20::9/128 dev t0 table 188", "-6 route add blackhole fd00:20::/48 metric 4294967295",
	} {
		ip(t, line)
	}
	h := open(t, t.TempDir())
	apply(t, h, State{Rules: tunnelRules(), Sysctls: []Sysctl{{"net.ipv4.ip_forward", "1"}, {"net.ipv4.conf.eth0.rp_filter", "1"}, {"net.ipv4.conf.all.rp_filter", "0"}}})
	check := func(ways map[string]string) {
		t.Helper()
		for get, want := range ways {
			if got := leaves(t, get); !strings.HasPrefix(got, want) {
				t.Errorf("ip %s: %s, want %s", get, got, want)
			}
		}
	}
	check(map[string]string{
		"route get 203.0.113.1":                           "t0",
		"route get 203.0.113.1 mark 0x1000000":            "eth0", // encrypted packets
		"route get 203.0.113.1 mark 0x1010000":            "eth0", // that have another bit of ours
		"route get 198.51.100.9":                          "eth0", // IKE
		"route get 198.18.0.1":                            "eth0", // longer routes of main come first
		"route get 10.0.2.9":                              "lan0",
		"route get 203.0.113.1 from 10.0.2.9 iif lan0":    "t0",
		"route get 203.0.113.1 from 192.0.2.1 iif eth0":   "Permission denied", // from outside to outside
		"route get 10.0.2.9 from 198.18.0.1 iif eth0":     "lan0",
		"route get 10.20.0.9":                             "u0", // t0's route is withdrawn
		"route get 10.20.0.9 oif t0":                      "t0", // its probe goes on
		"-6 route get fd00:20::9 oif t0":                  "t0",
		"-6 route get fd00:20::9":                         "Invalid argument", // the blackhole
		"route get 198.18.0.2 from 198.51.100.7 iif eth0": "Invalid",          // the strict check: what comes from there leaves by t0
	})
	ip(t, "route del 10.20.0.0/16 dev u0 metric 200")
	apply(t, h, State{Rules: tunnelRules(), Sysctls: []Sysctl{{"net.ipv4.ip_forward", "1"}, {"net.ipv4.conf.eth0.rp_filter", "2"}, {"net.ipv4.conf.all.rp_filter", "1"}}})
	check(map[string]string{
		"route get 10.20.0.9":                             "Invalid argument",
		"route get 10.20.0.9 oif t0":                      "t0",
		"route get 10.200.0.1 from 10.20.0.9 iif t0":      "lo",      // the answer, though a blackhole is all that others find
		"route get 10.200.0.1 from 10.20.0.8 iif t0":      "Invalid", // who was not probed
		"route get 198.18.0.2 from 198.51.100.7 iif eth0": "lo",      // why the uplink's check is loose
	})

	// The tunnel is strict, and its route is withdrawn.
	ip(t, "route del default dev t0 table 187")
	ip(t, "route add blackhole default table 187 metric 4294967295")
	check(map[string]string{
		"route get 203.0.113.1":                           "Invalid argument",
		"route get 203.0.113.1 mark 0x1000000":            "eth0",
		"route get 198.18.0.2 from 198.51.100.9 iif eth0": "lo",      // a known endpoint is heard
		"route get 198.18.0.2 from 198.51.100.7 iif eth0": "Invalid", // one that roams is not, by the loose check
	})
	apply(t, h, State{Rules: tunnelRules(), Sysctls: []Sysctl{{"net.ipv4.ip_forward", "1"}, {"net.ipv4.conf.eth0.rp_filter", "0"}, {"net.ipv4.conf.all.rp_filter", "0"}}})
	check(map[string]string{"route get 198.18.0.2 from 198.51.100.7 iif eth0": "lo"}) // why the uplink has none then

	// Main has no way to an endpoint: its packets do not go into its own tunnel.
	for _, line := range []string{"route add default dev t0 table 187", "route del default via 198.18.0.1 dev eth0", "-6 route add default dev t0 table 187"} {
		ip(t, line)
	}
	check(map[string]string{
		"route get 203.0.113.1":                   "t0",
		"route get 203.0.113.1 mark 0x1000000":    "Network is unreachable",
		"-6 route get 2001:db8::1":                "t0",
		"-6 route get 2001:db8::1 mark 0x1000000": "Network is unreachable",
	})
}
