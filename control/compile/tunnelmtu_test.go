package compile

import (
	"net/netip"
	"strings"
	"testing"
)

func TestTunnelMTU(t *testing.T) {
	const peers = "public_keys: [EBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi8=]"
	site := func(uplinks, local, endpoint, more string) string {
		if endpoint != "" {
			endpoint = `, endpoints: ["` + endpoint + `"]`
		}
		return "interfaces: [" + uplinks + "]\ntunnels: [{name: t, type: wireguard, local: {address: '" + local + "', port: 1}, wireguard: {private_key_file: /k}" + more +
			", peers: [{name: p, " + peers + endpoint + "}]}]"
	}
	const one, v4, v6 = "{name: eth0, role: uplink}", "198.18.0.2", "2001:db8::2"
	for _, c := range []struct {
		name, yaml string
		facts      Facts
		want       int
	}{
		{"over IPv4", site(one, v4, "198.51.100.7:1", ""), facts("eth0"), 1440},
		{"over IPv6", site(one, v6, "[2001:db8:7::1]:1", ""), facts("eth0"), 1420},
		{"to a peer that calls, which may come by either", site(one, v4, "", ""), facts("eth0"), 1420},
		{"as the file says", site(one, v4, "198.51.100.7:1", ", mtu: 1300"), facts("eth0"), 1300},
		{"on the smallest uplink, the file's MTU before the machine's",
			site("{name: eth0, role: uplink, mtu: 9000}, {name: eth1, role: uplink, mtu: 1400}, {name: eth2, role: downstream, mtu: 1300, addresses: [10.0.2.1/24]}", v4, "198.51.100.7:1", ""),
			facts("eth0", "eth1", "eth2"), 1340},
		{"without any uplink", site("{name: lo, addresses: [203.0.113.1/32]}", v4, "198.51.100.7:1", ""), facts("lo"), 1440},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := compile(t, parse(t, c.yaml), Runtime{}, c.facts).WireGuard.Tunnels[0].MTU; got != c.want {
				t.Errorf("MTU %d, want %d", got, c.want)
			}
		})
	}
}

func TestTheMTUFollowsTheWayToTheEndpoints(t *testing.T) {
	const v4, v6 = "198.18.0.2", "2001:db8::2"
	esp := func(local, ipsec, more string) string {
		endpoint := map[string]string{v4: "198.51.100.7", v6: "'2001:db8:7::1'"}[local]
		secret := "master_key_file"
		if strings.HasPrefix(ipsec, "ike") {
			secret = "preshared_key_file"
		}
		return "{name: t, type: ipsec, local: {address: '" + local + "'}, ipsec: {keying: " + ipsec + "}" + more + ", peers: [{name: p, endpoints: [" + endpoint + "], " + secret + ": /m, prefixes: [10.20.0.0/16]}]}"
	}
	wg := func(peers, more string) string {
		return "{name: t, type: wireguard, local: {address: " + v4 + ", port: 1}, wireguard: {private_key_file: /k}" + more + ", peers: [" + peers + "]}"
	}
	const near, caller = `{name: p, public_keys: [` + keyA + `], endpoints: ["198.51.100.7:1"]}`, `{name: p, public_keys: [` + keyA + `]}`
	in := func(endpoint string) map[string]PeerNow {
		return map[string]PeerNow{"p": {Endpoint: netip.MustParseAddrPort(endpoint)}}
	}
	const small = "tunnel t: the way to its peers takes packets of 1280 bytes, which leaves 1220; the MTU is 1280 all the same, and what is larger than the way is fragmented or lost"
	for _, c := range []struct {
		name, tunnel string
		now          TunnelNow
		want         int
		warning      string
	}{
		{"WireGuard over what the uplink takes", wg(near, ""), TunnelNow{}, 1440, ""},
		{"WireGuard over PPPoE", wg(near, ""), TunnelNow{Underlay: 1492}, 1432, ""},
		{"WireGuard over jumbo frames", wg(near, ""), TunnelNow{Underlay: 9000}, 8940, ""},
		{"as the file says", wg(near, ", mtu: 1300"), TunnelNow{Underlay: 9000}, 1300, ""},
		{"a caller that came by IPv4", wg(caller, ""), TunnelNow{Peers: in("203.0.113.5:9")}, 1440, ""},
		{"a caller that came by IPv6", wg(caller, ""), TunnelNow{Peers: in("[2001:db8:9::1]:9")}, 1420, ""},
		{"ESP over IPv4", esp(v4, "static", ""), TunnelNow{}, 1446, ""},
		{"ESP over IPv6", esp(v6, "static", ""), TunnelNow{}, 1426, ""},
		{"ESP in UDP over IPv4", esp(v4, "static, encapsulation: udp", ""), TunnelNow{}, 1438, ""},
		{"ESP in UDP over IPv6", esp(v6, "static, encapsulation: udp", ""), TunnelNow{}, 1418, ""},
		{"ESP that may come to be in UDP", esp(v4, "ike", ""), TunnelNow{}, 1438, ""},
		{"ESP with padding to 4 bytes", esp(v4, "static", ""), TunnelNow{Underlay: 1499}, 1442, ""},
		{"ESP with a cipher in blocks", esp(v4, "ike, esp_proposals: [aes256gcm16, aes256-sha512]", ""), TunnelNow{}, 1406, ""},
		{"ESP with ciphers of streams", esp(v4, "ike, esp_proposals: [aes256gcm16-esn, chacha20poly1305, aes128ccm16]", ""), TunnelNow{}, 1438, ""},
		{"a way that is too small for IPv6 inside", wg(near, `, addresses: ["fd00::1/64"]`), TunnelNow{Underlay: 1280}, 1280, small},
		{"a way that is small, for IPv4 alone", wg(near, ``), TunnelNow{Underlay: 1280}, 1220, ""},
		{"a way that is too small for anything", wg(near, ``), TunnelNow{Underlay: 600}, 576,
			"tunnel t: the way to its peers takes packets of 600 bytes, which leaves 540; the MTU is 576 all the same, and what is larger than the way is fragmented or lost"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := compile(t, parse(t, "interfaces: [{name: eth0, role: uplink, addresses: [198.18.0.2/30, '2001:db8::2/64']}]\ntunnels: ["+c.tunnel+"]"),
				Runtime{Tunnels: map[string]TunnelNow{"t": c.now}}, facts("eth0"))
			got := 0
			for _, tun := range d.WireGuard.Tunnels {
				got = tun.MTU
			}
			for _, tun := range d.IPsec.Tunnels {
				got = tun.MTU
			}
			if warnings := strings.Join(d.Warnings, "|"); got != c.want || warnings != c.warning {
				t.Errorf("MTU %d, want %d; warnings %q", got, c.want, warnings)
			}
		})
	}
}
