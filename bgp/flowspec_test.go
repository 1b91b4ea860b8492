package bgp_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/bgp"
	"sluice/tests/nstest"
)

// flowState is a gateway with one session per ToR that carries FlowSpec, all of them trusted.
func flowState(tors int) bgp.State {
	s := gateway(tors)
	s.Learn = everything() // what is not believed makes no rule valid
	s.FlowSpec = bgp.FlowSpec{MaxRules: 100, Keep: time.Minute}
	for i := range s.Neighbors {
		s.Neighbors[i].FlowSpec4, s.Neighbors[i].FlowSpec6 = true, true
		s.FlowSpec.AcceptFrom = append(s.FlowSpec.AcceptFrom, s.Neighbors[i].Address)
	}
	return s
}

// flowTor is torConfig with both FlowSpec families, and rules with their attributes to announce.
func flowTor(i int, rules4, rules6 []string, static ...string) string {
	local, remote := fmt.Sprintf("198.18.%d.1", i), fmt.Sprintf("198.18.%d.2", i)
	config, channels := "", ""
	for family, rules := range map[int][]string{4: rules4, 6: rules6} {
		channels += fmt.Sprintf("flow%d { table ft%d; import all; export all; };\n", family, family)
		config += fmt.Sprintf("flow%d table ft%d;\nprotocol static flows%d { flow%d { table ft%d; };\n", family, family, family, family, family)
		for _, r := range rules {
			config += "  route " + r + ";\n"
		}
		config += "}\n"
	}
	return config + torConfig(i, local, remote, channels, static...)
}

// rules waits until the speaker has these, one a line, in this order.
func rules(t *testing.T, c *nstest.Child, want ...string) {
	t.Helper()
	nstest.Eventually(t, 20*time.Second, func() string {
		got := nstest.Must[struct{ Rules []string }](t, c, "flowspec", nil).Rules
		return nstest.Want("rules", strings.Join(got, "\n"), strings.Join(want, "\n"))
	})
}

// toDiscard are BIRD's words for the action, which has no name in BIRD 2.0.
const toDiscard = " { bgp_ext_community.add((generic, 0x80060000, 0x0)); }"

// BIRD 2.0.12 sends two octets of a flow label.
func TestEveryComponentArrivesFromBIRD(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	bird := nstest.StartBird(t, s.tors[0], flowTor(0, []string{
		"flow4 { dst 203.0.113.53/32; src 198.51.100.0/24; proto = 17; dport = 53; }" + toDiscard,
		"flow4 { proto 1; icmp type 8; icmp code 0; }",
		"flow4 { dst 203.0.113.0/24; port > 1023 && < 2048 || 8080; }",
		"flow4 { sport != 123; length 1000..1500; dscp 46; }",
		"flow4 { tcp flags 0x02/0x12; }",
		"flow4 { fragment is_fragment || first_fragment; }",
	}, []string{
		"flow6 { dst 2001:db8:53::/48; next header 6; label 7000; }" + toDiscard,
		"flow6 { src ::1:0:0:0/80 offset 64; }",
	}))
	gw := s.gw.Child(t, fresh)
	apply(t, gw, flowState(1))
	to := "tor-a: flow4 { dst 203.0.113.53/32; src 198.51.100.0/24; proto = 17; dport = 53; } discard"
	rest := []string{
		"tor-a: flow4 { dst 203.0.113.0/24; port > 1023 && < 2048 || = 8080; } accept",
		"tor-a: flow4 { proto = 1; icmp type = 8; icmp code = 0; } accept",
		"tor-a: flow4 { sport != 123; length >= 1000 && <= 1500; dscp = 46; } accept",
		"tor-a: flow4 { tcp flags =syn && !ack; } accept",
		"tor-a: flow4 { fragment =is-fragment || =first-fragment; } accept",
		"tor-a: flow6 { dst 2001:db8:53::/48; proto = 6; label = 7000; } discard",
		"tor-a: flow6 { src ::1:0:0:0/80 offset 64; } accept",
	}
	rules(t, gw, append([]string{to}, rest...)...)

	bird.Configure(t, flowTor(0, []string{"flow4 { dst 203.0.113.53/32; src 198.51.100.0/24; proto = 17; dport = 53; }"}, nil))
	rules(t, gw, strings.Replace(to, "discard", "accept", 1)) // changed, and all others withdrawn
	said(t, gw, "up tor-a")                                   // once, and it stays
}

