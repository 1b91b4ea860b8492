package daemon

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/control/api"
	"sluice/control/engine"
	"sluice/tc"
)

func TestTheConditionSaysWhenFlowsRunOutOfRoom(t *testing.T) {
	at := func(entries int, full, unmade uint64) *tc.Swept {
		return &tc.Swept{Flows: tc.TableFill{Entries: entries, Max: 1000}, Pressure: tc.FlowPressure{Full: full, Crowded: 99, Unmade: unmade}}
	}
	for _, c := range []struct {
		name        string
		before, now *tc.Swept
		value       engine.ConditionValue
		reason      string
	}{
		{"no tables yet", nil, nil, "", ""},
		{"the first sweep, of an old machine", nil, at(10, 7, 7), engine.False, "Room"},
		{"much is left", at(10, 7, 0), at(900, 7, 0), engine.False, "Room"},
		{"little is left", at(10, 7, 0), at(901, 7, 0), engine.True, "NearlyFull"},
		{"a proven flow found no room", at(999, 7, 0), at(999, 8, 0), engine.True, "Full"},
		{"a new one could not be entered", at(10, 7, 0), at(10, 7, 1), engine.True, "Full"},
		{"it is over", at(999, 8, 0), at(700, 8, 0), engine.False, "Room"},
	} {
		value, reason, message := conntrackCondition(c.before, c.now)
		if value != c.value || reason != c.reason || (value == engine.True) != strings.Contains(message, "of 1000 flows; raise conntrack.max_entries") {
			t.Errorf("%s: %s %s %q", c.name, value, reason, message)
		}
	}
}

func TestExhaustedPortsAreToldOfOnceAMinute(t *testing.T) {
	var e exhaustion
	for _, c := range []struct {
		name     string
		seconds  int
		counters map[string]uint64
		told     map[string]uint64
	}{
		{"what was counted before the daemon began", 0, map[string]uint64{"eth0": 5, "eth1": 0}, nil},
		{"nothing new", 5, map[string]uint64{"eth0": 5, "eth1": 0}, map[string]uint64{}},
		{"packets were dropped", 10, map[string]uint64{"eth0": 8, "eth1": 0}, map[string]uint64{"eth0": 3}},
		{"and more, soon", 15, map[string]uint64{"eth0": 9, "eth1": 2}, map[string]uint64{"eth1": 2}},
		{"the minute is over, and nothing is left out", 70, map[string]uint64{"eth0": 20, "eth1": 2}, map[string]uint64{"eth0": 12}},
		{"quiet", 200, map[string]uint64{"eth0": 20, "eth1": 2}, map[string]uint64{}},
		{"the interface was made anew", 300, map[string]uint64{"eth0": 4, "eth1": 2}, map[string]uint64{"eth0": 4}},
	} {
		if diff := cmp.Diff(c.told, e.grown(noonOf(c.seconds), maps.Clone(c.counters))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

func noonOf(seconds int) time.Time { return time.Unix(1700000000+int64(seconds), 0) }

func TestAFilterThatIsWrongIsRefused(t *testing.T) {
	d := idle(t)
	for _, c := range []struct {
		filter api.FlowFilter
		says   []string
	}{
		{api.FlowFilter{Address: "10.0.0.0/99"}, []string{"10.0.0.0/99"}},
		{api.FlowFilter{Protocol: "frob"}, []string{"frob"}},
		{api.FlowFilter{State: "old"}, []string{`there is no state "old": say one of new, replied, established, closing, closed, revoked`}},
		{api.FlowFilter{Workload: "web-9"}, []string{"there is no workload \"web-9\"; `sluice show workloads` lists them"}},
		{api.FlowFilter{Rule: "ingress/frob"}, []string{"there is no rule \"ingress/frob\""}},
		{api.FlowFilter{State: "old", Workload: "web-9"}, []string{"state", "workload"}}, // all at once
	} {
		_, err := d.Flows(t.Context(), api.FlowsRequest{FlowFilter: c.filter})
		_, cleared := d.ClearFlows(t.Context(), api.ClearFlowsRequest{FlowFilter: c.filter})
		for _, err := range []error{err, cleared} {
			var f *api.Failure
			if !errors.As(err, &f) || !f.Refused || slices.ContainsFunc(c.says, func(word string) bool { return !strings.Contains(f.Message, word) }) {
				t.Errorf("%+v: %v, want %q", c.filter, err, c.says)
			}
		}
	}
	if _, err := d.Flows(t.Context(), api.FlowsRequest{Limit: -1}); err == nil {
		t.Error("a limit below 0 was taken")
	}
	for _, r := range []api.RoutesRequest{{Limit: -1}, {About: "tor-a"}, {About: "192.0.2.0/99"}} {
		var f *api.Failure
		if _, err := d.Routes(t.Context(), r); !errors.As(err, &f) || !f.Refused {
			t.Errorf("%+v: %v", r, err)
		}
	}
	for _, count := range []bool{false, true} {
		if got, err := d.Routes(t.Context(), api.RoutesRequest{About: "192.0.2.7", Count: count}); err != nil || got.Total != 0 || got.Routes == nil {
			t.Errorf("routes of a box without BGP: %+v, %v", got, err)
		}
	}
	for _, r := range []api.ClearFlowsRequest{{}, {All: true, FlowFilter: api.FlowFilter{Port: 1}}} {
		if _, err := d.ClearFlows(t.Context(), r); err == nil || !strings.Contains(err.Error(), "say which flows to forget") {
			t.Errorf("%+v: %v", r, err)
		}
	}
	if got, err := d.ClearFlows(t.Context(), api.ClearFlowsRequest{All: true}); err != nil || got.Flows != 0 {
		t.Errorf("without tables: %+v, %v", got, err)
	}
}

func TestFlowMetricsAreThoseOfTheLastSweep(t *testing.T) {
	d := idle(t)
	d.conntrack.next(&tc.Swept{
		Flows: tc.TableFill{Entries: 3, Max: 8}, FreshOut: tc.TableFill{Max: 4}, FreshIn: tc.TableFill{Entries: 1, Max: 4}, Translations: 2,
		States: map[string]int{"established": 3, "new": 1}, Pressure: tc.FlowPressure{Full: 5, Crowded: 6, Unmade: 7},
	})
	address := freePort(t)
	if err := bring(t, d.metrics, at(address)); err != nil {
		t.Fatal(err)
	}
	text, err := scrape(t, address)
	for _, line := range []string{
		`sluice_flows{state="established"} 3`, `sluice_flow_table_entries{table="flows"} 3`, `sluice_flow_table_max{table="flows"} 8`,
		`sluice_flow_table_entries{table="fresh_in"} 1`, `sluice_flow_table_max{table="fresh_out"} 4`, `sluice_translations 2`,
		`sluice_flow_pressure_total{effect="full"} 5`, `sluice_flow_pressure_total{effect="crowded"} 6`, `sluice_flow_pressure_total{effect="unmade"} 7`,
	} {
		if err != nil || !strings.Contains(text, line+"\n") {
			t.Errorf("%q is not among the metrics (%v)", line, err)
		}
	}
}
