package engine

import (
	"slices"
	"testing"
)

// Planning looks at all five subsystems; behind the steps, verifying looks at those that may be otherwise than planned.
func TestOnlyWhatStepsMayHaveTouchedIsVerified(t *testing.T) {
	all := []string{"host", "wireguard", "tc", "xdp", "bgp"}
	for _, c := range []struct {
		what, to string
		verified []string
	}{
		{"a step that is contained", "wireguard.own=2\nxdp.own=1\nhost.a=1", []string{"wireguard"}},
		{"two in two subsystems", "wireguard.own=2\nxdp.own=2\nhost.a=1", []string{"wireguard", "xdp"}},
		{"one that is not", "wireguard.own=2\nxdp.own=1\nhost.a=2", all},
		{"no step at all", "wireguard.own=1\nxdp.own=1\nhost.a=1\n# other words", nil},
	} {
		s, e := running(t, "wireguard.own=1\nxdp.own=1\nhost.a=1")
		s.m.looked = nil
		s.apply(e, c.to, ApplyOptions{})
		if got, want := slices.Sorted(slices.Values(s.m.looked)), slices.Sorted(slices.Values(slices.Concat(all, c.verified))); !slices.Equal(got, want) {
			t.Errorf("%s: %q was observed, want %q", c.what, got, want)
		}
		s.condition(e, ConditionInSync, True)
	}
}

func TestAContainedStepThatDidNotWorkIsReported(t *testing.T) {
	s, e := running(t, "wireguard.own=1")
	s.m.after = func(sub string, _ fakeOp) error {
		s.m.state[sub]["own"] = "0"
		return nil
	}
	s.apply(e, "wireguard.own=2", ApplyOptions{})
	if c := s.condition(e, ConditionInSync, False); c.Message != "wireguard: 1 step left, the first: change own=2" {
		t.Errorf("condition %+v", c)
	}
}

// What an earlier apply left otherwise is seen by the plan of the next, and repaired with it.
func TestDriftOfAnotherSubsystemIsPlannedBesideAContainedStep(t *testing.T) {
	s, e := running(t, "wireguard.own=1\nhost.a=1")
	s.m.state["host"]["a"] = "foreign"
	s.apply(e, "wireguard.own=2\nhost.a=1", ApplyOptions{})
	s.holds("wireguard.own=2\nhost.a=1")
	s.condition(e, ConditionInSync, True)
}
