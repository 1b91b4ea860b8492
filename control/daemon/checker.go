package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"sluice/bgp"
	"sluice/control/api"
	"sluice/control/config"
	"sluice/control/engine"
)

// established is GoBGP's and the RFC's word for a session that is up.
const established = "established"

// keep is how failures name the check.
const keep = "neighbors: keep"

// checker judges apply.checks with what the daemon sees.
type checker struct{ d *Daemon }

// Baseline is the names of the neighbors that are up.
func (c checker) Baseline(ctx context.Context) (json.RawMessage, error) {
	up, err := c.neighborsUp(ctx)
	if err != nil {
		return nil, err
	}
	return json.Marshal(up)
}

func (c checker) neighborsUp(ctx context.Context) ([]string, error) {
	up := []string{}
	neighbors, err := c.d.bgp.Status(ctx)
	for _, n := range neighbors {
		if n.State == established {
			up = append(up, n.Name)
		}
	}
	return up, err
}

// Check asks each check now. A neighbor that the new file does not name is not missed.
func (c checker) Check(ctx context.Context, baseline json.RawMessage, checks []config.Check) []engine.Failure {
	var failures []engine.Failure
	for _, check := range checks {
		switch {
		case check.KeepNeighbors:
			failures = append(failures, c.keepNeighbors(ctx, baseline)...)
		case check.Reach.IsValid():
			if _, err := c.d.prober.Reach(ctx, check.Reach); err != nil {
				failures = append(failures, engine.Failure{Check: "reach " + check.Reach.String(), Message: err.Error()})
			}
		}
	}
	return failures
}

func (c checker) keepNeighbors(ctx context.Context, baseline json.RawMessage) []engine.Failure {
	var before []string
	if err := json.Unmarshal(baseline, &before); err != nil {
		return []engine.Failure{{Check: keep, Message: err.Error()}}
	}
	return c.missing(ctx, before)
}

// missing are the neighbors of these that the revision has, and that are not up.
func (c checker) missing(ctx context.Context, before []string) []engine.Failure {
	neighbors, err := c.d.bgp.Status(ctx)
	if err != nil {
		return []engine.Failure{{Check: keep, Message: err.Error()}}
	}
	return lost(before, neighbors)
}

// Check asks the live revision's checks again: the health gate of an update does. Which neighbors were up before, it knows itself.
func (d *Daemon) Check(ctx context.Context, r api.CheckRequest) (api.Checked, error) {
	var reach []config.Check
	for _, one := range d.liveConfig().Apply.Checks {
		if !one.KeepNeighbors {
			reach = append(reach, one)
		}
	}
	c := checker{d}
	failing := append(c.missing(ctx, r.Established), c.Check(ctx, nil, reach)...)
	return api.Checked{Failing: append([]engine.Failure{}, failing...)}, nil
}

// lost are the neighbors that were up and are not.
func lost(before []string, now []bgp.NeighborStatus) []engine.Failure {
	var failures []engine.Failure
	for _, n := range now {
		if n.State != established && slices.Contains(before, n.Name) {
			failures = append(failures, engine.Failure{Check: keep, Message: fmt.Sprintf("%s was up and is %s", n.Name, n.State)})
		}
	}
	return failures
}
