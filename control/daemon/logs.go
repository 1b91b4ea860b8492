package daemon

import (
	"context"
	"slices"
	"sync"
	"time"

	"sluice/control/api"
	"sluice/xdp"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
)

// logRate is how many packets a second rules log at most, in all, and logLines how many of them become lines of the
// daemon's own log: a disk is not to be filled from outside. The monitor shows all of them.
const (
	logRate  = 1000
	logLines = 100
)

// followLogs listens to what rules log, for as long as any does.
func (d *Daemon) followLogs(ctx context.Context) error {
	for ctx.Err() == nil {
		if !d.anyLogs() {
			if !d.awaitPolicy(ctx) {
				return nil
			}
			continue
		}
		if err := d.watchLogs(ctx); err != nil && ctx.Err() == nil {
			d.opts.Log.Warn("rules cannot log packets", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(retryDrops):
			}
		}
	}
	return nil
}

// anyLogs says whether a rule of the live revision logs, or a filter of a neighbor samples.
func (d *Daemon) anyLogs() bool {
	return d.anySamples() || slices.ContainsFunc(d.policies(), func(p classify.Policy) bool {
		return slices.ContainsFunc(p.Rules, func(r classify.Rule) bool { return r.Sample > 0 })
	})
}

// awaitPolicy waits for something that may have changed the rules. It returns false when ctx ends.
func (d *Daemon) awaitPolicy(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-d.policyChanged:
		return true
	}
}

// watchLogs ends when no rule logs any more.
func (d *Daemon) watchLogs(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer cancel()
		for d.anyLogs() && d.awaitPolicy(ctx) {
		}
	}()
	w := &logWriter{d: d, names: d.newNames()}
	return xdp.WatchLogs(ctx, d.opts.BPFDir, logRate, w.packet, w.unseen)
}

// logWriter turns logged packets into events and into lines of the log.
type logWriter struct {
	d     *Daemon
	names *names

	mu     sync.Mutex
	last   *xdp.Unseen
	lines  int    // since the last tick
	silent uint64 // not written since
}

var fateNames = map[abi.EventFate]string{abi.EventPassed: "pass", abi.EventDropped: "drop", abi.EventShadow: "shadow",
	abi.EventFilterPassed: "pass", abi.EventFilterDropped: "drop"}

// sampledByFilter says whether a filter wanted a packet shown: then a slot stands in the place of the rule.
func sampledByFilter(s xdp.Sample) bool {
	return s.Fate == abi.EventFilterPassed || s.Fate == abi.EventFilterDropped
}

// packet tells the monitor. What a neighbor wants shown is not written to the log: whoever may send filters is not to fill a disk.
func (w *logWriter) packet(s xdp.Sample) {
	l := api.Logged{Packet: w.names.packet(s), Verdict: fateNames[s.Fate]}
	if sampledByFilter(s) {
		l.Filter = nameOfFilter(w.d.filterAt(s.Rule))
	}
	w.d.hub.publish(api.Event{Time: w.d.wallClock(s.Time), Type: api.EventLog, Log: &l})
	if sampledByFilter(s) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lines >= logLines {
		w.silent++
		return
	}
	w.lines++
	w.d.opts.Log.Info("packet", "rule", l.Rule, "verdict", l.Verdict, "interface", l.Interface, "hook", l.Hook, "protocol", l.Protocol,
		"source", s.Src, "destination", s.Dst, "length", l.Length)
}

// unseen comes before logging begins, when it does, and then once a second.
func (w *logWriter) unseen(u xdp.Unseen) {
	w.mu.Lock()
	defer w.mu.Unlock()
	missed := w.silent
	if w.last != nil {
		missed += u.Suppressed - w.last.Suppressed + u.Lost - w.last.Lost
	}
	w.last, w.lines, w.silent = &u, 0, 0
	if missed > 0 {
		w.d.opts.Log.Warn("packets of rules with log:, or of filters that sample, were not told: too many at once", "packets", missed)
	}
}