func TestRulesAreNeverPassedOn(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	from := nstest.StartBird(t, s.tors[0], flowTor(0, []string{"flow4 { dst 203.0.113.53/32; }" + toDiscard}, []string{"flow6 { dst 2001:db8:53::/48; }"}))
	to := nstest.StartBird(t, s.tors[1], flowTor(1, nil, nil))
	gw := s.gw.Child(t, fresh)
	want := flowState(2)
	want.Paths = []bgp.Path{path("203.0.113.0/24")}
	apply(t, gw, want)
	rules(t, gw, "tor-a: flow4 { dst 203.0.113.53/32; } discard", "tor-a: flow6 { dst 2001:db8:53::/48; } accept")
	hears(t, to, "203.0.113.0/24") // so it has all that came before, and no rule among it
	// A path that is announced after the rules comes after them as well.
	want.Paths = append(want.Paths, path("203.0.113.9/32"))
	apply(t, gw, want)
	hears(t, to, "203.0.113.0/24", "203.0.113.9/32")
	for _, b := range []*nstest.Bird{from, to} {
		if got := b.Do(t, "show route table ft4 protocol sluice") + b.Do(t, "show route table ft6 protocol sluice"); strings.Contains(got, "flow") {
			t.Errorf("a neighbor heard of rules:\n%s", got)
		}
	}
}

func TestOnlyTrustedNeighborsNeedNoRoute(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	config := flowTor(0, []string{"flow4 { dst 192.0.2.53/32; }" + toDiscard, "flow4 { proto 17; }"}, nil, "192.0.2.0/24")
	bird := nstest.StartBird(t, s.tors[0], config)
	gw := s.gw.Child(t, fresh)
	want := flowState(1)
	trust := want.FlowSpec.AcceptFrom
	want.FlowSpec.AcceptFrom = nil
	apply(t, gw, want)
	const valid, everywhere = "tor-a: flow4 { dst 192.0.2.53/32; } discard", "tor-a: flow4 { proto = 17; } accept"
	const noDestination = " (refused: unfeasible: it has no destination prefix)"
	rules(t, gw, valid, everywhere+noDestination)
	bird.Do(t, "disable static4")
	rules(t, gw, valid+" (refused: unfeasible: no unicast route covers 192.0.2.53/32)", everywhere+noDestination)
	bird.Do(t, "enable static4")
	rules(t, gw, valid, everywhere+noDestination)
	want.FlowSpec.AcceptFrom = trust
	if got := strings.Join(apply(t, gw, want), ", "); got != "trust 1 neighbor with FlowSpec, at most 100 rules, kept for 1m0s" {
		t.Errorf("steps: %s", got)
	}
	rules(t, gw, valid, everywhere)
}

func TestTooManyRulesAreRefusedByName(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	const a, b = "flow4 { dst 203.0.113.1/32; }", "flow4 { dst 203.0.113.2/32; }"
	bird := nstest.StartBird(t, s.tors[0], flowTor(0, []string{a}, nil))
	gw := s.gw.Child(t, fresh)
	want := flowState(1)
	want.FlowSpec.MaxRules = 1
	apply(t, gw, want)
	rules(t, gw, "tor-a: "+a+" accept")
	bird.Configure(t, flowTor(0, []string{a, b}, nil))
	rules(t, gw, "tor-a: "+a+" accept", "tor-a: "+b+" accept (refused: 1 rule is accepted already (max_rules))")
	if got := nstest.Must[struct{ Refused int }](t, gw, "flowspec", nil).Refused; got != 1 {
		t.Errorf("%d refusals were counted, want 1", got)
	}
	bird.Configure(t, flowTor(0, []string{b}, nil))
	rules(t, gw, "tor-a: "+b+" accept")
	said(t, gw, "up tor-a") // once, and it stays
}

// Twice as many as count are remembered: the others are still announced, and count as soon as there is room.
func TestARuleThatThereWasNoRoomForIsNotForgotten(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	all := []string{"flow4 { dst 203.0.113.1/32; }", "flow4 { dst 203.0.113.2/32; }", "flow4 { dst 203.0.113.3/32; }"}
	bird := nstest.StartBird(t, s.tors[0], flowTor(0, all, nil))
	gw := s.gw.Child(t, fresh)
	want := flowState(1)
	want.FlowSpec.MaxRules = 1
	apply(t, gw, want)
	for _, one := range all {
		bird.Configure(t, flowTor(0, all, nil))
		nstest.Eventually(t, 20*time.Second, func() string {
			got := nstest.Must[struct{ Rules []string }](t, gw, "flowspec", nil).Rules
			return nstest.Want("rules", []int{len(got), strings.Count(fmt.Sprint(got), "refused")}, []int{2, 1})
		})
		bird.Configure(t, flowTor(0, []string{one}, nil))
		rules(t, gw, "tor-a: "+one+" accept")
	}
	said(t, gw, "up tor-a")

	// So it is with a higher limit.
	bird.Configure(t, flowTor(0, all, nil))
	want.FlowSpec.MaxRules = 3
	apply(t, gw, want)
	rules(t, gw, "tor-a: "+all[0]+" accept", "tor-a: "+all[1]+" accept", "tor-a: "+all[2]+" accept")
}

