package fib

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

func (t *Table) run(ctx context.Context) {
	defer close(t.done)
	retry := time.NewTicker(retryAfter)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.wake:
		case <-t.vigil.C:
			t.glance()
		case <-retry.C:
			t.mu.Lock()
			t.again()
			t.mu.Unlock()
			t.regroup() // what the kernel refused
		}
		t.look()
		t.write(ctx)
		t.blame()
	}
}

// again has what could not be written judged anew, with t.mu held. What has no way waits for news of one.
func (t *Table) again() {
	for prefix, why := range t.waiting {
		if !errors.Is(why, errUnresolved) {
			t.dirty[prefix] = struct{}{}
		}
	}
	// What leads an endpoint past a tunnel's device may be anybody's route, and go.
	for prefix := range t.tunnels.around {
		if t.installed[prefix] != nil {
			t.dirty[prefix] = struct{}{}
		}
	}
}

// look acts on what the kernel told.
func (t *Table) look() {
	t.now = nil // who missed a change meanwhile will hear of it
	t.mu.Lock()
	heard := t.news
	t.news = news{down: map[int]struct{}{}}
	if heard.moved {
		t.again()
	}
	t.mu.Unlock()
	if heard.carrier {
		t.vigil.begin()
	}
	if heard.touched {
		if gone := t.recount(); len(heard.down) == 0 {
			t.gone += gone
		}
	}
	if len(heard.down) > 0 {
		t.lose(heard.down)
	}
	if heard.moved {
		t.retrack()
	}
}

// lose follows the kernel, which takes what leads over a link that goes down away without a word.
func (t *Table) lose(down map[int]struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	gone := map[uint32]bool{}
	for link := range down {
		touched, err := t.groups.lose(link)
		if err != nil {
			t.log.Warn("next hops of a lost link", "error", err)
		}
		for _, g := range touched {
			gone[g.id] = gone[g.id] || len(g.hops) == 0 || g.via == nil // the others follow by regroup
		}
	}
	for prefix, there := range t.installed {
		for _, r := range there {
			if gone[r.group] {
				t.dirty[prefix] = struct{}{}
			}
		}
	}
}

// write brings the dirty prefixes to the kernel, then sweeps if asked to.
func (t *Table) write(ctx context.Context) {
	t.mu.Lock()
	dirty, sweep := t.dirty, t.sweep
	t.swept = t.swept || sweep
	t.dirty, t.sweep = map[netip.Prefix]struct{}{}, false
	t.mu.Unlock()
	for prefix := range dirty {
		if ctx.Err() != nil {
			return
		}
		err := t.sync(prefix)
		t.mu.Lock()
		if delete(t.waiting, prefix); err != nil {
			t.waiting[prefix] = err
		}
		t.mu.Unlock()
		t.attend()
	}
	if sweep {
		t.sweepStale(ctx)
	}
	t.collect()
}

// attend looks at what does not wait for a full table: a next hop that is lost.
func (t *Table) attend() {
	select {
	case <-t.vigil.C:
		t.glance()
	default:
	}
	t.mu.Lock()
	urgent := t.news.moved
	t.mu.Unlock()
	if urgent {
		t.look()
	}
}

// sweepStale is at the end of a pass: what was learned again is not stale any more.
func (t *Table) sweepStale(ctx context.Context) {
	t.mu.Lock()
	var stale []listed
	for prefix, there := range t.installed {
		for _, r := range there {
			if r.stale {
				stale = append(stale, listed{prefix, r})
			}
		}
	}
	t.mu.Unlock()
	for _, r := range stale {
		if ctx.Err() != nil {
			return
		}
		t.log.Debug("stale route swept", "prefix", r.prefix)
		t.drop(r.prefix, r.held)
		t.attend()
	}
	if len(stale) > 0 {
		t.log.Info("stale routes swept", "routes", len(stale), "first", stale[0].prefix)
	}
}

// collect removes the objects that nothing goes by any more. Before there is a policy, routes of an earlier life may be in a table
// that is not known yet.
func (t *Table) collect() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.policy.Table == 0 {
		return
	}
	if err := t.groups.collect(); err != nil {
		t.log.Warn("nexthop objects are left", "error", err)
	}
}

