package compile

import (
	"slices"
	"testing"
)

func TestWorkloadsInNetworksOfOthersAreToldOf(t *testing.T) {
	cfg := parse(t, `
interfaces:
  - {name: eth0, role: uplink, addresses: [198.18.0.2/24]}
  - {name: lan, role: downstream, addresses: [10.0.2.1/24, 10.0.3.1/32, "fd00:2::1/64"]}
  - {name: dhcp, role: downstream}
workloads:
  - {name: good, interface: g, addresses: [10.0.1.1, 198.18.0.9, 10.20.9.9]}
  - {name: in-lan, interface: l, addresses: [10.0.2.9, "fd00:2::9"]}
  - {name: in-lease, interface: d, addresses: [10.0.4.9]}
  - {name: behind, interface: b, addresses: [10.30.0.9]}
tunnels:
  - {name: open, type: wireguard, local: {address: 198.18.0.2, port: 51820}, wireguard: {private_key_file: /k},
     peers: [{name: a, endpoints: ["198.51.100.7:1"], public_keys: [EBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi8=], prefixes: [10.20.0.0/16]}]}
  - {name: shut, type: wireguard, strict: true, local: {address: 198.18.0.2, port: 51821}, wireguard: {private_key_file: /k},
     peers: [{name: b, endpoints: ["198.51.100.7:2"], public_keys: [EBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi8=], prefixes: [10.30.0.0/16]}]}
`)
	f := facts("eth0", "lan", "dhcp 10.0.4.1/24 fe80::1/64", "g", "l", "d", "b")
	f.PublicKeys = map[string]string{"/k": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}
	const onWire = ", whose hosts look for it on their own wire and find it only where this box answers there (proxy_arp, proxy_ndp)"
	want := []string{
		"workload in-lan: 10.0.2.9 is inside 10.0.2.0/24 of downstream lan" + onWire,
		"workload in-lan: fd00:2::9 is inside fd00:2::/64 of downstream lan" + onWire,
		"workload in-lease: 10.0.4.9 is inside 10.0.4.0/24 of downstream dhcp" + onWire,
		"workload behind: 10.30.0.9 is inside strict prefix 10.30.0.0/16 of tunnel shut: what is sent to it goes there while its interface is away, and the peer may have it as well",
	}
	if got := compile(t, cfg, Runtime{}, f).Warnings; !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}
