package bgp_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"sluice/tests/nstest"
)

// startExaBGP starts ExaBGP as ToR 0 with a session over IPv4 that announces flow routes, in ExaBGP's own words.
func startExaBGP(t *testing.T, ns *nstest.NS, routes string) {
	t.Helper()
	config := filepath.Join(t.TempDir(), "exabgp.conf")
	text := `neighbor 198.18.0.2 {
  router-id 198.18.0.1; local-address 198.18.0.1; local-as 65000; peer-as 65010; hold-time 9;
  family { ipv4 flow; ipv6 flow; }
  flow { ` + routes + ` }
}`
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	said := &bytes.Buffer{}
	cmd := exec.Command("/usr/sbin/exabgp", config)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "exabgp.daemon.user=root", "exabgp.daemon.drop=false", "exabgp.api.cli=false",
		"exabgp.api.ack=false", "exabgp.log.destination=stderr", "PYTHONDONTWRITEBYTECODE=1"}
	cmd.Stderr, cmd.Stdout = said, said
	t.Cleanup(func() { // after the kill, so that nobody writes the buffer any more
		if t.Failed() {
			t.Logf("ExaBGP said:\n%s", said)
		}
	})
	ns.Start(t, cmd)
}

// ExaBGP 4.2.21 sends whole addresses where a prefix has an offset, as drafts of RFC 8956 had it. What such a rule means
// cannot be told, so it is refused.
func TestEveryComponentArrivesFromExaBGP(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	startExaBGP(t, s.tors[0], `
    route a { match { destination 203.0.113.53/32; source 198.51.100.0/24; protocol [ =tcp =udp ]; port [ =80 >8080&<8088 ];
                      destination-port [ =443 ]; source-port [ >1024 ]; } then { rate-limit 9600; } }
    route b { match { protocol =icmp; icmp-type [ =echo-request ]; icmp-code [ =3 ]; } then { discard; } }
    route c { match { tcp-flags [ syn&!ack =rst ]; packet-length [ >200&<300 >400&<500 ]; dscp [ =10 ];
                      fragment [ is-fragment !first-fragment ]; } then { redirect 65000:100; } }
    route d { match { destination 203.0.113.1/32; } then { action sample-terminal; } }
    route e { match { destination 2001:db8:53::/48; source fd00::/16; next-header =udp; flow-label [ =70000 ]; } then { mark 46; } }
    route f { match { source ::1/128/120; } then { discard; } }`)
	gw := s.gw.Child(t, fresh)
	apply(t, gw, flowState(1))
	rules(t, gw,
		"tor-a: flow4 { dst 203.0.113.1/32; } sample, go on",
		"tor-a: flow4 { dst 203.0.113.53/32; src 198.51.100.0/24; proto = 6 || = 17; port = 80 || > 8080 && < 8088; dport = 443; sport > 1024; } rate 9600 bytes/s",
		"tor-a: flow4 { proto = 1; icmp type = 8; icmp code = 3; } discard",
		"tor-a: flow4 { tcp flags syn && !ack || =rst; length > 200 && < 300 || > 400 && < 500; dscp = 10; fragment is-fragment || !first-fragment; } redirect 65000:100",
		"tor-a: flow6 { dst 2001:db8:53::/48; src fd00::/16; proto = 17; label = 70000; } mark dscp 46",
		"tor-a: flow6 { 02807800000000000000000000000000000001 } discard (refused: GoBGP reads a prefix with an offset (RFC 8956) as longer than it is, "+
			"and what follows cannot be told)")
}