// sync makes the kernel agree for one prefix: the wanted route first, then away with what is at other metrics. A
// returned error means: try again later.
func (t *Table) sync(prefix netip.Prefix) error {
	t.mu.Lock()
	allowed := t.policy.Allows(prefix)
	want := Route{Prefix: prefix, Metric: t.policy.Metric, Table: t.policy.Table}
	var set *pathSet
	if allowed {
		set = t.learned[prefix]
	}
	ecmp, known, tunnels := max(t.policy.ECMP, 1), set != nil, t.tunnels
	have := slices.Clone(t.installed[prefix])
	t.mu.Unlock()

	c := t.choose(tunnels, want, set, ecmp)
	if len(c.hops) > 0 {
		if err := t.install(want, c, have); err != nil {
			return t.refused(prefix, err)
		}
	}
	for _, r := range have {
		// What is stale waits for the sweep, unless it is no longer allowed or has just been learned at our metric.
		if keep := len(c.hops) > 0 && r.place == want.place(); !keep && (!r.stale || !allowed || known || t.astray(tunnels, prefix, r)) {
			t.drop(prefix, r)
		}
	}
	return c.failed
}

// choice is how a route goes. Prefixes with the same paths share one, where nothing depends on the prefix.
type choice struct {
	via    []netip.Addr // next hops, those included whose way may come
	hops   []hop
	alone  bool  // what it may use is its own matter: it shares no group that follows next hops
	failed error // of a next hop that is left out

	by         *group // nil: was not asked for yet
	turn, ecmp int    // it holds for these
}

// choose says how a prefix goes that has this set of paths; none: nowhere.
func (t *Table) choose(guard tunnels, r Route, set *pathSet, ecmp int) *choice {
	if set == nil {
		return &choice{}
	}
	shared := !guard.concern(r.Prefix)
	if known := set.chosen; shared && known != nil && known.turn == t.turn && known.ecmp == ecmp {
		return known
	}
	c := &choice{alone: !shared, turn: t.turn, ecmp: ecmp}
	for _, addr := range set.nextHops {
		w := t.reach(addr)
		if w.err != nil {
			c.failed = t.refused(r.Prefix, w.err)
			c.via = append(c.via, addr)
			continue
		}
		shared = shared && w.near()
		if w.captures(r.Prefix, r.Metric) {
			c.failed = t.refused(r.Prefix, fmt.Errorf("%w: %s would be reached by the route itself", errUnresolved, addr))
			continue
		}
		hops, err := guard.allow(t.kernel, r.Prefix, w.hops)
		if errors.Is(err, errStrict) {
			continue // for as long as the policy says so
		}
		if err != nil {
			c.failed = t.refused(r.Prefix, err)
			continue
		}
		c.via, c.hops = append(c.via, addr), append(c.hops, hops...)
	}
	if c.hops = distinct(c.hops, ecmp); shared && c.failed == nil {
		set.chosen = c
	}
	return c
}

// astray says whether a route that is there leads where its prefix may not go.
func (t *Table) astray(guard tunnels, prefix netip.Prefix, r *held) bool {
	if !guard.concern(prefix) {
		return false
	}
	gateways := r.gateways
	t.mu.Lock()
	if g := t.groups.of[r.group]; g != nil {
		gateways = addresses(g.hops)
	}
	t.mu.Unlock()
	return slices.ContainsFunc(gateways, func(addr netip.Addr) bool {
		_, err := guard.allow(t.kernel, prefix, t.reach(addr).hops)
		return err != nil
	})
}

// changed looks ways up again before the next prefix is written, where one may lead through this one.
func (t *Table) changed(prefix netip.Prefix) {
	if t.led(prefix) {
		t.retrack()
	}
}

// refused counts a failure, and logs it unless the prefix is being tried again.
func (t *Table) refused(prefix netip.Prefix, err error) error {
	t.mu.Lock()
	switch {
	case errors.Is(err, errUnresolved):
		t.counters.Unresolved++
	case errors.Is(err, errConflict):
		t.counters.Conflicts++
	case errors.Is(err, errEndpoint):
		t.counters.Circular++
	default:
		t.counters.Failures++
	}
	_, again := t.waiting[prefix]
	t.mu.Unlock()
	if !again && !errors.Is(err, errUnresolved) { // that is told once, of the next hop
		t.log.Warn("learned route not installed", "prefix", prefix, "error", err)
	}
	return err
}

// distinct are at most limit hops, in order.
func distinct(hops []hop, limit int) []hop {
	slices.SortFunc(hops, hop.compare)
	hops = slices.Compact(hops)
	return hops[:min(len(hops), limit)]
}

func addresses(hops []hop) []netip.Addr {
	out := make([]netip.Addr, len(hops))
	for i, h := range hops {
		out[i] = h.addr
	}
	return out
}
