package daemon

import (
	"cmp"
	"context"
	"errors"
	"math"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/bgp/flowspec"
	"sluice/control/api"
	"sluice/xdp/abi"
)

var (
	descFilters        = desc("flowspec_rules", "FlowSpec rules and blackholes of a neighbor; kind is flowspec or blackhole, state is valid, stale (valid, of a session that is down) or refused.", "neighbor", "kind", "state")
	descFilterPackets  = desc("flowspec_packets_total", "Packets that matched a FlowSpec rule or a blackhole.", "neighbor", "rule")
	descFilterBytes    = desc("flowspec_bytes_total", "Bytes that matched a FlowSpec rule or a blackhole.", "neighbor", "rule")
	descFilterDrops    = desc("flowspec_dropped_packets_total", "Packets that a FlowSpec rule or a blackhole dropped.", "neighbor", "rule")
	descFilterRefusals = desc("flowspec_refusals_total", "FlowSpec rules and blackholes that were refused by who sent them or by the unicast routes, each once for each reason.")
)

// Filters reads what BGP neighbors want filtered.
func (d *Daemon) Filters(_ context.Context, r api.FiltersRequest) (api.Filters, error) {
	if err := atLeast(r.Limit, "filters", api.DefaultFilters); err != nil {
		return api.Filters{}, refused(err)
	}
	r.Limit = cmp.Or(r.Limit, api.DefaultFilters)
	if r.Count {
		r.Limit = 0
	}
	return d.listFilters(r)
}

// listFilters asks the overlay for the counters of what the limit leaves.
func (d *Daemon) listFilters(r api.FiltersRequest) (api.Filters, error) {
	d.filters.mu.Lock()
	defer d.filters.mu.Unlock()
	out := api.Filters{Filters: []api.Filter{}}
	var errs []error
	for _, f := range d.filters.known {
		if r.Neighbor != "" && f.Neighbor != r.Neighbor {
			continue
		}
		out.Total++
		switch {
		case f.refused != "":
			out.Refused++
		case !f.Stale.IsZero():
			out.Stale++
		}
		if len(out.Filters) < r.Limit {
			shown, err := d.countedFilter(f)
			out.Filters, errs = append(out.Filters, shown), append(errs, err)
		}
	}
	return out, errors.Join(errs...)
}

// countedFilter is called with mu held.
func (d *Daemon) countedFilter(f filter) (api.Filter, error) {
	out := shownFilter(f)
	if f.refused != "" || d.filters.table == nil {
		return out, nil
	}
	hits, err := d.filters.table.Hits(f.key)
	out.Packets, out.Bytes, out.Dropped = hits.Packets, hits.Bytes, hits.Dropped
	if hits.Last > 0 {
		out.LastHit = new(d.wallClock(hits.Last))
	}
	return out, err
}

func shownFilter(f filter) api.Filter {
	out := api.Filter{Rule: f.Name, Kind: api.FilterFlowSpec, Neighbor: f.Neighbor, Address: f.Address,
		Actions: flowspec.ActionsText(f.Actions), Socket: f.socket, Since: f.Since, Valid: f.refused == "", Refused: f.refused}
	if f.Blackhole {
		out.Kind = api.FilterBlackhole
	}
	if !f.Stale.IsZero() {
		out.Stale, out.Until = &f.Stale, &f.ends
	}
	return out
}

// byFilter says whether a reason is that of the overlay: then the number with it is a filter's slot, and no rule's id.
func byFilter(r abi.Reason) bool {
	return r == abi.ReasonFlowspecDrop || r == abi.ReasonFlowspecLimit || r == abi.ReasonBlackhole || r == abi.ReasonFlowspecBypass
}

// filterOf is the one that gave a reason; nil: none did, or it has gone.
func (d *Daemon) filterOf(reason abi.Reason, slot uint32) *api.Filter {
	if !byFilter(reason) {
		return nil
	}
	return d.filterAt(slot)
}

// filterAt is the one in a slot.
func (d *Daemon) filterAt(slot uint32) *api.Filter {
	d.filters.mu.Lock()
	defer d.filters.mu.Unlock()
	if d.filters.table == nil {
		return nil
	}
	key := d.filters.table.Key(slot)
	for _, f := range d.filters.known {
		if f.key == key {
			return new(shownFilter(f))
		}
	}
	return nil
}

// filterName is neighbor and rule of the filter that gave a reason, if one did.
func (d *Daemon) filterName(reason abi.Reason, slot uint32) string {
	return nameOfFilter(d.filterOf(reason, slot))
}

func nameOfFilter(f *api.Filter) string {
	if f == nil {
		return ""
	}
	return f.Neighbor + ": " + f.Rule
}

// filterMetrics are per filter, of which the file allows so many.
func (c collector) filterMetrics(_ context.Context, out chan<- prometheus.Metric) error {
	list, err := c.d.listFilters(api.FiltersRequest{Limit: math.MaxInt})
	count := map[[3]string]int{}
	for _, f := range list.Filters {
		state := "valid"
		switch {
		case !f.Valid:
			state = "refused"
		case f.Stale != nil:
			state = "stale"
		}
		count[[3]string{f.Neighbor, string(f.Kind), state}]++
		if f.Valid {
			counter(out, descFilterPackets, f.Packets, f.Neighbor, f.Rule)
			counter(out, descFilterBytes, f.Bytes, f.Neighbor, f.Rule)
			counter(out, descFilterDrops, f.Dropped, f.Neighbor, f.Rule)
		}
	}
	for labels, n := range count {
		gauge(out, descFilters, float64(n), labels[:]...)
	}
	_, refusals := c.d.bgp.FlowSpec()
	counter(out, descFilterRefusals, refusals)
	return err
}
