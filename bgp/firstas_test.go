package bgp_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/bgp"
	"sluice/tests/nstest"
)

// routeServer is ToR 0 with FlowSpec as a route server (RFC 7947), which does not put its AS in front. Of its routes one has its AS all the same.
func routeServer() string {
	config := flowTor(0, []string{"flow4 { dst 192.0.2.53/32; }" + toDiscard}, nil,
		"192.0.2.0/24", "198.51.100.0/24", "10.20.1.0/24", "2001:db8:200::/48")
	config = strings.ReplaceAll(config, "export where source = RTS_STATIC;", `export filter {
    if source != RTS_STATIC then reject;
    if net != 198.51.100.0/24 then bgp_path.prepend(64999);
    if net = 10.20.1.0/24 then bgp_path.prepend(65000);
    accept; };`)
	return strings.Replace(config, "hold time 9;", "hold time 9; rs client;", 1)
}

func TestAPathMustBeginWithItsNeighborsASWhereThatIsEnforced(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	nstest.StartBird(t, s.tors[0], routeServer())
	s.tor(t, 1, "", "10.20.2.0/24")
	gw := s.gw.Child(t, fresh)
	want := flowState(2)
	want.Neighbors[0].FirstAS, want.Neighbors[1].FirstAS = true, true
	apply(t, gw, want)
	enforced := func() {
		t.Helper()
		s.installs(t, "10.20.1.0/24 198.18.0.1\n10.20.2.0/24 198.18.1.1\n")
		rules(t, gw, "tor-a: flow4 { dst 192.0.2.53/32; } discard (refused: unfeasible: its AS path does not begin with 65000, its neighbor's AS (enforce_first_as))")
		counts(t, gw, "ipv4-unicast 3 1 2, ipv6-unicast 1 0 1, ipv4-unicast 1 1 0, ipv6-unicast 0 0 0, ")
	}
	enforced()
	var told []string
	for _, e := range nstest.Must[[]bgp.RIBEntry](t, gw, "table", [2]string{"tor-a", "received"}) {
		told = append(told, e.Prefix.String()+" "+e.Refused)
	}
	if d := nstest.Want("received", strings.Join(told, "\n"), `10.20.1.0/24 
192.0.2.0/24 first AS 64999, want 65000 (enforce_first_as)
198.51.100.0/24 no AS in the path, want 65000 (enforce_first_as)
2001:db8:200::/48 first AS 64999, want 65000 (enforce_first_as)`); d != "" {
		t.Error(d)
	}

	want.Neighbors[0].FirstAS = false
	if got := strings.Join(apply(t, gw, want), ", "); got != "change neighbor tor-a (198.18.0.1): paths begin with any AS" {
		t.Errorf("steps: %s", got)
	}
	s.installs(t, "10.20.1.0/24 198.18.0.1\n10.20.2.0/24 198.18.1.1\n192.0.2.0/24 198.18.0.1\n198.51.100.0/24 198.18.0.1\n2001:db8:200::/48 2001:db8:1::1\n")
	rules(t, gw, "tor-a: flow4 { dst 192.0.2.53/32; } discard")
	counts(t, gw, "ipv4-unicast 3 3 0, ipv6-unicast 1 1 0, ipv4-unicast 1 1 0, ipv6-unicast 0 0 0, ")

	want.Neighbors[0].FirstAS = true
	apply(t, gw, want)
	enforced()
	if got := nstest.Must[string](t, gw, "all events", nil); strings.Contains(got, "down") {
		t.Errorf("a session was reset: %s", got)
	}
}

// counts waits for what is received, accepted and refused for its first AS, of unicast families. The last count rests for a hundred times
// the time that it took: after one during which the machine stood still that is minutes.
func counts(t *testing.T, c *nstest.Child, want string) {
	t.Helper()
	nstest.Eventually(t, 6*time.Minute, func() string {
		got := ""
		for _, n := range nstest.Must[[]bgp.NeighborStatus](t, c, "status", nil) {
			for _, f := range n.Families[:2] {
				got += fmt.Sprint(f.Family, " ", f.Received, " ", f.Accepted, " ", f.OtherFirstAS, ", ")
			}
		}
		return nstest.Want("counts", got, want)
	})
}
