package compile

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"sluice/control/config"
	"sluice/crypto/path"
)

const (
	keyA = "EBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi8="
	keyB = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	keyC = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA="
)

// wg and esp are one tunnel of tunnels: in a line, with more keys, and peers each in braces.
func wg(name string, port int, more, peers string) string {
	return fmt.Sprintf("\n  - {name: %s, type: wireguard, local: {address: 198.18.0.2, port: %d}, wireguard: {private_key_file: /k}%s, peers: [%s]}", name, port, more, peers)
}

func esp(name, keying, more, peers string) string {
	return fmt.Sprintf("\n  - {name: %s, type: ipsec, local: {address: 198.18.0.2}, ipsec: {keying: %s}%s, peers: [%s]}", name, keying, more, peers)
}

const site = uplink + "tunnels:"

// running is a Runtime in which something is known of peer p of tunnel t.
func running(now PeerNow) Runtime {
	return Runtime{Tunnels: map[string]TunnelNow{"t": {Peers: map[string]PeerNow{"p": now}}}}
}

// crypto compiles and returns what of paths, WireGuard and IPsec is wanted, one line each.
func crypto(t *testing.T, yaml string, rt Runtime) (lines, warnings []string) {
	t.Helper()
	d := compile(t, parse(t, yaml), rt, eth0)
	var p printer
	p.path(d.Path)
	p.wireguard(d.WireGuard)
	p.ipsec(d.IPsec)
	for line := range strings.Lines(p.out.String()) {
		lines = append(lines, strings.TrimSpace(line))
	}
	return lines, d.Warnings
}

func begin(lines []string, with ...string) []string {
	return slices.DeleteFunc(slices.Clone(lines), func(l string) bool {
		return !slices.ContainsFunc(with, func(w string) bool { return strings.HasPrefix(l, w+" ") })
	})
}

func TestTheKeyInUseHasTheAllowedIPs(t *testing.T) {
	yaml := site + wg("t", 1, "", `{name: p, public_keys: [`+keyA+`, `+keyB+`], endpoints: ["198.51.100.7:51820"], preshared_key_file: /p, keepalive: 25s, prefixes: [10.20.0.0/16]}`)
	const bearing = " endpoint 198.51.100.7:51820 psk /p keepalive 25s allowed 10.20.0.0/16"
	const staged = " endpoint 198.51.100.7:51820 psk /p allowed"
	for in, want := range map[string][]string{
		"":   {"peer p " + keyB + staged, "peer p " + keyA + bearing},
		keyA: {"peer p " + keyB + staged, "peer p " + keyA + bearing},
		keyB: {"peer p " + keyB + bearing, "peer p " + keyA + staged},
		keyC: {"peer p " + keyB + staged, "peer p " + keyA + bearing}, // the file took it away
	} {
		lines, _ := crypto(t, yaml, running(PeerNow{PublicKey: in}))
		same(t, begin(lines, "peer"), want...)
	}
}

func TestTheNodesOwnKeyIsRefusedAlsoAsTheStagedOne(t *testing.T) {
	f := facts("eth0")
	f.PublicKeys = map[string]string{"/k": keyB}
	yaml := site + wg("t", 1, "", `{name: p, public_keys: [`+keyA+`, `+keyB+`]}`)
	same(t, strings.Split(refusal(t, parse(t, yaml), f).Error(), "\n"),
		"edge.yaml:3:114: tunnels[0].peers[0].public_keys[1]: this is the node's own key; give the peer's public key: `sluice key show` on the peer prints it")
}

func TestTheEndpointInUseIsTheOneThatWasFound(t *testing.T) {
	for _, c := range []struct{ name, endpoints, found, want string }{
		{"the file's first", `"198.51.100.7:1", "198.51.100.8:2"`, "", "198.51.100.7:1"},
		{"the file's first that is an address", `"fra1.example:1", "198.51.100.8:2"`, "", "198.51.100.8:2"},
		{"the one that answers", `"198.51.100.7:1", "198.51.100.8:2"`, "198.51.100.8:2", "198.51.100.8:2"},
		{"what a name stands for", `"fra1.example:1"`, "203.0.113.5:1", "203.0.113.5:1"},
		{"none, as long as a name stands for nothing", `"fra1.example:1"`, "", ""},
		{"where a peer that calls came from", ``, "203.0.113.5:9", "203.0.113.5:9"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var now PeerNow
			if c.found != "" {
				now.Endpoint = netip.MustParseAddrPort(c.found)
			}
			endpoints := ""
			if c.endpoints != "" {
				endpoints = ", endpoints: [" + c.endpoints + "]"
			}
			lines, warnings := crypto(t, site+wg("t", 1, "", `{name: p, public_keys: [`+keyA+`]`+endpoints+`, prefixes: [10.20.0.0/16]}`), running(now))
			want := "peer p " + keyA + " endpoint " + c.want + " allowed 10.20.0.0/16"
			if c.want == "" {
				want = "peer p " + keyA + " allowed 10.20.0.0/16"
			}
			same(t, begin(lines, "peer"), want)
			same(t, warnings)
		})
	}
}

