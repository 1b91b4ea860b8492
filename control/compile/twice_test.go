package compile

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"sluice/crypto/ipsec"
)

func TestRoutesToWhatTheBoxHasAreRefused(t *testing.T) {
	to := func(prefixes, more string) string {
		return linked + strings.Replace(strings.Replace(tunnel("t", "addresses: [10.200.0.1/24]"), "10.20.0.0/16", prefixes, 1), "prefixes:", more+"prefixes:", 1)
	}
	const clash, out = ", which has a route of the same metric", "; take it out of prefixes, or write routes: false"
	peer := "edge.yaml:8:14: tunnels[0].peers[0].prefixes"
	for _, c := range []struct{ name, yaml, want, warns string }{
		{"the LAN of this box as a peer's", to("10.1.0.0/24", ""), peer + "[0]: 10.1.0.0/24 is the network of eth1" + clash + out, ""},
		{"behind another prefix", to("10.20.0.0/16, 198.18.0.0/24", ""), peer + "[1]: 198.18.0.0/24 is the network of eth0" + clash + out, ""},
		{"without a route", to("10.1.0.0/24", "routes: false, "), "", ""},
		{"a wider one", to("10.1.0.0/16", ""), "", ""},
		{"a part of it", to("10.1.0.128/25", ""), "", ""},
		{"of another metric", to("10.1.0.0/24", "metric: 100, "), "", "tunnel t: 10.1.0.0/24 is the network of eth1, too, and only the route of the lower metric is used"},
		{"IPv6, where the kernel's metrics differ", to("'fd00:1::/64'", ""), "", "tunnel t: fd00:1::/64 is the network of eth1, too, and only the route of the lower metric is used"},
		{"IPv6 of the same metric", to("'fd00:1::/64'", "metric: 256, "), peer + "[0]: fd00:1::/64 is the network of eth1" + clash + out, ""},
		{"the tunnel's own network", to("10.200.0.0/24, 10.20.0.0/16", ""), "", ""},
		{"a workload", to("10.7.0.2/32", "") + "workloads: [{name: w, interface: w, addresses: [10.7.0.2]}]\n", peer + "[0]: 10.7.0.2/32 is the address of workload w" + clash + out, ""},
		{"a route to the LAN", linked + "routes: [{prefix: 10.1.0.0/24, via: [198.18.0.1]}]\n",
			"edge.yaml:5:10: routes[0].prefix: 10.1.0.0/24 is the network of eth1" + clash + "; remove the route, or write another metric", ""},
		{"a route to it of another metric", linked + "routes: [{prefix: 10.1.0.0/24, via: [198.18.0.1], metric: 5}]\n", "",
			"routes[0]: 10.1.0.0/24 is the network of eth1, too, and only the route of the lower metric is used"},
		{"a route to a workload", linked + "workloads: [{name: w, interface: w, addresses: ['fd00:7::2']}]\nroutes: [{prefix: 'fd00:7::2/128', via: ['2001:db8::1']}]\n",
			"edge.yaml:6:10: routes[0].prefix: fd00:7::2/128 is the address of workload w" + clash + "; remove the route, or write another metric", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := facts("eth0", "eth1", "lo", "w")
			says := func(d *Desired, what string) bool {
				return slices.ContainsFunc(d.Warnings, func(w string) bool { return strings.Contains(w, what) })
			}
			if c.want != "" {
				same(t, strings.Split(refusal(t, parse(t, c.yaml), f).Error(), "\n"), c.want)
				if d := compile(t, parse(t, c.yaml), Runtime{Accepted: true}, f); !says(d, clash) {
					t.Errorf("a file that was accepted before: warnings %q", d.Warnings)
				}
				return
			}
			if d := compile(t, parse(t, c.yaml), Runtime{}, f); says(d, "lower metric") != (c.warns != "") || !says(d, c.warns) && c.warns != "" {
				t.Errorf("warnings %q, want %q", d.Warnings, c.warns)
			}
		})
	}
}

// The kernel has a route to the network of a device's address, and refuses another beside it.
func TestNoRouteToTheTunnelsOwnNetwork(t *testing.T) {
	yaml := linked + strings.Replace(tunnel("t", "addresses: [10.200.0.1/24]"), "10.20.0.0/16", "10.200.0.0/24, 10.20.0.0/16", 1)
	routes := compile(t, parse(t, yaml), Runtime{}, facts("eth0", "eth1", "lo")).WireGuard.Tunnels[0].Routes
	if len(routes) != 1 || routes[0].Prefix.String() != "10.20.0.0/16" {
		t.Errorf("routes %v", routes)
	}
}

func TestTunnelsThatTheKernelWouldKnowByOneNumber(t *testing.T) {
	one, other := sameNumber(t)
	peer := func(id string) string {
		return "{name: a, id: " + id + ", endpoints: [198.51.100.7], master_key_file: /m, prefixes: [10.2" + id[1:] + ".0.0/16]}"
	}
	yaml := uplink + "tunnels:" + esp(one, "static", "", peer("p1")) + esp(other, "static", "", peer("p2"))
	err := refusal(t, parse(t, yaml), eth0)
	if want := "tunnels[1].name: the kernel would know " + one + " and " + other + " by one number (if_id); rename one"; !strings.HasSuffix(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
}

// sameNumber finds two names of tunnels that have one if_id: 20 bits of it are the name's.
func sameNumber(t *testing.T) (one, other string) {
	t.Helper()
	seen := map[uint32]string{}
	for n := range 1 << 20 {
		name := fmt.Sprintf("t%d", n)
		if first := seen[ipsec.IfID(name)]; first != "" {
			return first, name
		}
		seen[ipsec.IfID(name)] = name
	}
	t.Fatal("no two names have one if_id")
	return "", ""
}
