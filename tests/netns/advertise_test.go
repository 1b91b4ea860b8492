package netns

import "testing"

// An aggregate hides what is in it, as long as there is anything, and what was hidden comes back when it goes; one that hides nothing stands beside.
func TestAnAggregateHidesWhatIsInItAsLongAsItStands(t *testing.T) {
	t.Parallel()
	s := newGateway(t)
	sessions := s.sessions()
	const before = `    - {prefixes: [203.0.113.0/24, "2001:db8:100::/48"], communities: ["65010:100"]}` + "\n"
	const hides = `    - {aggregate: 203.0.113.0/24, summary_only: true, communities: ["65010:7"]}` + "\n"
	const beside = `    - {aggregate: "2001:db8:100::/48"}` + "\n"
	const specifics = "    - {workloads: true}\n"
	has := func(want ...string) {
		t.Helper()
		eventually(t, func() error { return s.bird.has(want...) })
	}
	s.edit(before, hides+beside)
	s.apply()
	has("203.0.113.0/24", "2001:db8:100::/48", "2001:db8:100::10/128", "2001:db8:100::11/128")
	eventually(t, func() error { return s.bird.shows("203.0.113.0/24", "(65010,7)") })

	s.edit(hides, "")
	s.apply()
	has("203.0.113.10/32", "203.0.113.11/32", "2001:db8:100::/48", "2001:db8:100::10/128", "2001:db8:100::11/128")
	s.edit(beside, hides+beside)
	s.apply()
	has("203.0.113.0/24", "2001:db8:100::/48", "2001:db8:100::10/128", "2001:db8:100::11/128")

	// One of two is enough for it, and without any it is nothing.
	s.must(s.Gateway.Namespace, "ip link set web-2 name away-2")
	has("203.0.113.0/24", "2001:db8:100::/48", "2001:db8:100::10/128")
	s.must(s.Gateway.Namespace, "ip link set web-1 name away-1")
	has()
	s.must(s.Gateway.Namespace, "ip link set away-1 name web-1")
	has("203.0.113.0/24", "2001:db8:100::/48", "2001:db8:100::10/128")
	s.edit(specifics, "")
	s.apply()
	has()
	if now := s.sessions(); now != sessions {
		t.Errorf("the sessions did not stay up: they came up %d times, %d before", now, sessions)
	}
}

// The prefixes of a tunnel's peer are announced while it is not down.
func TestTheToRHearsOfATunnelsPrefixesWhileTheirPeerAnswers(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	p := &pathSite{site: s}
	p.openPeer(nil)
	s.write(edited(t, gatewayFile, "    - {workloads: true}\n", "    - {tunnels: true}\n", "\ntelemetry:", edited(t, p.tunnelSection(),
		"    strict: true\n", "    strict: true\n    health: {probe: 10.200.0.0, interval: 200ms, down_after: 3, up_after: 1}\n")+"\ntelemetry:"))
	s.start()
	announced := func(with ...string) {
		t.Helper()
		eventually(t, func() error { return s.bird.has(append(with, "203.0.113.0/24", "2001:db8:100::/48")...) })
	}
	announced("10.20.0.0/16", "fd00:20::/64")
	s.cut(directEndpoint, true)
	announced()
	s.cut(directEndpoint, false)
	announced("10.20.0.0/16", "fd00:20::/64")
}
