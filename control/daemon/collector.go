package daemon

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/bgp/fib"
	"sluice/control/api"
	"sluice/xdp/classify"
)

// The metrics. Reasons, rules and interfaces are labels, never parts of names.
var (
	descPackets    = desc("packets_total", "Packets by hook, interface and reason; fate is pass, drop, stack, answer or redirect.", "hook", "interface", "reason", "fate")
	descBytes      = desc("bytes_total", "Bytes by hook, interface and reason.", "hook", "interface", "reason", "fate")
	descRule       = desc("rule_packets_total", "Packets that matched a rule, shadow rules included.", "policy", "rule", "action")
	descRuleBytes  = desc("rule_bytes_total", "Bytes that matched a rule, shadow rules included.", "policy", "rule", "action")
	descLimitDrop  = desc("rule_limit_drops_total", "Packets that matched a rule and went beyond its limit.", "policy", "rule")
	descShadowDrop = desc("rule_shadow_drops_total", "Packets that a limit in shadow mode would have dropped.", "policy", "rule")
	descPressure   = desc("limit_pressure_total", "Limited sources that the table had no room for: debts forgotten to make room, packets that shared their rule's bucket.", "effect")
	descRevision   = desc("revision", "Number of the live revision.")
	descPending    = desc("pending_seconds", "Time until the pending revision goes back; absent where none is pending.")
	descCondition  = desc("condition", "1 where a condition of the engine is True.", "type", "reason")
	descDrain      = desc("bgp_drain", "1 in the state of a drain that holds: draining (everything is announced with GRACEFUL_SHUTDOWN) or drained (everything is withdrawn).", "state")
	descRefused    = desc("bgp_fib_refused_total", "What BGP learned and the kernel was not given, each try counted: next hops that are unresolved (on no link) or circular (a tunnel's own packets would take the way into one), routes in conflict with another protocol's, other failures.", "reason")
	descWaiting    = desc("bgp_fib_waiting", "Prefixes that will be tried again.")
	descBans       = desc("bans", "Bans in place.")
	descBandwidth  = desc("bandwidth_bps", "Bits per second that what enters by an interface may leave by uplinks and tunnels with.", "interface")
	descBacklog    = desc("bandwidth_backlog_seconds", "Time until a bandwidth has room again.", "interface")
	descPacedDrops = desc("bandwidth_drops_total", "Packets that were dropped beyond a bandwidth.", "interface")
	descPacedMarks = desc("bandwidth_ecn_marks_total", "Packets that were marked (ECN) for a bandwidth.", "interface")
	descMonitors   = desc("monitors", "Clients that follow events.")
	descUp         = desc("up", "1 where every part could be read.")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("sluice_"+name, help, labels, nil)
}

// collector reads everything anew at each scrape.
type collector struct{ d *Daemon }

// Describe sends nothing: the set of labels is not known beforehand.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect reads the kernel. A part that cannot be read is left out, and sluice_up is 0.
func (c collector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	up := 1.0
	for _, part := range []func(context.Context, chan<- prometheus.Metric) error{
		c.reasons, c.rules, c.engine, c.bgp, c.tunnels, c.overlay, c.filterMetrics, c.sockets, c.flows, c.pacing,
	} {
		if err := part(ctx, out); err != nil {
			c.d.opts.Log.Warn("metrics", "error", err)
			up = 0
		}
	}
	gauge(out, descUp, up)
}

func gauge(out chan<- prometheus.Metric, d *prometheus.Desc, v float64, labels ...string) {
	out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func counter(out chan<- prometheus.Metric, d *prometheus.Desc, v uint64, labels ...string) {
	out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
}

func (c collector) reasons(ctx context.Context, out chan<- prometheus.Metric) error {
	reasons, err := c.d.reasons(ctx)
	for _, r := range reasons {
		counter(out, descPackets, r.Packets, r.Hook, r.Interface, r.Reason, r.Fate)
		counter(out, descBytes, r.Bytes, r.Hook, r.Interface, r.Reason, r.Fate)
	}
	return err
}

func (c collector) rules(ctx context.Context, out chan<- prometheus.Metric) error {
	policies, err := c.d.showPolicy()
	for _, p := range policies {
		for _, r := range p.Rules {
			counter(out, descRule, r.Packets, p.Name, r.Name, r.Action)
			counter(out, descRuleBytes, r.Bytes, p.Name, r.Name, r.Action)
			switch {
			case r.Action != classify.Limit.String():
			case r.Shadow:
				counter(out, descShadowDrop, r.ShadowDrops, p.Name, r.Name)
			default:
				counter(out, descLimitDrop, r.LimitDrops, p.Name, r.Name)
			}
		}
	}
	if err != nil {
		return err
	}
	pressure, err := c.d.xdp.LimitPressure(ctx)
	counter(out, descPressure, pressure.Forgotten, "forgotten")
	counter(out, descPressure, pressure.Shared, "shared")
	return err
}

func (c collector) engine(_ context.Context, out chan<- prometheus.Metric) error {
	s := c.d.engine.Status()
	gauge(out, descRevision, float64(s.Revision))
	if s.Pending != nil {
		gauge(out, descPending, s.Pending.Remaining)
	}
	for _, condition := range s.Conditions {
		value := 0.0
		if condition.Status == "True" {
			value = 1
		}
		gauge(out, descCondition, value, condition.Type, condition.Reason)
	}
	return nil
}

// refusals are zeros without BGP.
func refusals(out chan<- prometheus.Metric, f fib.Counters) {
	counter(out, descRefused, f.Unresolved, "unresolved")
	counter(out, descRefused, f.Circular, "circular")
	counter(out, descRefused, f.Conflicts, "conflict")
	counter(out, descRefused, f.Failures, "failure")
	gauge(out, descWaiting, float64(f.Waiting))
}

func (c collector) pacing(ctx context.Context, out chan<- prometheus.Metric) error {
	paced, err := c.d.tc.Pacing(ctx)
	for _, p := range paced {
		gauge(out, descBandwidth, float64(p.Rate), p.Interface)
		gauge(out, descBacklog, p.Backlog.Seconds(), p.Interface)
		counter(out, descPacedDrops, p.Dropped, p.Interface)
		counter(out, descPacedMarks, p.Marked, p.Interface)
	}
	return err
}

// overlay is what stands beside the revisions.
func (c collector) overlay(_ context.Context, out chan<- prometheus.Metric) error {
	gauge(out, descBans, float64(c.d.bans.Len()))
	gauge(out, descMonitors, float64(c.d.hub.count()))
	now := shownDrain(c.d.drain.State()).State
	for _, state := range []string{api.DrainGraceful, api.DrainDone} {
		value := 0.0
		if now == state {
			value = 1
		}
		gauge(out, descDrain, value, state)
	}
	return nil
}
