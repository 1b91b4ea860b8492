package fib

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Open takes over the routes of protocol 186 that the main table of the handle's namespace holds and starts the writer; those
// of another table when a policy names it. It installs nothing before SetPolicy. The handle must stay open until Close returned.
func Open(log *slog.Logger, h *netlink.Handle) (*Table, error) {
	ctx, cancel := context.WithCancel(context.Background())
	t := &Table{
		log: log, kernel: kernel{h}, cancel: cancel, done: make(chan struct{}), wake: make(chan struct{}, 1),
		learned: map[netip.Prefix][]path{}, dirty: map[netip.Prefix]struct{}{},
		waiting: map[netip.Prefix]struct{}{}, installed: map[netip.Prefix][]Route{},
	}
	if err := t.adopt(unix.RT_TABLE_MAIN); err != nil {
		cancel()
		return nil, err
	}
	go t.run(ctx)
	return t, nil
}

// adopt notes what a table holds of ours, once. After the sweep nothing of an earlier life is worth keeping.
func (t *Table) adopt(table int) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if slices.Contains(t.tables, table) {
		return nil
	}
	kept, err := t.kernel.list(table)
	if err != nil {
		return fmt.Errorf("list the kernel's routes of protocol %d in table %d: %w", Protocol, table, err)
	}
	for _, r := range kept {
		r.Stale = !t.swept
		t.note(r)
	}
	t.tables = append(t.tables, table)
	return nil
}

// Flush removes every route of protocol 186 from the main table of the handle's namespace, and from another one (0: none).
func Flush(h *netlink.Handle, table int) error {
	k := kernel{h}
	var failed error
	for _, table := range slices.Compact([]int{unix.RT_TABLE_MAIN, cmp.Or(table, unix.RT_TABLE_MAIN)}) {
		routes, err := k.list(table)
		if err != nil {
			return fmt.Errorf("list the kernel's routes of protocol %d in table %d: %w", Protocol, table, err)
		}
		for _, r := range routes {
			failed = errors.Join(failed, k.remove(r))
		}
	}
	return failed
}

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
			for prefix := range t.waiting {
				t.dirty[prefix] = struct{}{}
			}
			// What leads an endpoint past a tunnel's device may be anybody's route, and go.
			for prefix := range t.tunnels.around {
				if t.installed[prefix] != nil {
					t.dirty[prefix] = struct{}{}
				}
			}
			t.mu.Unlock()
		}
		t.write(ctx)
	}
}

// write brings the dirty prefixes to the kernel, then sweeps if asked to.
func (t *Table) write(ctx context.Context) {
	t.mu.Lock()
	dirty, sweep := t.dirty, t.sweep
	t.swept = t.swept || sweep
	t.dirty, t.sweep = map[netip.Prefix]struct{}{}, false
	t.mu.Unlock()
	links := newLinks(t.kernel)
	for prefix := range dirty {
		if ctx.Err() != nil {
			return
		}
		err := t.sync(prefix, links)
		t.mu.Lock()
		if delete(t.waiting, prefix); err != nil {
			t.waiting[prefix] = struct{}{}
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
func (t *Table) sync(prefix netip.Prefix, links *links) error {
	t.mu.Lock()
	allowed := t.policy.Allows(prefix)
	want := Route{Prefix: prefix, Metric: t.policy.Metric, Table: t.policy.Table}
	if allowed {
		want.NextHops = nextHops(t.learned[prefix])
	}
	ecmp, known, tunnels := max(t.policy.ECMP, 1), len(want.NextHops) > 0, t.tunnels
	have := slices.Clone(t.installed[prefix])
	t.mu.Unlock()

	var hops []hop
	var failed error
	for _, addr := range want.NextHops {
		h, err := t.usable(tunnels, links, prefix, addr)
		if errors.Is(err, errStrict) {
			continue // for as long as the policy says so
		}
		if err != nil {
			failed = t.refused(prefix, err)
			continue
		}
		if hops = append(hops, h); len(hops) == ecmp {
			break
		}
	}
	want.NextHops = links.list(hops)
	if len(hops) > 0 {
		if err := t.install(want, hops, have); err != nil {
			return t.refused(prefix, err)
		}
	}
	for _, r := range have {
		// What is stale waits for the sweep, unless it is no longer allowed or has just been learned at our metric.
		if keep := len(hops) > 0 && r.place() == want.place(); !keep && (!r.Stale || !allowed || known || t.astray(tunnels, links, r)) {
			t.drop(r)
		}
	}
	return failed
}

// usable is a next hop on its link, if the prefix may go there.
func (t *Table) usable(guard tunnels, links *links, prefix netip.Prefix, addr netip.Addr) (hop, error) {
	h, err := links.resolve(addr)
	if err == nil {
		err = guard.judge(t.kernel, prefix, h)
	}
	return h, err
}

// astray says whether a route that is there leads where its prefix may not go.
func (t *Table) astray(guard tunnels, links *links, r Route) bool {
	return slices.ContainsFunc(r.NextHops, func(addr netip.Addr) bool {
		_, err := t.usable(guard, links, r.Prefix, addr)
		return errors.Is(err, errStrict) || errors.Is(err, errEndpoint)
	})
}

// install writes the route unless the kernel has it. Only a route known as ours is replaced.
func (t *Table) install(want Route, hops []hop, have []Route) error {
	i := slices.IndexFunc(have, func(r Route) bool { return r.place() == want.place() })
	switch {
	case i < 0:
		if err := t.kernel.add(want, hops); err != nil {
			return err
		}
	case !slices.Equal(have[i].NextHops, want.NextHops):
		if err := t.kernel.replace(want, hops); err != nil {
			return err
		}
	}
	t.mu.Lock()
	t.note(want)
	t.mu.Unlock()
	return nil
}

// drop removes a route; that it is gone already is as good.
func (t *Table) drop(r Route) {
	if err := t.kernel.remove(r); err != nil {
		_ = t.refused(r.Prefix, err)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	left := slices.DeleteFunc(t.installed[r.Prefix], func(one Route) bool { return one.place() == r.place() })
	if len(left) == 0 {
		delete(t.installed, r.Prefix)
		return
	}
	t.installed[r.Prefix] = left
}

// note records what the kernel holds. t.mu is held, or t is not shared yet.
func (t *Table) note(r Route) {
	there := t.installed[r.Prefix]
	if i := slices.IndexFunc(there, func(one Route) bool { return one.place() == r.place() }); i >= 0 {
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

// nextHops returns the distinct next hops in order, so that the same paths give the same route.
func nextHops(paths []path) []netip.Addr {
	out := make([]netip.Addr, 0, len(paths))
	for _, p := range paths {
		out = append(out, p.nextHop)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}
