package progruntc_test

import (
	"net/netip"
	"testing"

	"sluice/xdp"
	"sluice/xdp/abi"
)

// TestBansHoldWhereTcJudgesIngressPolicy: on tunnels, and on uplinks that XDP does not guard.
func TestBansHoldWhereTcJudgesIngressPolicy(t *testing.T) {
	s := newSite(t, judged)
	bans, err := xdp.OpenBans(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { bans.Close() })
	g := s.live(t)
	try := func(steps ...step) {
		t.Helper()
		for _, st := range steps {
			s.try(t, g, st)
		}
	}
	web := step{at: "uplink ingress", line: "tcp 198.51.100.7:9999 > 10.0.1.10:80", reason: abi.ReasonDelivered, to: "wl1"}
	web6 := step{at: "uplink ingress", line: "tcp [2001:db8:7::7]:9999 > [fd00:1::10]:80", reason: abi.ReasonDelivered, to: "wl1"}
	answer := step{at: "uplink ingress", line: "udp 198.51.100.7:53 > 10.0.1.10:4000", reason: abi.ReasonDelivered, to: "wl1"}
	try(web, web6, step{at: "wl1 ingress", line: "udp 10.0.1.10:4000 > 198.51.100.7:53", reason: abi.ReasonForwarded, to: "uplink"}, answer)
	banned := func(st step) step {
		st.reason, st.to = abi.ReasonBanned, ""
		return st
	}
	for _, p := range []string{"198.51.100.7/32", "198.18.0.0/30", "2001:db8:7::/48", "10.20.0.0/16"} {
		if err := bans.Set(netip.MustParsePrefix(p), 0); err != nil {
			t.Fatal(err)
		}
	}
	try(banned(web), banned(web6), banned(answer),
		banned(step{at: "tap0 ingress", line: "tcp 10.20.0.9:9999 > 10.0.1.10:80"}),
		step{at: "uplink ingress", line: "tcp 198.51.100.7:9999 > 198.18.0.2:22", reason: abi.ReasonLocal},
		step{at: "uplink ingress", line: "tcp 198.18.0.1:9999 > 198.18.0.2:179", reason: abi.ReasonLocal},
		// What is sent to a banned source is not the ban's matter: its own policy judges it.
		step{at: "wl1 ingress", line: "udp 10.0.1.10:4001 > 198.51.100.7:53", reason: abi.ReasonForwarded, to: "uplink"},
	)
	hits, err := bans.Hits(netip.MustParsePrefix("198.51.100.7/32"))
	if err != nil || hits.Packets != 2 {
		t.Errorf("the ban counts %+v (%v), want the client's two packets", hits, err)
	}
	if err := bans.Remove(netip.MustParsePrefix("198.51.100.7/32")); err != nil {
		t.Fatal(err)
	}
	try(web)
}
