package fib

import (
	"net/netip"
	"slices"
)

// install writes the route unless the kernel has it. Only a route known as ours is replaced.
func (t *Table) install(want Route, c *choice, have routes) error {
	t.mu.Lock()
	by, failed := t.groups.choose(c)
	i := have.index(want.place())
	lost := i >= 0 && have[i].group != 0 && t.groups.of[have[i].group] == nil // it went with its group
	t.mu.Unlock()
	if by == nil {
		return failed
	}
	var err error
	switch {
	case i < 0 || lost:
		err = t.kernel.add(want, by.id)
	case have[i].group != by.id:
		err = t.kernel.replace(want, by.id)
	}
	if err != nil {
		return err
	}
	t.mu.Lock()
	t.note(want.Prefix, by.record(want.place(), c.via))
	t.mu.Unlock()
	if i < 0 || !slices.Equal(have[i].via, c.via) {
		t.changed(want.Prefix)
	}
	return failed
}

// drop removes a route; that it is gone already is as good.
func (t *Table) drop(prefix netip.Prefix, r *held) {
	t.mu.Lock()
	with := r.group != 0 && t.groups.of[r.group] == nil // its group, of a million routes perhaps
	t.mu.Unlock()
	if !with {
		if err := t.kernel.remove(Route{Prefix: prefix, Metric: r.metric, Table: r.table}); err != nil {
			_ = t.refused(prefix, err)
			return
		}
	}
	t.mu.Lock()
	t.forget(prefix, r.place)
	t.mu.Unlock()
	t.changed(prefix)
}

// note records what the kernel holds. t.mu is held, or t is not shared yet.
func (t *Table) note(prefix netip.Prefix, r *held) {
	there := t.installed[prefix]
	if i := there.index(r.place); i >= 0 {
		t.count(there[i], -1)
		there[i] = r
	} else {
		t.installed[prefix] = append(there, r)
	}
	t.count(r, 1)
}

// forget is the inverse of note.
func (t *Table) forget(prefix netip.Prefix, at place) {
	there := t.installed[prefix]
	i := there.index(at)
	if i < 0 {
		return
	}
	t.count(there[i], -1)
	if there = slices.Delete(there, i, i+1); len(there) == 0 {
		delete(t.installed, prefix)
	} else {
		t.installed[prefix] = there
	}
}

func (t *Table) count(r *held, n int) {
	if g := t.groups.of[r.group]; g != nil {
		g.routes += n
	}
}