func TestAPeerWhoseProbesAreLostLosesItsRoutesAlone(t *testing.T) {
	peer := func(more string) string {
		return `{name: p, public_keys: [` + keyA + `], endpoints: ["198.51.100.7:1"], prefixes: [10.20.0.0/16, "fd00:20::/48"], metric: 7` + more + `}`
	}
	yaml := site + wg("t", 1, ", strict: true, addresses: [10.200.0.1/24], health: {}", peer(", probe: 10.20.0.9")+
		`, {name: q, public_keys: [`+keyB+`], prefixes: [10.30.0.0/16], probe: 10.200.0.7}`)
	const all = "peer p " + keyA + " endpoint 198.51.100.7:1 allowed 10.20.0.0/16 fd00:20::/48"
	up, _ := crypto(t, yaml, Runtime{})
	same(t, begin(up, "blackhole", "peer", "route"),
		"blackhole 10.20.0.0/16", "blackhole 10.30.0.0/16", "blackhole fd00:20::/48",
		"peer q "+keyB+" allowed 10.30.0.0/16 10.200.0.7/32", all,
		"route 10.20.0.0/16 metric 7", "route 10.20.0.9/32 metric 7 table 188", "route 10.30.0.0/16", "route fd00:20::/48 metric 7")
	down, _ := crypto(t, yaml, running(PeerNow{Down: true}))
	same(t, begin(down, "blackhole", "peer", "route"),
		"blackhole 10.20.0.0/16", "blackhole 10.30.0.0/16", "blackhole fd00:20::/48",
		"peer q "+keyB+" allowed 10.30.0.0/16 10.200.0.7/32", all,
		"route 10.20.0.9/32 metric 7 table 188", "route 10.30.0.0/16")
	for _, rt := range []Runtime{{}, running(PeerNow{Down: true})} {
		d := compile(t, parse(t, yaml), rt, eth0)
		same(t, ruleLines(d), "18809 from 10.200.0.1/32 to 10.20.0.9/32 table 188", "18809 oif t table 188")
		if got := list(d.TC.Generation.Strict); got != "10.20.0.0/16 10.30.0.0/16 fd00:20::/48" {
			t.Errorf("tc guards %s", got)
		}
	}
	six := site + wg("t", 1, ", health: {}", peer(`, probe: "fd00:20::9"`))
	same(t, ruleLines(compile(t, parse(t, six), Runtime{}, eth0)), "18809 inet6 oif t table 188")
}

// ruleLines are the routing rules but for the matrix.
func ruleLines(d *Desired) []string {
	var p printer
	p.host(d.Host)
	out := []string{}
	for line := range strings.Lines(p.out.String()) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "rule "); ok && !strings.HasPrefix(rest, "18800") && !strings.HasPrefix(rest, "18801") {
			out = append(out, rest)
		}
	}
	return out
}

func TestTheNetworkOfADeviceForTwoIsThePeers(t *testing.T) {
	peer := `{name: p, public_keys: [` + keyA + `], prefixes: [10.20.0.0/16]}`
	for _, c := range []struct{ addresses, peers, want string }{
		{`10.200.0.1/31, "fd00:200::1/127"`, peer, "10.20.0.0/16 10.200.0.0/31 fd00:200::/127"},
		{`10.200.0.1/30, "fd00:200::1/126"`, peer, "10.20.0.0/16 10.200.0.0/30 fd00:200::/126"},
		{`10.200.0.1/29, 10.200.1.1/32, "fd00:200::1/64"`, peer, "10.20.0.0/16"},
		{`10.20.0.1/31`, peer, "10.20.0.0/16"},
		{`10.200.0.1/31`, peer + `, {name: q, public_keys: [` + keyC + `]}`, "10.20.0.0/16"},
	} {
		lines, _ := crypto(t, site+wg("t", 1, ", addresses: ["+c.addresses+"]", c.peers), Runtime{})
		if peers := begin(lines, "peer p"); len(peers) != 1 || !strings.HasSuffix(peers[0], " allowed "+c.want) {
			t.Errorf("%s: %q, want %s", c.addresses, peers, c.want)
		}
	}
}

