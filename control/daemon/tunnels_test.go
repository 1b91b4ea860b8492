package daemon

import (
	"fmt"
	"strings"
	"testing"

	"sluice/control/engine"
	"sluice/control/tunnel"
	"sluice/tests/nstest"
)

func TestTheConditionOfTunnelsNamesAFewOfManyProblems(t *testing.T) {
	d := idle(t)
	condition := func() (c engine.Condition, any bool) {
		for _, c := range d.engine.Status().Conditions {
			if c.Type == engine.ConditionTunnels {
				return c, true
			}
		}
		return engine.Condition{}, false
	}
	var many []tunnel.Problem
	for i := range 9 {
		many = append(many, tunnel.Problem{Tunnel: "hub", Peer: fmt.Sprintf("p%d", i), Kind: tunnel.NameLost, Text: "is silent"})
	}
	down := tunnel.Problem{Tunnel: "hub", Peer: "p0", Kind: tunnel.PeerDown, Text: "its probes are lost"}
	lost := tunnel.Problem{Tunnel: "hub", Peer: "p0", Kind: tunnel.NameLost, Text: "hub.example does not resolve"}
	for _, c := range []struct {
		name     string
		problems []tunnel.Problem
		status   engine.ConditionValue
		reason   string
		message  string
	}{
		{"one", many[:1], engine.True, "Unresolved", "1 peer is in trouble: tunnel hub to p0: is silent"},
		{"a name alone", []tunnel.Problem{lost}, engine.True, "Unresolved", "1 peer is in trouble: tunnel hub to p0: hub.example does not resolve"},
		{"two of one peer", []tunnel.Problem{lost, down, many[1]}, engine.True, "Unanswered",
			"2 peers are in trouble: tunnel hub to p0: hub.example does not resolve, and its probes are lost; tunnel hub to p1: is silent"},
		{"many", many, engine.True, "Unresolved", "9 peers are in trouble: tunnel hub to p0: is silent; tunnel hub to p1: is silent; tunnel hub to p2: is silent; " +
			"tunnel hub to p3: is silent; tunnel hub to p4: is silent; and 4 more (sluice show tunnels)"},
		{"none any more", []tunnel.Problem{}, engine.False, "NoneDown", ""},
	} {
		d.reportTunnels(c.problems)
		if got, any := condition(); !any || got.Status != c.status || got.Reason != c.reason || got.Message != c.message {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
	d.reportTunnels(nil)
	if got, any := condition(); any {
		t.Errorf("without tunnels: %+v", got)
	}
}

// TestRoutesOfAnEarlierSpeakerGoOnceADegradedStartHasHealed: they stay as long as nobody knows what should be there.
func TestRoutesOfAnEarlierSpeakerGoOnceADegradedStartHasHealed(t *testing.T) {
	inNamespace(t)
	d := idle(t)
	nstest.IP(t, "route add 203.0.113.0/24 via 198.18.0.1 proto 186")
	left := func() bool { return strings.Contains(nstest.IP(t, "route show"), "203.0.113.0/24") }
	d.engineNotice(engine.Notice{Kind: engine.NoticeHealthy})
	if !left() {
		t.Error("a start that was good has looked after them already: what is there since is somebody's")
	}
	d.unadopted.Store(true)
	d.engineNotice(engine.Notice{Kind: engine.NoticeDegraded})
	if !left() {
		t.Error("they are gone before it has healed")
	}
	d.engineNotice(engine.Notice{Kind: engine.NoticeHealthy})
	if left() || d.unadopted.Load() {
		t.Error("they are left after it has healed")
	}
}
