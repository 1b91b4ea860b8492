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

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Open takes over the routes of protocol 186 that the main table of a namespace holds (netns.None: of the process's own) and
// starts the writer; those of another table when a policy names it. It installs nothing before SetPolicy. lost hears of links that
// went down or lost their carrier, by index, taken of prefixes whose routes somebody else deleted or changed; they must not block, and may be nil.
func Open(log *slog.Logger, ns netns.NsHandle, lost func(link int), taken func(prefixes int)) (*Table, error) {
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
		vigil: newVigil(), carriers: carriers{},
		log: log, kernel: k, lost: lost, taken: taken, cancel: cancel, done: make(chan struct{}), wake: make(chan struct{}, 1),
		ways: map[netip.Addr]way{}, news: news{down: map[int]struct{}{}},
		dead:    map[netip.Addr]struct{}{},
		learned: map[netip.Prefix]*pathSet{}, sets: newPathSets(), dirty: map[netip.Prefix]struct{}{},
		groups:  groups{kernel: k, of: map[uint32]*group{}, keyed: map[string]*group{}},
		waiting: map[netip.Prefix]error{}, installed: map[netip.Prefix]routes{},
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
	t.vigil.begin() // what was told before that was not heard
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
	stale := map[*held]*held{}
	for _, r := range kept {
		if stale[r.held] == nil {
			one := *r.held
			one.stale = !t.swept
			stale[r.held] = &one
		}
		t.note(r.prefix, stale[r.held])
	}
	if len(kept) > 0 && !t.swept {
		t.kept.Store(true)
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
	// The kernel drops what goes by a group with the group: a million routes at once.
	objects, failed := k.objects()
	slices.SortStableFunc(objects, func(a, b object) int { return len(b.members) - len(a.members) })
	for _, o := range objects {
		failed = errors.Join(failed, k.delete(o.id))
	}
	for _, table := range slices.Compact([]int{unix.RT_TABLE_MAIN, cmp.Or(table, unix.RT_TABLE_MAIN)}) {
		routes, err := k.list(table)
		if err != nil {
			return fmt.Errorf("list the kernel's routes of protocol %d in table %d: %w", Protocol, table, err)
		}
		for _, r := range routes {
			failed = errors.Join(failed, k.remove(Route{Prefix: r.prefix, Metric: r.metric, Table: r.table}))
		}
	}
	return failed
}

// recount looks for what is still there of ours, since somebody else changed some of it, and counts the prefixes that he did it to.
func (t *Table) recount() (gone int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	err := t.groups.adopt()
	there := map[netip.Prefix]routes{}
	for _, table := range t.tables {
		list, failed := t.kernel.list(table)
		err = errors.Join(err, failed)
		for _, r := range list {
			there[r.prefix] = append(there[r.prefix], r.held)
		}
	}
	if err != nil {
		t.log.Warn("learned routes may be missing", "error", err)
		return 0
	}
	for prefix, known := range t.installed {
		same := func(r *held) bool {
			i := there[prefix].index(r.place)
			return i >= 0 && there[prefix][i].group == r.group && (r.group == 0 || t.groups.of[r.group] != nil)
		}
		if !slices.ContainsFunc(known, func(r *held) bool { return !same(r) }) { // nearly all of a million
			continue
		}
		gone++
		for _, r := range slices.Clone(known) {
			if same(r) {
				continue
			}
			i := there[prefix].index(r.place)
			t.dirty[prefix] = struct{}{}
			if t.forget(prefix, r.place); i >= 0 {
				now := *r
				now.group = there[prefix][i].group
				t.note(prefix, &now)
			}
		}
	}
	return gone
}

// tellRest is between two times that somebody is told of what others do.
const tellRest = time.Second

// blame tells of routes that somebody else took. Where a link was lost the kernel took some itself.
func (t *Table) blame() {
	if t.gone == 0 || time.Since(t.blamed) < tellRest {
		return
	}
	t.log.Warn("learned routes were deleted or changed by another program, and come back", "prefixes", t.gone)
	if t.taken != nil {
		t.taken(t.gone)
	}
	t.gone, t.blamed = 0, time.Now()
}
