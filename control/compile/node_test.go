package compile

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/control/node"
)

const nodeKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKHROoPuY3vZc69t47RNfoC572EiSzYWIKfEXymYVxlY alice"

// TestSSHIsForWhomManagementLetsIn, and for nobody where that does not say so.
func TestSSHIsForWhomManagementLetsIn(t *testing.T) {
	for _, c := range []struct{ name, management, from string }{
		{"nobody", "", "none"},
		{"another port", "{protocol: tcp, ports: [443]}", "none"},
		{"another protocol", "{protocol: udp, ports: [2222]}", "none"},
		{"an empty set", "{protocol: tcp, ports: [2222], from: [empty]}", "none"},
		{"a network", "{protocol: tcp, ports: [22, 2000-3000], from: [198.18.0.0/24]}", "198.18.0.0/24"},
		{"two rules", "{protocol: any, from: [admins]}, {protocol: tcp, ports: [2222], from: [192.0.2.7]}", "192.0.2.7/32 198.51.100.0/24"},
		{"anybody", "{protocol: tcp, ports: [2222], from: [192.0.2.7]}, {protocol: tcp, ports: [2222]}", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := parse(t, `
node: {name: edge-1, ssh: {port: 2222, authorized_keys: ["`+nodeKey+`"]}}
interfaces: [{name: eth0, role: uplink}]
sets: [{name: admins, prefixes: [198.51.100.0/24]}, {name: empty, prefixes: []}]
management: {accept: [`+c.management+`]}
`)
			f := facts("eth0 198.18.0.2/30")
			f.Image = true
			d, err := Compile(cfg, Runtime{}, f)
			if err != nil {
				t.Fatal(err)
			}
			warned := slices.ContainsFunc(d.Warnings, func(w string) bool {
				return strings.HasPrefix(w, "node.ssh: management.accept lets nobody come to TCP port 2222")
			})
			got := "none"
			if s := d.Node.SSH; s != nil {
				var words []string
				for _, p := range s.From {
					words = append(words, p.String())
				}
				got = strings.Join(words, " ")
			}
			if got != c.from || warned != (c.from == "none") {
				t.Errorf("from %q, warned %v: %q", got, warned, d.Warnings)
			}
		})
	}
}

// TestTheNodeIsSetOnTheImageAlone, and its servers can be asked under a policy that lets nothing out.
func TestTheNodeIsSetOnTheImageAlone(t *testing.T) {
	cfg := parse(t, `
node: {name: edge-1, dns: [198.18.0.53], ntp: [198.18.0.123], console: {login: true, password_hash_file: /var/lib/sluice/keys/c.hash}}
interfaces: [{name: eth0, role: uplink}]
management: {accept: [{protocol: tcp, ports: [22], from: [198.18.0.0/24]}]}
policy: {egress: {default: drop}}
`)
	f := facts("eth0 198.18.0.2/30")
	for _, image := range []bool{false, true} {
		f.Image = image
		d, err := Compile(cfg, Runtime{}, f)
		if err != nil {
			t.Fatal(err)
		}
		var want node.State
		if image {
			want = node.State{HostName: "edge-1", DNS: []netip.Addr{netip.MustParseAddr("198.18.0.53")}, NTP: []netip.Addr{netip.MustParseAddr("198.18.0.123")},
				Console: &node.Console{HashFile: "/var/lib/sluice/keys/c.hash"}}
		}
		if diff := cmp.Diff(want, d.Node, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("on the image %v, -want +got:\n%s", image, diff)
		}
		if told := slices.ContainsFunc(d.Warnings, func(w string) bool { return strings.Contains(w, "are of the node image") }); told == image {
			t.Errorf("on the image %v: warnings %q", image, d.Warnings)
		}
		var servers []string
		for _, r := range d.TC.Generation.System.Rules {
			if strings.HasPrefix(r.Name, "ntp-") || strings.HasPrefix(r.Name, "dns-") {
				servers = append(servers, r.Name)
			}
		}
		if open := len(servers) == 3; open != image {
			t.Errorf("on the image %v: system rules %q", image, servers)
		}
	}
}
