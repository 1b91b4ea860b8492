package netns

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"sluice/cmd/lab"
	"sluice/control/api"
)

// TestFlowsAreShownWatchedAndCleared goes the operator's way through the daemon.
func TestFlowsAreShownWatchedAndCleared(t *testing.T) {
	t.Parallel()
	s := newGateway(t)
	f := s.followFlows()
	s.answers(s.Client, lab.Web4[0], 80, "web-1")
	client := s.Gateway.API()
	defer client.Close()
	ask := api.FlowsRequest{FlowFilter: api.FlowFilter{Address: lab.Client4.String(), Port: 80, Protocol: "tcp", Workload: "web-1"}}
	flows, err := client.Flows(t.Context(), ask)
	if err != nil || flows.Total == 0 || flows.Workloads["web-1"] != flows.Total {
		t.Fatalf("%+v, %v", flows, err)
	}
	one := flows.Flows[0]
	if one.Origin != "outside" || one.Destination != lab.Web4[0].String()+":80" || one.Packets == 0 || one.AnsweredBytes == 0 || one.Workload != "web-1" ||
		len(one.Rules) == 0 || !strings.Contains(strings.Join(one.Rules, " "), "/") {
		t.Errorf("%+v", one)
	}
	ask.Rule = one.Rules[0]
	if again, err := client.Flows(t.Context(), ask); err != nil || again.Total == 0 {
		t.Errorf("by the rule %s: %+v, %v", ask.Rule, again, err)
	}
	for _, change := range []string{"new", "proven", "closed"} {
		e := f.hears(t, "a flow that is "+change, func(e api.Event) bool {
			return e.Flow != nil && e.Flow.Change == change && e.Flow.Destination == one.Destination
		})
		if e.Flow.Workload != "web-1" {
			t.Errorf("%s: %+v", change, e.Flow)
		}
	}
	eventually(t, func() error {
		status := s.status()
		if c := status.Conntrack; c == nil || c.Flows.Max == 0 || c.Flows.Entries+c.FreshIn.Entries == 0 {
			return fmt.Errorf("the fill of the tables is shown as %+v", status.Conntrack)
		}
		for _, c := range status.Engine.Conditions {
			if c.Type == "ConntrackPressure" && c.Status == "False" && c.Reason == "Room" {
				return nil
			}
		}
		return errors.New("the condition of the flow tables is not shown")
	})
	if r := s.sluice("show", "flows", "--count"); r.code != 0 || !strings.Contains(r.out, "STATE") {
		t.Errorf("%+v", r)
	}
	if r := s.sluice("clear", "flows", "--workload", "web-1"); r.code != 0 || !strings.HasPrefix(r.out, "forgot ") {
		t.Errorf("%+v", r)
	}
	if left, err := client.Flows(t.Context(), ask); err != nil || left.Total != 0 {
		t.Errorf("after they were cleared: %+v, %v", left, err)
	}
	s.answers(s.Client, lab.Web4[0], 80, "web-1")
}