func TestIPsecOfBothKeyings(t *testing.T) {
	f := facts("eth0")
	d := compile(t, parse(t, uplink+`
tunnels:
  - name: z
    type: ipsec
    local: {address: 198.18.0.2, port: 4502}
    addresses: [10.200.0.1/31]
    mtu: 1400
    clamp_mss: false
    strict: true
    ipsec: {keying: static, id: me, encapsulation: udp, replay_window: 64, rekey: 1h}
    peers:
      - {name: q, id: other, endpoints: ["198.51.100.8:4501"], master_key_file: /m, prefixes: [10.30.0.0/16], routes: false}
      - {name: p, endpoints: [198.51.100.7], master_key_file: /n, prefixes: [10.21.0.0/16, 10.20.0.0/16], metric: 5}
  - name: a
    type: ipsec
    local: {address: 198.18.0.2}
    ipsec: {keying: ike, charon: /c, rekey: 30m, ike_proposals: [aes256-sha256-ecp256], esp_proposals: [aes256gcm16]}
    peers: [{name: p, endpoints: [198.51.100.9], id: far@example.net, preshared_key_file: /p, prefixes: [10.40.0.0/16]}]
`), Runtime{}, f)
	var p printer
	p.path(d.Path)
	p.ipsec(d.IPsec)
	same(t, strings.Split(strings.TrimSuffix(p.out.String(), "\n"), "\n"),
		"  blackhole 10.20.0.0/16", "  blackhole 10.21.0.0/16", "  blackhole 10.30.0.0/16",
		"  tunnel a ike id 198.18.0.2 local 198.18.0.2:0 encapsulation auto window 1024 rekey 30m0s mtu 1438 mark 0x1000000 addresses charon /c ike aes256-sha256-ecp256 esp aes256gcm16",
		"    peer p id far@example.net endpoint 198.51.100.9:0 secret /p prefixes 10.40.0.0/16",
		"    route 10.40.0.0/16",
		"  tunnel z static id me local 198.18.0.2:4502 encapsulation udp window 64 rekey 1h0m0s mtu 1400 mark 0x1000000 addresses 10.200.0.1/31",
		"    peer p id 198.51.100.7 endpoint 198.51.100.7:4500 secret /n prefixes 10.20.0.0/16 10.21.0.0/16",
		"    peer q id other endpoint 198.51.100.8:4501 secret /m prefixes 10.30.0.0/16",
		"    route 10.20.0.0/16 metric 5", "    route 10.21.0.0/16 metric 5")
	if len(d.WireGuard.Tunnels) != 0 || len(d.Warnings) != 0 {
		t.Errorf("WireGuard has %+v, warnings are %q", d.WireGuard, d.Warnings)
	}
	var hooks []string
	for _, i := range d.TC.Interfaces {
		hooks = append(hooks, fmt.Sprint(i.Name, " ", i.Role, " ", i.Judge, " ", i.ClampMSS))
	}
	same(t, hooks, "a tunnel true true", "eth0 uplink false false", "z tunnel true false")
	if len(d.IPsec.Tunnels) != 2 || d.IPsec.Tunnels[0].Routes[0] != (path.Route{Prefix: netip.MustParsePrefix("10.40.0.0/16")}) {
		t.Errorf("IPsec is %+v", d.IPsec)
	}
}

