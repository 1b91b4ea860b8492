package daemon

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/bgp"
	"sluice/bgp/flowspec"
	"sluice/control/engine"
)

// TestWhatBecomesOfFiltersIsToldInAWord: every pair of what a filter was and what it is.
func TestWhatBecomesOfFiltersIsToldInAWord(t *testing.T) {
	down := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	discard := []flowspec.Action{{Kind: flowspec.RateBytes}}
	valid := filter{key: "f", FlowSpecRule: bgp.FlowSpecRule{Name: "f", Actions: discard}}
	refused, other, stale, accepts := valid, valid, valid, valid
	refused.refused, other.refused = "no room", "no such action"
	stale.Stale = down
	accepts.Actions = nil
	for _, c := range []struct {
		name        string
		before, now []filter
		aged        bool
		want        string
	}{
		{"came", nil, []filter{valid}, false, "f added"},
		{"came, and is refused", nil, []filter{refused}, false, "f refused"},
		{"came of an earlier process", nil, []filter{stale}, false, "f added"},
		{"stays", []filter{valid}, []filter{valid}, false, ""},
		{"stays refused", []filter{refused}, []filter{refused}, false, ""},
		{"is refused for another reason", []filter{refused}, []filter{other}, false, "f refused"},
		{"finds room", []filter{refused}, []filter{valid}, false, "f added"},
		{"loses its room", []filter{valid}, []filter{refused}, false, "f refused"},
		{"does something else", []filter{valid}, []filter{accepts}, false, "f changed"},
		{"lost its session", []filter{valid}, []filter{stale}, false, "f stale"},
		{"has its session again", []filter{stale}, []filter{valid}, false, "f confirmed"},
		{"went", []filter{valid}, nil, false, "f removed"},
		{"went refused", []filter{refused}, nil, false, "f removed"},
		{"was not announced again", []filter{stale}, nil, false, "f removed"},
		{"was too old", []filter{stale}, nil, true, "f aged out"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, n := range newsOfFilters(c.before, c.now, func(filter) bool { return c.aged }) {
				got = append(got, n.Name+" "+n.what)
			}
			if said := strings.Join(got, ", "); said != c.want {
				t.Errorf("told %q, want %q", said, c.want)
			}
		})
	}
}

func TestStatusCountsTheFiltersThatDoNotHold(t *testing.T) {
	d, _, _ := heard(t)
	says := func() string {
		for _, c := range d.engine.Status().Conditions {
			if c.Type == engine.ConditionFlowSpec {
				return fmt.Sprintf("%s=%s %s: %s", c.Type, c.Status, c.Reason, c.Message)
			}
		}
		return ""
	}
	of := func(neighbor, refused string, unasked bool) filter {
		return filter{FlowSpecRule: bgp.FlowSpecRule{Neighbor: neighbor, Unasked: unasked}, refused: refused}
	}
	holds, same := of("tor-a", "", false), of("tor-b", "another neighbor announced the same rule before", true)
	for _, c := range []struct {
		known  []filter
		failed error
		want   string
	}{
		{[]filter{holds, same}, nil, ""},
		{[]filter{of("tor-b", "no room", false), holds, same, of("tor-a", "no room", false), of("tor-b", "no such action", false)}, nil,
			"FlowSpecAccepted=False Refused: 1 filter of tor-a is refused, 2 filters of tor-b are refused: see sluice show flowspec"},
		{[]filter{holds}, errors.New("no memory"),
			"FlowSpecAccepted=False NotInstalled: what neighbors want filtered is not in the data path, where what was there before holds: no memory; it is tried again"},
		{nil, nil, ""},
	} {
		if d.filtersRefused(c.known, c.failed); says() != c.want {
			t.Errorf("status says %q, want %q", says(), c.want)
		}
	}
}
