package fib

import (
	"cmp"
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
		case <-retry.C:
			t.mu.Lock()
			t.again()
			t.mu.Unlock()
		}
		t.look()
		t.write(ctx)
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
	t.mu.Lock()
	heard := t.news
	t.news = news{down: map[int]struct{}{}}
	if heard.moved {
		t.again()
	}
	t.mu.Unlock()
	if heard.lost {
		t.recount()
	}
	if len(heard.down) > 0 {
		t.doubt(func(_ Route, h hop) bool { _, was := heard.down[h.link]; return was })
	}
	if heard.moved {
		t.retrack()
	}
}

// doubt forgets how routes got there that have such a hop: the kernel takes the next hops of a link that goes down away, and
// IPv4 routes that lost all without a word. So they are written anew, or go.
func (t *Table) doubt(match func(Route, hop) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for prefix, there := range t.installed {
		for at, r := range there {
			if slices.ContainsFunc(r.hops, func(h hop) bool { return match(r.Route, h) }) {
				r.hops = nil
				there[at], t.dirty[prefix] = r, struct{}{}
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
	}
	if !sweep {
		return
	}
	for _, r := range t.Routes() {
		if r.Stale && ctx.Err() == nil {
			t.log.Info("stale route swept", "prefix", r.Prefix)
			t.drop(r)
		}
	}
}

// sync makes the kernel agree for one prefix: the wanted route first, then away with what is at other metrics. A
// returned error means: try again later.
func (t *Table) sync(prefix netip.Prefix) error {
	t.mu.Lock()
	allowed := t.policy.Allows(prefix)
	want := Route{Prefix: prefix, Metric: t.policy.Metric, Table: t.policy.Table}
	if allowed {
		want.NextHops = t.learned[prefix].nextHops()
	}
	ecmp, known, tunnels := max(t.policy.ECMP, 1), len(want.NextHops) > 0, t.tunnels
	have := slices.Clone(t.installed[prefix])
	t.mu.Unlock()

	var failed error
	new := held{Route: want}
	for _, addr := range want.NextHops {
		hops, err := t.usable(tunnels, want, addr)
		if errors.Is(err, errStrict) {
			continue // for as long as the policy says so
		}
		if err != nil {
			failed = t.refused(prefix, err)
			continue
		}
		new.hops, new.via = append(new.hops, hops...), append(new.via, addr)
		if len(new.hops) >= ecmp {
			break
		}
	}
	new.hops = distinct(new.hops, ecmp)
	hops := new.hops
	new.NextHops = addresses(hops)
	if len(hops) > 0 {
		new = new.sharing(t.last)
		t.last = new
		if err := t.install(new, have); err != nil {
			return t.refused(prefix, err)
		}
	}
	for _, r := range have {
		// What is stale waits for the sweep, unless it is no longer allowed or has just been learned at our metric.
		if keep := len(hops) > 0 && r.place() == want.place(); !keep && (!r.Stale || !allowed || known || t.astray(tunnels, r.Route)) {
			t.drop(r.Route)
		}
	}
	return failed
}

// usable are the hops of a next hop, if the prefix may go there.
func (t *Table) usable(guard tunnels, r Route, addr netip.Addr) ([]hop, error) {
	w := t.reach(addr)
	if w.err != nil {
		return nil, w.err
	}
	if w.captures(r.Prefix, r.Metric) {
		return nil, fmt.Errorf("%w: %s would be reached by the route itself", errUnresolved, addr)
	}
	var hops []hop
	var failed error
	for _, h := range w.hops {
		if err := guard.judge(t.kernel, r.Prefix, h); err != nil {
			failed = err
			continue
		}
		hops = append(hops, h)
	}
	if len(hops) > 0 {
		failed = nil
	}
	return hops, failed
}

// astray says whether a route that is there leads where its prefix may not go.
func (t *Table) astray(guard tunnels, r Route) bool {
	return slices.ContainsFunc(r.NextHops, func(addr netip.Addr) bool {
		_, err := t.usable(guard, r, addr)
		return errors.Is(err, errStrict) || errors.Is(err, errEndpoint)
	})
}

// install writes the route unless the kernel has it. Only a route known as ours is replaced.
func (t *Table) install(want held, have routes) error {
	i := have.at(want.place())
	switch {
	case i < 0:
		if err := t.kernel.add(want); err != nil {
			return err
		}
	case !slices.Equal(have[i].hops, want.hops):
		if err := t.kernel.replace(want); err != nil {
			return err
		}
	}
	t.mu.Lock()
	t.note(want)
	t.mu.Unlock()
	if i < 0 || !slices.Equal(have[i].via, want.via) {
		t.changed(want.Prefix)
	}
	return nil
}

// changed looks ways up again before the next prefix is written, where one may lead through this one.
func (t *Table) changed(prefix netip.Prefix) {
	if t.led(prefix) {
		t.retrack()
	}
}

// drop removes a route; that it is gone already is as good.
func (t *Table) drop(r Route) {
	if err := t.kernel.remove(r); err != nil {
		_ = t.refused(r.Prefix, err)
		return
	}
	t.mu.Lock()
	there := t.installed[r.Prefix]
	if i := there.at(r.place()); i >= 0 {
		there = slices.Delete(there, i, i+1)
	}
	if t.installed[r.Prefix] = there; len(there) == 0 {
		delete(t.installed, r.Prefix)
	}
	t.mu.Unlock()
	t.changed(r.Prefix)
}

// note records what the kernel holds. t.mu is held, or t is not shared yet.
func (t *Table) note(r held) {
	there := t.installed[r.Prefix]
	if i := there.at(r.place()); i >= 0 {
		there[i] = r
		return
	}
	t.installed[r.Prefix] = append(there, r)
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
	if !again {
		t.log.Warn("learned route not installed", "prefix", prefix, "error", err)
	}
	return err
}

// distinct are at most limit hops, in order.
func distinct(hops []hop, limit int) []hop {
	slices.SortFunc(hops, func(a, b hop) int { return cmp.Or(a.addr.Compare(b.addr), a.link-b.link) })
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