func TestAPeerOfIPsecThatCannotBeReachedIsLeftOut(t *testing.T) {
	peer := `{name: p, id: far, endpoints: [far.example, old.example], %s: /m, prefixes: [10.20.0.0/16]}`
	static, ike := fmt.Sprintf(peer, "master_key_file"), fmt.Sprintf(peer, "preshared_key_file")
	at := func(a string) Runtime { return running(PeerNow{Endpoint: netip.MustParseAddrPort(a)}) }
	for _, c := range []struct {
		name, yaml string
		rt         Runtime
		peers      int
		warning    string
	}{
		{"whose name stands for nothing yet", esp("t", "static", "", static), Runtime{}, 0,
			"tunnel t: peer p is left out for now: no address is known of far.example, old.example"},
		{"whose name stands for an address", esp("t", "static", "", static), at("198.51.100.7:0"), 1, ""},
		{"of another family", esp("t", "static", "", static), at("[2001:db8::7]:0"), 0,
			"tunnel t: peer p is left out for now: its endpoint 2001:db8::7 and local address 198.18.0.2 are of different families"},
		{"in a strict prefix of its own", esp("t", "ike", ", strict: true", ike), at("10.20.0.7:0"), 0,
			"tunnel t: peer p is left out for now: its endpoint 10.20.0.7 is in strict prefix 10.20.0.0/16, so that IKE itself would be dropped"},
		{"in a strict prefix of another tunnel", esp("t", "ike", "", ike) + wg("u", 1, ", strict: true", `{name: q, public_keys: [`+keyA+`], endpoints: ["203.0.113.9:1"], prefixes: [198.51.0.0/16, 203.0.0.0/8]}`), at("203.0.113.7:0"), 0,
			"tunnel t: peer p is left out for now: its endpoint 203.0.113.7 is in strict prefix 203.0.0.0/8, so that IKE itself would be dropped"},
		{"in a strict prefix of its own, which static keys do not mind", esp("t", "static", ", strict: true", static), at("10.20.0.7:0"), 1, ""},
		{"behind another tunnel", esp("t", "static", "", static) + wg("u", 1, "", `{name: q, public_keys: [`+keyA+`], prefixes: [203.0.113.0/24]}`), at("203.0.113.7:0"), 0,
			"tunnel t: endpoint 203.0.113.7 lies inside 203.0.113.0/24, which goes through a tunnel, and is not used: take it out of that prefix, or out of DNS|" +
				"tunnel t: peer p is left out for now: no address is known of far.example, old.example"},
	} {
		t.Run(c.name, func(t *testing.T) {
			lines, warnings := crypto(t, site+c.yaml, c.rt)
			if got := begin(lines, "peer p"); len(got) != c.peers || strings.Join(warnings, "|") != c.warning {
				t.Errorf("peers %q, warnings %q", got, warnings)
			}
		})
	}
}

func TestALocalAddressOfIPsecThatIsNotHereIsWarnedOf(t *testing.T) {
	yaml := "interfaces: [{name: eth0, role: uplink}]\ntunnels:" + esp("t", "static", "", `{name: p, endpoints: [198.51.100.7], master_key_file: /m, prefixes: [10.20.0.0/16]}`)
	const want = "tunnel t: local address 198.18.0.2 is not an address of this box now: nothing reaches the tunnel until it is"
	same(t, compile(t, parse(t, yaml), Runtime{}, facts("eth0 198.18.0.6/30")).Warnings, want)
	same(t, compile(t, parse(t, yaml), Runtime{}, facts("eth0 198.18.0.2/30")).Warnings)
}

func TestALocalAddressOfWireGuardThatIsNotHereIsWarnedOf(t *testing.T) {
	local := func(a string) *config.Config {
		return parse(t, "interfaces: [{name: eth0, role: uplink}]\ntunnels: [{name: t, type: wireguard, local: {address: "+a+", port: 51820}, wireguard: {private_key_file: /k}, "+
			"peers: [{name: p, public_keys: ["+keyA+"], prefixes: [10.20.0.0/16]}]}]")
	}
	const want = "tunnel t: local address 198.18.0.2 is not an address of this box now: packets come from whatever address their route has until it is"
	same(t, compile(t, local("198.18.0.2"), Runtime{}, facts("eth0 198.18.0.6/30")).Warnings, want)
	same(t, compile(t, local("198.18.0.2"), Runtime{}, facts("eth0 198.18.0.2/30")).Warnings)
}

func TestAKeyThatOthersMayReplaceIsAnErrorOfANewFileAlone(t *testing.T) {
	cfg, f := parse(t, site+wg("t", 1, "", `{name: p, public_keys: [`+keyA+`], prefixes: [10.20.0.0/16]}`)), eth0
	f.Secrets = config.Errors{{Path: "tunnels[0].wireguard.private_key_file", Msg: "others may replace it"}}
	if _, err := Compile(cfg, Runtime{}, f); err == nil || !strings.Contains(err.Error(), "tunnels[0].wireguard.private_key_file: others may replace it") {
		t.Errorf("a new file: %v", err)
	}
	same(t, compile(t, cfg, Runtime{Accepted: true}, f).Warnings, "tunnels[0].wireguard.private_key_file: others may replace it")
}
