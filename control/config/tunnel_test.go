package config

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestEndpointsAreReadAsTheyAreWritten(t *testing.T) {
	for text, want := range map[string]Endpoint{
		"198.51.100.7:51820":           {"198.51.100.7", netip.MustParseAddr("198.51.100.7"), 51820},
		"[2001:DB8::7]:51820":          {"2001:db8::7", netip.MustParseAddr("2001:db8::7"), 51820},
		"[2001:db8::7]":                {"2001:db8::7", netip.MustParseAddr("2001:db8::7"), 0},
		"2001:db8:0::7":                {"2001:db8::7", netip.MustParseAddr("2001:db8::7"), 0},
		"198.51.100.7":                 {"198.51.100.7", netip.MustParseAddr("198.51.100.7"), 0},
		"Fra1.Example.net:4500":        {"fra1.example.net", netip.Addr{}, 4500},
		"fra1":                         {"fra1", netip.Addr{}, 0},
		"7.example:1":                  {"7.example", netip.Addr{}, 1},
		strings.Repeat("a", 63) + ".b": {strings.Repeat("a", 63) + ".b", netip.Addr{}, 0},
	} {
		var got peerEndpoint
		if p := got.parse(text); !p.none() || got.Endpoint != want {
			t.Errorf("%s: %+v (%s), want %+v", text, got.Endpoint, p.msg, want)
		}
		if text := want.String(); got.String() != text || got.AddrPort().IsValid() != want.Addr.IsValid() || want.Addr.IsValid() && got.AddrPort().Port() != want.Port {
			t.Errorf("%s is shown as %s, %s", text, got.String(), got.AddrPort())
		}
	}
	for _, text := range []string{strings.Repeat("a", 64) + ".b", strings.Repeat("a.", 127) + "b", "a-.b", "a.b.", "a b", "0.0.0.0:1", "300.1.1.1:1", "fe80::1%eth0", "[198.51.100.7]:1", "a:65536"} {
		var got peerEndpoint
		if p := got.parse(text); p.none() || p.hint == "" && !strings.Contains(p.msg, "unicast") {
			t.Errorf("%s: %+v is refused by %q, %q", text, got, p.msg, p.hint)
		}
	}
	if got := (Endpoint{"2001:db8::7", netip.MustParseAddr("2001:db8::7"), 1}).String(); got != "[2001:db8::7]:1" {
		t.Errorf("an IPv6 endpoint is shown as %s", got)
	}
}

// tunnelsOf parses tunnels that stand one a line.
func tunnelsOf(t *testing.T, lines ...string) []Tunnel {
	t.Helper()
	c, err := parse("tunnels:\n  - " + strings.Join(lines, "\n  - ") + "\n")
	if err != nil {
		t.Fatal(err)
	}
	return c.Tunnels
}

