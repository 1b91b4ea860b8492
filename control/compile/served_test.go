package compile

import (
	"strings"
	"testing"
)

func TestPrefixesThatNobodyHereServesAreTold(t *testing.T) {
	const nobody, then = "bgp.advertise[0]: nothing of this box is in ", ": no address, workload, tunnel or route; what neighbors send here for it goes by whatever route there is, or is dropped"
	file := func(prefixes, more string) string {
		return linked + "routes: [{prefix: 0.0.0.0/0, via: [198.18.0.1]}, {prefix: 192.0.2.0/24, via: [10.1.0.9]}]\n" +
			"workloads: [{name: w, interface: w, addresses: [10.7.0.2]}]\n" + tunnel("t") +
			"bgp: {asn: 65010, router_id: 198.18.0.2, neighbors: [{name: tor, address: 198.18.0.1, asn: 65000}], advertise: [{prefixes: [" + prefixes + "]" + more + "}]}\n"
	}
	for _, c := range []struct{ name, yaml, want string }{
		{"somebody else's", file("8.8.8.0/24", ""), nobody + "8.8.8.0/24" + then},
		{"one of two", file("203.0.113.0/24, 8.8.8.0/24", ""), nobody + "8.8.8.0/24" + then},
		{"many", file("8.8.0.0/24, 8.8.1.0/24, 8.8.2.0/24, 8.8.3.0/24, 8.8.4.0/24, 8.8.5.0/24, 8.8.6.0/24", ""), nobody + "8.8.0.0/24, 8.8.1.0/24, 8.8.2.0/24, 8.8.3.0/24, 8.8.4.0/24, 2 more" + then},
		{"a default route", file("0.0.0.0/0", ""), "bgp.advertise[0]: with 0.0.0.0/0 neighbors send here what they have no other route for"},
		{"around an address of lo", file("203.0.113.0/24", ""), ""},
		{"inside the LAN", file("10.1.0.64/26", ""), ""},
		{"a workload", file("10.7.0.2/32", ""), ""},
		{"behind a tunnel", file("10.20.0.0/16", ""), ""},
		{"behind a router of the LAN", file("192.0.2.0/24", ""), ""},
		{"with another next hop", file("8.8.8.0/24", ", next_hop: 198.18.0.9"), ""},
		{"who reads from a socket", file("8.8.8.0/24", "") + "sockets: [{name: s}]\npolicy: {ingress: {rules: [{name: r, to: [8.8.0.0/16], action: bypass, socket: s}]}}\n", ""},
		{"a family that nobody carries", file("'2001:db8:100::/48', '2001:db8:200::/48'", "") + "sockets: [{name: s}]\npolicy: {ingress: {rules: [{name: r, action: bypass, socket: s}]}}\n",
			"bgp.advertise[0]: no neighbor that it goes to carries ipv6-unicast, so nobody is told of 2001:db8:100::/48 and others of that family"},
		{"on the machine alone", file("172.17.0.0/16", ""), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := compile(t, parse(t, c.yaml), Runtime{}, facts("docker0 172.17.0.1/16", "eth0", "eth1", "lo", "w"))
			var got []string
			for _, n := range d.Notes {
				if strings.HasPrefix(n, "bgp.advertise") {
					got = append(got, n)
				}
			}
			if strings.Join(got, "\n") != c.want {
				t.Errorf("notes %q, want %q", got, c.want)
			}
		})
	}
}

func TestMetricsWhereNobodyCouldListen(t *testing.T) {
	for at, want := range map[string]bool{"198.18.0.2:9750": false, "127.0.0.1:9750": false, "'[::]:9750'": false, "198.18.0.9:9750": true} {
		d := compile(t, parse(t, linked+"telemetry: {metrics: "+at+"}\n"), Runtime{}, facts("eth0", "eth1", "lo"))
		if got := len(d.Warnings) == 1 && strings.HasPrefix(d.Warnings[0], "telemetry.metrics: 198.18.0.9 is not an address of this box now"); got != want || !want && len(d.Warnings) > 0 {
			t.Errorf("%s: warnings %q", at, d.Warnings)
		}
	}
}