func TestRulesStayWhileTheirNeighborIsAwayButNotForever(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	const a, b = "flow4 { dst 203.0.113.1/32; }", "flow4 { dst 203.0.113.2/32; }"
	bird := nstest.StartBird(t, s.tors[0], flowTor(0, []string{a, b}, nil))
	gw := s.gw.Child(t, fresh)
	want := flowState(1)
	apply(t, gw, want)
	rules(t, gw, "tor-a: "+a+" accept", "tor-a: "+b+" accept")
	bird.Kill()
	rules(t, gw, "tor-a: "+a+" accept (stale)", "tor-a: "+b+" accept (stale)")
	// It comes back with one of them: End-of-RIB takes the other.
	bird = nstest.StartBird(t, s.tors[0], flowTor(0, []string{b}, nil))
	rules(t, gw, "tor-a: "+b+" accept")
	bird.Kill()
	rules(t, gw, "tor-a: "+b+" accept (stale)")
	want.FlowSpec.Keep = time.Second
	apply(t, gw, want)
	rules(t, gw)
}

func TestANeighborThatIsRemovedTakesItsRules(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	const a, b = "flow4 { dst 203.0.113.1/32; }", "flow6 { dst 2001:db8:53::/48; }"
	nstest.StartBird(t, s.tors[0], flowTor(0, []string{a}, []string{b}))
	gw := s.gw.Child(t, fresh)
	want := flowState(1)
	apply(t, gw, want)
	rules(t, gw, "tor-a: "+a+" accept", "tor-a: "+b+" accept")
	want.Neighbors[0].FlowSpec6 = false // a new session
	if got := strings.Join(apply(t, gw, want), ", "); got != "reset neighbor tor-a (198.18.0.1 as 65000)" {
		t.Errorf("steps: %s", got)
	}
	rules(t, gw, "tor-a: "+a+" accept")
	established(t, gw, "tor-a")
	want.Neighbors = nil
	apply(t, gw, want)
	rules(t, gw)
}

// Whoever is under attack and changes the router's id keeps what protects him, also where the neighbor is away.
func TestAnotherIdentityLeavesTheRules(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	const a, b, c = "flow4 { dst 203.0.113.1/32; }", "flow6 { dst 2001:db8:53::/48; }", "flow4 { dst 203.0.113.2/32; }"
	bird := nstest.StartBird(t, s.tors[0], flowTor(0, []string{a}, []string{b}))
	nstest.StartBird(t, s.tors[1], flowTor(1, []string{c}, nil))
	gw := s.gw.Child(t, fresh)
	want := flowState(2)
	apply(t, gw, want)
	rules(t, gw, "tor-a: "+a+" accept", "tor-b: "+c+" accept", "tor-a: "+b+" accept")
	bird.Kill()
	rules(t, gw, "tor-a: "+a+" accept (stale)", "tor-b: "+c+" accept", "tor-a: "+b+" accept (stale)")
	want.RouterID = addr("198.18.0.22")
	if steps := apply(t, gw, want); steps[0] != "start bgp speaker as 65010 id 198.18.0.22 port 179: all sessions are reset" {
		t.Errorf("steps %q", steps)
	}
	rules(t, gw, "tor-a: "+a+" accept (stale)", "tor-b: "+c+" accept", "tor-a: "+b+" accept (stale)")
	// What the neighbors have none of any more goes with the same step.
	want.RouterID, want.Neighbors[0].FlowSpec6, want.Neighbors = addr("198.18.0.2"), false, want.Neighbors[:1]
	apply(t, gw, want)
	rules(t, gw, "tor-a: "+a+" accept (stale)")
	nstest.StartBird(t, s.tors[0], flowTor(0, []string{a}, nil))
	rules(t, gw, "tor-a: "+a+" accept")
}