func TestWhatIPsecLeavesOutIsFilledIn(t *testing.T) {
	got := tunnelsOf(t,
		`{name: s, type: ipsec, local: {address: 198.18.0.2}, ipsec: {keying: static}, peers: [{name: p, endpoints: [far.example, 198.51.100.7], master_key_file: /m}]}`,
		`{name: u, type: ipsec, local: {address: 198.18.0.2}, clamp_mss: false, ipsec: {keying: static, encapsulation: udp, rekey: 0s, id: me}, peers: [{name: p, endpoints: ["198.51.100.7:4501"], id: far, master_key_file: /m}]}`,
		`{name: v, type: ipsec, local: {address: "2001:db8::2", port: 4502}, ipsec: {keying: static, encapsulation: udp, replay_window: 32}}`)
	got = append(got, tunnelsOf(t, `{name: i, type: ipsec, local: {address: 198.18.0.2}, ipsec: {keying: ike, id: "2001:DB8::1"}, peers: [{name: p, endpoints: [198.51.100.7], preshared_key_file: /p}]}`)...)
	var lines []string
	for _, x := range got {
		i := x.IPsec
		line := fmt.Sprint(x.Name, " ", x.Local, " ", x.ClampMSS, " ", i.Keying, " ", i.ID, " ", i.Encapsulation, " ", i.ReplayWindow, " ", i.Rekey, " ", i.Charon)
		for _, p := range x.Peers {
			line += fmt.Sprint(" ", p.ID, " ", p.Endpoints, " ", p.MasterKeyFile, p.PresharedKeyFile, " ", p.Routes)
		}
		lines = append(lines, line)
	}
	want := []string{
		"s 198.18.0.2:0 true static 198.18.0.2 none 1024 24h0m0s  far.example [far.example 198.51.100.7] /m true",
		"u 198.18.0.2:4500 false static me udp 1024 0s  far [198.51.100.7:4501] /m true",
		"v [2001:db8::2]:4502 true static 2001:db8::2 udp 32 24h0m0s ",
		"i 198.18.0.2:0 true ike 2001:db8::1 auto 1024 0s /run/charon.vici 198.51.100.7 [198.51.100.7] /p true",
	}
	if strings.Join(lines, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
}

func TestAProbeBelongsToOnePeer(t *testing.T) {
	const a, b = "EBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi8=", "EBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLjA="
	for _, c := range []struct{ name, health, peers, want string }{
		{"in the prefixes of a peer", "{probe: 10.2.0.1}", "{name: p, public_keys: [" + a + "], prefixes: [10.1.0.0/16]}, {name: q, public_keys: [" + b + "], prefixes: [10.2.0.0/16]}",
			"p invalid IP, q 10.2.0.1"},
		{"in the device's network, of the only peer", "{probe: 10.200.0.2}", "{name: p, public_keys: [" + a + "]}", "p 10.200.0.2"},
		{"its own wins", "{probe: 10.200.0.2}", "{name: p, public_keys: [" + a + "], probe: 10.200.0.3}", "p 10.200.0.3"},
		{"each its own", "{}", "{name: p, public_keys: [" + a + "], probe: 10.200.0.2}, {name: q, public_keys: [" + b + "], probe: 10.200.0.3}, {name: r, public_keys: [AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=]}",
			"p 10.200.0.2, q 10.200.0.3, r invalid IP"},
	} {
		x := tunnelsOf(t, "{name: t, type: wireguard, local: {address: 198.18.0.2, port: 1}, addresses: [10.200.0.1/24], wireguard: {private_key_file: /k}, health: "+c.health+", peers: ["+c.peers+"]}")[0]
		var got []string
		for _, p := range x.Peers {
			got = append(got, fmt.Sprint(p.Name, " ", p.Probe))
		}
		if strings.Join(got, ", ") != c.want {
			t.Errorf("%s: %q, want %s", c.name, got, c.want)
		}
		if h := x.Health; h.Interval != time.Second || h.DownAfter != 3 || h.UpAfter != 5 {
			t.Errorf("%s: health is %+v", c.name, h)
		}
	}
}

func TestPrefixesAroundEndpointsAreFound(t *testing.T) {
	x := Tunnel{Strict: true, Peers: []Peer{
		{Prefixes: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("10.2.0.0/16")},
			Endpoints: []Endpoint{{Host: "198.51.100.7", Addr: netip.MustParseAddr("198.51.100.7")}, {Host: "198.51.100.8", Addr: netip.MustParseAddr("198.51.100.8")}, {Host: "far.example"}}},
		{Prefixes: []netip.Prefix{netip.MustParsePrefix("::/0")}},
	}}
	for want, found := range map[string][]netip.Addr{
		"[198.51.100.0/24 ::/0]":             nil,
		"[10.2.0.0/16 198.51.100.0/24 ::/0]": {netip.MustParseAddr("10.2.9.9"), netip.MustParseAddr("10.3.9.9"), {}, netip.MustParseAddr("2001:db8::7")},
	} {
		if got := fmt.Sprint(x.Around(found...)); got != want {
			t.Errorf("with %v: %s, want %s", found, got, want)
		}
	}
}

func TestPrefixesThatCatchNothingAreAroundNothing(t *testing.T) {
	const peer = `{name: %s, public_keys: [EBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtL%s8=], endpoints: ["198.51.100.7:1"], prefixes: [%s], routes: %v}`
	x := tunnelsOf(t, "{name: t, type: wireguard, local: {address: 198.18.0.2, port: 1}, wireguard: {private_key_file: /k}, peers: ["+
		fmt.Sprintf(peer, "p", "i", `"::/0"`, false)+", "+fmt.Sprintf(peer, "q", "j", "198.51.100.0/24", true)+"]}")[0]
	if got := fmt.Sprint(x.Around()); got != "[198.51.100.0/24]" {
		t.Errorf("around the endpoint are %s", got)
	}
}

// TestKeysAreKnownWhereverTheyStand: what is no key must stay a path.
func TestKeysAreKnownWhereverTheyStand(t *testing.T) {
	for text, is := range map[string]bool{
		"EBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi8=":                       true,
		"0sEBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi8=":                     true,
		"101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f":   true,
		"0x101112131415161718191A1B1C1D1E1F202122232425262728292a2b2c2d2e2f": true,
		"/var/lib/sluice/keys/fra1.key":                                      false,
		"/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa":                        false,
		"": false,
		"EBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKyw=": false,
	} {
		if looksLikeKey(text) != is {
			t.Errorf("%s: %v", text, !is)
		}
	}
}
