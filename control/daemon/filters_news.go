package daemon

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"sluice/bgp"
	"sluice/bgp/flowspec"
	"sluice/control/api"
	"sluice/control/engine"
	"sluice/plural"
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

// filtersRefused has show status say that filters do not hold which neighbors may ask for; failed is why none of the present list does.
func (d *Daemon) filtersRefused(known []filter, failed error) {
	switch lost := troubleOfFilters(known); {
	case failed != nil:
		d.engine.SetCondition(engine.ConditionFlowSpec, engine.False, "NotInstalled",
			fmt.Sprintf("what neighbors want filtered is not in the data path, where what was there before holds: %v; it is tried again", failed))
	case lost != "":
		d.engine.SetCondition(engine.ConditionFlowSpec, engine.False, "Refused", lost+": see sluice show flowspec")
	default:
		d.engine.SetCondition(engine.ConditionFlowSpec, "", "", "")
	}
}

// troubleOfFilters counts what is refused of each neighbor, but for what is so by the operator's own words; "": nothing is.
func troubleOfFilters(known []filter) string {
	refused := map[string]int{}
	for _, f := range known {
		if f.refused != "" && !f.Unasked {
			refused[f.Neighbor]++
		}
	}
	var out []string
	for _, neighbor := range slices.Sorted(maps.Keys(refused)) {
		out = append(out, fmt.Sprintf("%s of %s %s refused", plural.Of(refused[neighbor], "filter", "filters"), neighbor, plural.Word(refused[neighbor], "is", "are")))
	}
	return strings.Join(out, ", ")
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
