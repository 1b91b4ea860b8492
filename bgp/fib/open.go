package fib

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Open takes over the routes of protocol 186 that the main table of a namespace holds (netns.None: of the process's own) and
// starts the writer; those of another table when a policy names it. It installs nothing before SetPolicy. lost hears of links that
// went down or lost their carrier, by index; it must not block, and may be nil.
func Open(log *slog.Logger, ns netns.NsHandle, lost func(link int)) (*Table, error) {
	k, err := dial(ns)
	if err != nil {
		return nil, err
	}
	heard, err := subscribe(ns, k.port) // before anything is looked up: nothing falls in between
	if err != nil {
		k.close()
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	t := &Table{
		log: log, kernel: k, lost: lost, cancel: cancel, done: make(chan struct{}), wake: make(chan struct{}, 1),
		ways: map[netip.Addr]way{}, uses: map[netip.Addr]int{}, news: news{down: map[int]struct{}{}},
		learned: map[netip.Prefix]map[Source]netip.Addr{}, dirty: map[netip.Prefix]struct{}{},
		groups:  groups{kernel: k, of: map[uint32]*group{}, keyed: map[string]*group{}},
		waiting: map[netip.Prefix]error{}, installed: map[netip.Prefix]map[place]held{},
	}
	context.AfterFunc(ctx, heard.Close) // wakes the reader
	if err = t.groups.adopt(); err == nil {
		err = t.adopt(unix.RT_TABLE_MAIN)
	}
	if err != nil {
		cancel()
		k.close()
		return nil, err
	}
	go t.follow(heard)
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

// Flush removes our nexthop objects, and every route of protocol 186 from the main table of a namespace, and from another one (0: none).
func Flush(ns netns.NsHandle, table int) error {
	k, err := dial(ns)
	if err != nil {
		return err
	}
	defer k.close()
	var failed error
	for _, table := range slices.Compact([]int{unix.RT_TABLE_MAIN, cmp.Or(table, unix.RT_TABLE_MAIN)}) {
		routes, err := k.list(table)
		if err != nil {
			return fmt.Errorf("list the kernel's routes of protocol %d in table %d: %w", Protocol, table, err)
		}
		for _, r := range routes {
			failed = errors.Join(failed, k.remove(r.Route))
		}
	}
	objects, err := k.objects()
	for _, o := range objects {
		failed = errors.Join(failed, k.delete(o.id))
	}
	return errors.Join(failed, err)
}

// recount looks for what is still there of ours, since somebody else changed some of it.
func (t *Table) recount() {
	t.mu.Lock()
	defer t.mu.Unlock()
	err := t.groups.adopt()
	there := map[netip.Prefix]map[place]uint32{}
	for _, table := range t.tables {
		routes, failed := t.kernel.list(table)
		err = errors.Join(err, failed)
		for _, r := range routes {
			if there[r.Prefix] == nil {
				there[r.Prefix] = map[place]uint32{}
			}
			there[r.Prefix][r.place()] = r.group
		}
	}
	if err != nil {
		t.log.Warn("learned routes may be missing", "error", err)
		return
	}
	for prefix, known := range t.installed {
		for at, r := range known {
			by, is := there[prefix][at]
			if is && by == r.group && (by == 0 || t.groups.of[by] != nil) {
				continue
			}
			t.dirty[prefix] = struct{}{}
			if t.forget(r); is {
				r.group = by
				t.note(r)
			}
		}
	}
}
