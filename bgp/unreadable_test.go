package bgp_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/bgp"
	"sluice/tests/nstest"
)

// GoBGP cannot read a FlowSpec rule of 240 octets or more, and the neighbor sends it in each session: its routes do not go for that.
func TestARuleThatCannotBeReadCostsNoRoutes(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	var ports []string
	for i := range 100 {
		ports = append(ports, fmt.Sprintf("= %d", 1000+2*i))
	}
	const short = "route flow4 { dst 203.0.113.0/24; dport = 53; }; "
	config := strings.Replace(torConfig(0, "198.18.0.1", "198.18.0.2", "flow4 { table ft4; import none; export all; };", "192.0.2.0/24"), "protocol bgp", `flow4 table ft4;
protocol static few { flow4 { table ft4; }; `+short+`}
protocol static many { flow4 { table ft4; }; route flow4 { dst 203.0.113.0/24; dport `+strings.Join(ports, " || ")+`; }; }
protocol bgp`, 1)
	bird := nstest.StartBird(t, s.tors[0], config)
	gw := s.gw.Child(t, fresh)
	want := gateway(1, path("203.0.113.0/24"))
	want.Learn, want.Neighbors[0].FlowSpec4 = everything(), true
	want.FlowSpec = bgp.FlowSpec{MaxRules: 10, Keep: time.Hour, AcceptFrom: addrs("198.18.0.1")}
	apply(t, gw, want)
	const left = "FlowSpec is left out: a rule of 240 octets or more, or a malformed one, ended the session; split it at the neighbor, then clear bgp tor-a"
	is := func(state, lastError string) {
		t.Helper()
		nstest.Eventually(t, 20*time.Second, func() string {
			st := status(t, gw)
			return nstest.Want("neighbor", []string{st.State, st.LastError}, []string{state, lastError})
		})
	}
	is("established", left)
	s.installs(t, "192.0.2.0/24 198.18.0.1\n")
	hears(t, bird, "203.0.113.0/24")
	since := uptime(t, bird)
	want.Neighbors[0].Keepalive = 2 * time.Second // is told to the peer that there is
	apply(t, gw, want)

	// Cleared too early it is left out again, and what changed is not forgotten.
	nstest.Must[any](t, gw, "clear", clearing{Name: "tor-a"})
	is("established", left)
	if now := uptime(t, bird); !another(now, since) {
		t.Errorf("the session is of %s still", now)
	}
	bird.Do(t, "disable many")
	nstest.Must[any](t, gw, "clear", clearing{Name: "tor-a"})
	is("established", "")
	rules := func(want ...string) {
		t.Helper()
		nstest.Eventually(t, 10*time.Second, func() string {
			return nstest.Want("rules", nstest.Must[struct{ Rules []string }](t, gw, "flowspec", nil).Rules, want)
		})
	}
	rules("tor-a: flow4 { dst 203.0.113.0/24; dport = 53; } accept")
	s.installs(t, "192.0.2.0/24 198.18.0.1\n")
	bird.Do(t, "enable many") // in a session that is up
	is("established", left)
	s.installs(t, "192.0.2.0/24 198.18.0.1\n")
	rules("tor-a: flow4 { dst 203.0.113.0/24; dport = 53; } accept (stale)")
}
