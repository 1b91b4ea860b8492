package daemon

import (
	"time"

	"sluice/bgp"
	"sluice/bgp/flowspec"
	"sluice/control/api"
)

// filterNews is what became of a filter, in the word that the monitor has for it.
type filterNews struct {
	filter
	what string
}

// newsOfFilters is how one list differs from the one before it. aged says of one that is gone whether its time was over.
func newsOfFilters(before, now []filter, aged func(filter) bool) (out []filterNews) {
	former := map[string]filter{}
	for _, f := range before {
		former[f.key] = f
	}
	for _, f := range now {
		was, knew := former[f.key]
		delete(former, f.key)
		if what := filterWord(was, knew, f); what != "" {
			out = append(out, filterNews{f, what})
		}
	}
	for _, f := range before {
		if _, gone := former[f.key]; gone {
			out = append(out, filterNews{f, goneWord(aged(f))})
		}
	}
	return out
}

func goneWord(aged bool) string {
	if aged {
		return api.FilterAgedOut
	}
	return api.FilterRemoved
}

// filterWord is "" where nothing is to be told.
func filterWord(was filter, knew bool, f filter) string {
	switch {
	case f.refused != "" && (!knew || was.refused != f.refused):
		return api.FilterRefused
	case f.refused != "":
		return ""
	case !knew || was.refused != "":
		return api.FilterAdded
	case flowspec.ActionsText(f.Actions) != flowspec.ActionsText(was.Actions):
		return api.FilterChanged
	case f.Stale.IsZero() == was.Stale.IsZero():
		return ""
	case f.Stale.IsZero():
		return api.FilterConfirmed
	}
	return api.FilterStale
}

// tellFilters tells what changed. What the speaker refused it has logged itself. A rule's end is asked for anew: a shorter max_age may be
// what has ended it.
func (d *Daemon) tellFilters(before, now []filter) {
	at := time.Now()
	for _, n := range newsOfFilters(before, now, func(f filter) bool { return !f.Stale.IsZero() && !d.filterEnd(f.FlowSpecRule).After(at) }) {
		if n.what == api.FilterRefused && n.Refused == "" {
			d.opts.Log.Warn("FlowSpec rule refused", "neighbor", n.Neighbor, "rule", n.Name, "reason", n.refused)
		}
		d.hub.publish(api.Event{Type: api.EventFlowSpec, Text: n.what, Filter: new(shownFilter(n.filter))})
	}
}

// filterEnd is when a rule ends by itself: zero while its session is up.
func (d *Daemon) filterEnd(r bgp.FlowSpecRule) time.Time {
	policy := d.liveDesired().BGP.FlowSpec
	switch {
	case r.Stale.IsZero():
		return time.Time{}
	case r.Blackhole:
		return r.Stale.Add(policy.Blackholes.Keep)
	}
	return r.Stale.Add(policy.Keep)
}
