package fib

import "slices"

// install writes the route unless the kernel has it. Only a route known as ours is replaced.
func (t *Table) install(want Route, c choice, have []held) error {
	follows := c.via
	if c.alone {
		follows = nil
	}
	t.mu.Lock()
	by, failed := t.groups.take(keyOf(follows, c.hops), follows, c.hops)
	i := slices.IndexFunc(have, func(r held) bool { return r.place() == want.place() })
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
	t.note(held{Route: want, group: by.id, via: c.via})
	t.mu.Unlock()
	if i < 0 || !slices.Equal(have[i].via, c.via) {
		t.changed(want.Prefix)
	}
	return failed
}

// drop removes a route; that it is gone already is as good.
func (t *Table) drop(r held) {
	t.mu.Lock()
	with := r.group != 0 && t.groups.of[r.group] == nil // its group, of a million routes perhaps
	t.mu.Unlock()
	if !with {
		if err := t.kernel.remove(r.Route); err != nil {
			_ = t.refused(r.Prefix, err)
			return
		}
	}
	t.mu.Lock()
	t.forget(r)
	t.mu.Unlock()
	t.changed(r.Prefix)
}

// note records what the kernel holds. t.mu is held, or t is not shared yet.
func (t *Table) note(r held) {
	t.forget(r)
	if t.installed[r.Prefix] == nil {
		t.installed[r.Prefix] = make(map[place]held, 1)
	}
	t.installed[r.Prefix][r.place()] = r
	if g := t.groups.of[r.group]; g != nil {
		g.routes++
	}
}

// forget is the inverse of note.
func (t *Table) forget(r held) {
	there := t.installed[r.Prefix]
	old, known := there[r.place()]
	if !known {
		return
	}
	if g := t.groups.of[old.group]; g != nil {
		g.routes--
	}
	if delete(there, r.place()); len(there) == 0 {
		delete(t.installed, r.Prefix)
	}
}
