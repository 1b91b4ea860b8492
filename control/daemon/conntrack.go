package daemon

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/control/api"
	"sluice/control/engine"
	"sluice/tc"
	"sluice/xdp/abi"
)

const (
	// sweepEvery is how long an expired flow may hold its place, and a share of the table be out of date.
	sweepEvery = 5 * time.Second
	// nearlyFull is when an operator is told, in percent of the table of proven flows.
	nearlyFull = 90
)

// conntrack is what the daemon knows of the flow tables.
type conntrack struct {
	mu    sync.Mutex
	swept *tc.Swept
	// untranslated remembers what was told of packets that found no translation, as in lacks.
	untranslated [len(lacks)]exhaustion
}

// last is what the last sweep found; nil: there was none.
func (c *conntrack) last() *tc.Swept {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.swept
}

// next takes the place of last, which it returns.
func (c *conntrack) next(swept *tc.Swept) (before *tc.Swept) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before, c.swept = c.swept, swept
	return before
}

// keepFlows sweeps the flow tables and says where they run out of room, and where translation runs out of ports.
func (d *Daemon) keepFlows(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	failing := false
	for {
		err := d.sweepFlows(ctx)
		if err != nil && !failing && ctx.Err() == nil { // once, not every 5 s
			d.opts.Log.Error("expired flows stay in the tables", "error", err)
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (d *Daemon) sweepFlows(ctx context.Context) error {
	swept, err := d.tc.Sweep(ctx)
	if err != nil {
		return err
	}
	before := d.conntrack.next(swept)
	value, reason, message := conntrackCondition(before, swept)
	d.engine.SetCondition(engine.ConditionConntrack, value, reason, message)
	if swept == nil {
		return nil
	}
	d.opts.Log.Debug("flow tables", "flows", swept.Flows.Entries, "fresh out", swept.FreshOut.Entries, "fresh in", swept.FreshIn.Entries,
		"expired", swept.Expired, "orphans", swept.Orphans, "took", swept.Took)
	return d.watchPorts(ctx)
}

// conntrackCondition judges two sweeps in a row. No value takes the condition out.
func conntrackCondition(before, now *tc.Swept) (value engine.ConditionValue, reason, message string) {
	if now == nil {
		return "", "", ""
	}
	full := uint64(0) // since the last sweep
	if before != nil {
		full = now.Pressure.Full - before.Pressure.Full + now.Pressure.Unmade - before.Pressure.Unmade
	}
	fill := fmt.Sprintf("%d of %d flows; raise conntrack.max_entries, or see `sluice show flows --count`", now.Flows.Entries, now.Flows.Max)
	switch {
	case full > 0:
		return engine.True, "Full", "flows found no room: " + fill
	case now.Flows.Entries*100 > now.Flows.Max*nearlyFull:
		return engine.True, "NearlyFull", fill
	}
	return engine.False, "Room", ""
}

// tellPortsEvery is how often an interface is named that has no port left.
const tellPortsEvery = time.Minute

// exhaustion remembers, by interface, which packets were told of that found no port to translate their source to.
type exhaustion struct {
	told map[string]uint64
	at   map[string]time.Time
}

// grown takes the counters of now, and returns the packets of each interface that are to be told of. The first time nothing
// is: what was counted before this process is not news.
func (e *exhaustion) grown(now time.Time, counters map[string]uint64) map[string]uint64 {
	if e.told == nil {
		e.told, e.at = maps.Clone(counters), map[string]time.Time{}
		return nil
	}
	out := map[string]uint64{}
	for name, n := range counters {
		if n < e.told[name] {
			e.told[name] = 0 // an interface that was made anew counts from zero
		}
		if n > e.told[name] && now.Sub(e.at[name]) >= tellPortsEvery {
			out[name] = n - e.told[name]
			e.told[name], e.at[name] = n, now
		}
	}
	return out
}

func (d *Daemon) watchPorts(ctx context.Context) error {
	for n, lack := range lacks {
		lost, err := d.tc.Dropped(ctx, lack.reason)
		if err != nil {
			return err
		}
		grown := d.conntrack.untranslated[n].grown(time.Now(), lost)
		if len(grown) == 0 {
			continue
		}
		last, err := d.tc.Exhausted(ctx)
		if err != nil {
			return err
		}
		for name, n := range grown {
			d.opts.Log.Warn(lack.message+", or see `sluice show flows --nat`", "interface", name, "packets", n,
				"last", last.Source.String()+" > "+last.Destination.String(), "address", last.Address)
		}
	}
	return nil
}

// lacks are why a packet finds no translation that it needs, and what an operator can do about it.
var lacks = [...]struct {
	reason  abi.Reason
	message string
}{
	{abi.ReasonSnatExhausted, "no port is left to translate sources to: packets were dropped; widen snat.ports"},
	{abi.ReasonSnatFull, "no room is left for translations: packets were dropped; raise conntrack.max_entries"},
}

func shownConntrack(s *tc.Swept) *api.Conntrack {
	if s == nil {
		return nil
	}
	return &api.Conntrack{
		Flows: api.TableFill(s.Flows), FreshOut: api.TableFill(s.FreshOut), FreshIn: api.TableFill(s.FreshIn),
		Translations: s.Translations, States: s.States, Full: s.Pressure.Full, Crowded: s.Pressure.Crowded, Unmade: s.Pressure.Unmade,
	}
}

var (
	descFlows        = desc("flows", "Tracked flows by state, as of the last sweep.", "state")
	descFlowEntries  = desc("flow_table_entries", "Entries of the flow tables, as of the last sweep.", "table")
	descFlowMax      = desc("flow_table_max", "Entries that the flow tables have room for.", "table")
	descTranslations = desc("translations", "Flows whose source is translated, as of the last sweep.")
	descFlowPressure = desc("flow_pressure_total", "Flows that ran out of room: full: proven, no room; crowded: proven, beyond their owner's share; unmade: not tracked at all.", "effect")
)

func (c collector) flows(_ context.Context, out chan<- prometheus.Metric) error {
	s := c.d.conntrack.last()
	if s == nil {
		return nil
	}
	for state, n := range s.States {
		gauge(out, descFlows, float64(n), state)
	}
	for name, t := range map[string]tc.TableFill{"flows": s.Flows, "fresh_out": s.FreshOut, "fresh_in": s.FreshIn} {
		gauge(out, descFlowEntries, float64(t.Entries), name)
		gauge(out, descFlowMax, float64(t.Max), name)
	}
	gauge(out, descTranslations, float64(s.Translations))
	counter(out, descFlowPressure, s.Pressure.Full, "full")
	counter(out, descFlowPressure, s.Pressure.Crowded, "crowded")
	counter(out, descFlowPressure, s.Pressure.Unmade, "unmade")
	return nil
}
