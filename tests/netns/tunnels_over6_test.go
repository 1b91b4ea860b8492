package netns

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"sluice/control/api"
)

// fra1 goes over to an IPv6 underlay while it is up, and carries both families there. Its backup stays on IPv4.
func TestATunnelOverIPv6CarriesBothFamiliesAndFailsOver(t *testing.T) {
	t.Parallel()
	const endpoint, inner6, pattern = "[2001:db8:0:1::2]:51820", "fd00:20::1", "sluicesluicesluice"
	s := newTunnels(t, nil)
	text, err := os.ReadFile(s.Peer.File)
	if err != nil {
		t.Fatal(err)
	}
	peer := edited(t, string(text), "[10.20.0.1/32]", `[10.20.0.1/32, "fd00:20::1/128"]`, "{address: 198.18.0.6, port: 51820}", `{address: "2001:db8:0:1::2", port: 51820}`,
		"198.18.0.2:51820", "[2001:db8::2]:51820", "prefixes: [203.0.113.0/24]\n        metric: 100", "prefixes: [203.0.113.0/24, \"2001:db8:100::/48\"]\n        metric: 100")
	if err := os.WriteFile(s.Peer.File, []byte(peer), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := s.in(s.Peer.Namespace, binary(), "apply", "-c", s.Peer.File, "--socket", s.Peer.Socket); r.code != 0 {
		t.Fatalf("the peer's apply: %+v", r)
	}
	s.edit("addresses: [203.0.113.10]", `addresses: [203.0.113.10, "2001:db8:100::10"]`, "{address: 198.18.0.2, port: 51820}", `{address: "2001:db8::2", port: 51820}`,
		"198.18.0.6:51820", endpoint, "prefixes: [10.20.0.0/16]\n        metric: 100", "prefixes: [10.20.0.0/16, \"fd00:20::/48\"]\n        metric: 100")
	s.apply()
	eventually(t, func() error {
		tun := show[api.Tunnels](s, "tunnels").Tunnels[0]
		if p := tun.Peers[0]; p.State != api.PeerUp || p.Endpoint != endpoint || p.Routes != api.RoutesInstalled || tun.MTU != 1420 || tun.Underlay != 1500 {
			return fmt.Errorf("the tunnel is %+v", tun)
		}
		return nil
	})
	s.routeIs("fra1")

	marked := func(what func()) int {
		t.Helper()
		wire, err := s.ToR.StartCapture("gateway", pattern)
		if err != nil {
			t.Fatal(err)
		}
		what()
		seen, err := wire.Stop()
		if err != nil || seen.Missed != 0 || seen.Frames == 0 {
			t.Fatalf("the capture has %+v, %v", seen, err)
		}
		return seen.Markers[0]
	}
	ping := func(to string) func() error {
		return func() error {
			if r := s.in(s.Workload(1), "ping", "-n", "-c3", "-i0.1", "-W2", "-p", fmt.Sprintf("%x", pattern[:6]), to); r.code != 0 {
				return fmt.Errorf("%s: %s%s", to, r.out, r.err)
			}
			return nil
		}
	}
	if n := marked(func() { eventually(t, ping(innerHost)); eventually(t, ping(inner6)) }); n != 0 {
		t.Errorf("%d frames in clear", n)
	}
	if n := marked(func() { eventually(t, ping("198.51.100.10")) }); n == 0 {
		t.Error("the capture does not see what is sent in clear")
	}
	s.nothingToDo()

	e := s.startEchoes(s.Workload(1), innerHost)
	e.more(50)
	s.must(s.ToR, "ip6tables -I FORWARD -p udp --dport 51820 -j DROP")
	s.routeIs("fra2")
	e.more(50)
	if out := s.must(s.Gateway.Namespace, "ip -6 route show fd00:20::/48"); strings.Contains(out, "fra1") || !strings.Contains(out, "blackhole") {
		t.Errorf("routes while fra1 is down:\n%s", out)
	}
	s.must(s.ToR, "ip6tables -D FORWARD -p udp --dport 51820 -j DROP")
	s.routeIs("fra1")
	eventually(t, ping(inner6))
	if gaps := e.loses(1, "while fra1 was cut"); gaps[0] > lostAtMost {
		t.Errorf("lost while fra1 was cut: %v", gaps)
	}
}
