package daemon

import (
	"context"
	"errors"
	"testing"

	"sluice/control/api"
	"sluice/control/engine"
	"sluice/control/host"
)

func TestTheDoctorAsksTheDaemonForTheFlowTables(t *testing.T) {
	pressed := engine.Status{Conditions: []engine.Condition{{Type: engine.ConditionConntrack, Status: engine.True, Reason: "Full"}}}
	relaxed := engine.Status{Conditions: []engine.Condition{{Type: engine.ConditionConntrack, Status: engine.False, Reason: "Room"}}}
	for _, c := range []struct {
		name   string
		status api.Status
		err    error
		want   host.Finding
	}{
		{name: "room", status: api.Status{Engine: relaxed, Conntrack: &api.Conntrack{Flows: api.TableFill{Entries: 3, Max: 100}}},
			want: host.Finding{Name: "conntrack", Status: host.StatusOK, Detail: "3 of 100 flows"}},
		{name: "none", status: api.Status{Engine: pressed, Conntrack: &api.Conntrack{Flows: api.TableFill{Entries: 100, Max: 100}, Full: 7, Crowded: 2}},
			want: host.Finding{Name: "conntrack", Status: host.StatusWarn, Detail: "100 of 100 flows; so far 7 found no room, 2 were beyond their owner's share, 0 were not tracked",
				Cost: "flows that find no room are not kept as proven ones are: under a flood they are the first to go",
				Fix:  "raise conntrack.max_entries; `sluice show flows --count` says whose they are"}},
		{name: "not swept yet", status: api.Status{Engine: relaxed}},
		{name: "no daemon", err: errors.New("no daemon")},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got host.Finding
			for _, f := range Doctor(t.Context(), DoctorOptions{BPFDir: t.TempDir(), Status: func(context.Context) (api.Status, error) { return c.status, c.err }}) {
				if f.Name == "conntrack" {
					got = f
				}
			}
			if got != c.want {
				t.Errorf("got %+v", got)
			}
		})
	}
}
