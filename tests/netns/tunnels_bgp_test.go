package netns

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"sluice/control/api"
)

const bgpOverTunnel = `dns: [198.51.100.54]}

bgp:
  asn: 65010
  router_id: 198.18.0.2
  neighbors: [{name: peer, address: 10.200.0.0, asn: 65020, hold_time: 9s}]
  advertise: [{prefixes: [203.0.113.0/24]}]
  learn: {accept: [{prefix: 10.0.0.0/8, le: 32}, {prefix: 198.18.0.0/15, le: 32}, {prefix: 0.0.0.0/0}]}
`

// Beside what is behind it the peer announces two prefixes that hold its endpoint, and that the gateway has nothing better for.
const bgpOfPeer = `
bgp:
  asn: 65020
  router_id: 198.18.0.6
  neighbors: [{name: gateway, address: 10.200.0.1, asn: 65010, hold_time: 9s}]
  advertise: [{prefixes: [10.30.0.0/16, 198.18.0.0/29, 0.0.0.0/0]}]
`

// The tunnel is a strict one, and what is learned lies in its prefixes.
func TestWhatBGPLearnsOverATunnelGoesThroughItAndNeverCatchesItsPackets(t *testing.T) {
	t.Parallel()
	s := newTunnels(t, []string{"dns: [198.51.100.54]}", bgpOverTunnel,
		"prefixes: [10.20.0.0/16]\n        metric: 100", "prefixes: [10.20.0.0/16, 10.30.0.0/16]\n        metric: 100"})
	text, err := os.ReadFile(s.Peer.File)
	if err != nil {
		t.Fatal(err)
	}
	peer := edited(t, string(text), "addresses: [10.20.0.1/32]", "addresses: [10.20.0.1/32, 10.30.0.1/32]") + bgpOfPeer
	if err := os.WriteFile(s.Peer.File, []byte(peer), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := s.in(s.Peer.Namespace, binary(), "apply", "-c", s.Peer.File, "--socket", s.Peer.Socket); r.code != 0 {
		t.Fatalf("the peer's apply: %+v", r)
	}
	const behind = "10.30.0.0/16 via 10.200.0.0 dev fra1\n"
	eventually(t, func() error { return s.learned(behind) })
	e := s.startEchoes(s.Workload(1), "10.30.0.1")
	e.more(600) // longer than the hold time
	e.loses(0, "while the peer announces a way to itself")
	if err := s.learned(behind); err != nil {
		t.Error(err)
	}
	log, err := os.ReadFile(s.Gateway.Daemon().Log)
	if err != nil {
		t.Fatal(err)
	}
	for _, prefix := range []string{"prefix=198.18.0.0/29", "prefix=0.0.0.0/0"} {
		if !strings.Contains(string(log), prefix) || !strings.Contains(string(log), "198.18.0.6, the endpoint of one") {
			t.Errorf("the log does not say why %s is not installed", prefix)
		}
	}

	s.cut(directEndpoint, true)
	eventually(t, func() error { return s.learned("") })
	s.cut(directEndpoint, false)
	eventually(t, func() error {
		if p := s.peerOf("fra1"); p.State != api.PeerUp {
			return fmt.Errorf("the peer is %+v", p)
		}
		return s.learned(behind)
	})
	e.more(50)
}
