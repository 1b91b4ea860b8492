// Package fib writes learned routes to a table of the kernel, the main one by default: protocol 186, our own metric, multipath.
//
// The caller reports paths as they come (Update, Withdraw are short: they only note the change); one goroutine writes.
// Routes of protocol 186 that are already there are kept when a Table opens, each until it is learned again, and
// Sweep removes what was not. Close leaves the kernel as it is. A route of another protocol is never touched, not
// even where it stands in the way: that is a conflict, counted and tried again.
//
// There is no next hop tracking: a next hop must be on a link. One that is not is left out, counted, and tried again.
package fib

import (
	"cmp"
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Protocol marks our routes (rtm_protocol). 186 is what BGP daemons use, see rtnetlink.h.
const Protocol = 186

// DefaultMetric is the rtnetlink priority of a Policy that names none.
const DefaultMetric = 20

// retryAfter is how long a prefix waits that could not be written.
const retryAfter = 3 * time.Second

// Policy says which learned prefixes are installed and how. The zero Policy installs nothing.
type Policy struct {
	ECMP    int // next hops per prefix; below 1 counts as 1
	Metric  int // 0 counts as DefaultMetric: the kernel has a different default for each family
	Table   int // 0 counts as the main one
	Accept  []Match
	Tunnels []Tunnel
}

// Match matches prefixes inside Prefix whose length is between GE and LE, both inclusive.
type Match struct {
	Prefix netip.Prefix
	GE, LE int
}

// Allows reports whether p may be installed, as far as Accept says. Address families never match each other.
func (p Policy) Allows(prefix netip.Prefix) bool {
	return slices.ContainsFunc(p.Accept, func(m Match) bool {
		return inside(m.Prefix, prefix) && m.GE <= prefix.Bits() && prefix.Bits() <= m.LE
	})
}

// Source tells apart the paths to one prefix.
type Source struct {
	Neighbor netip.Addr
	PathID   uint32 // RFC 7911; 0 without it
}

// Route is what the kernel holds of ours for a prefix and metric.
type Route struct {
	Prefix   netip.Prefix
	Metric   int
	Table    int
	NextHops []netip.Addr // sorted; a link-local one has its interface as zone
	Stale    bool         // kept from an earlier life, not learned again yet
}

// Counters only grow, but for Waiting.
type Counters struct {
	Unresolved uint64 // next hops left out because they are on no link
	Conflicts  uint64 // routes of another protocol in the way
	Circular   uint64 // next hops left out because a tunnel's own packets would take the way into one
	Failures   uint64 // other refusals of the kernel
	Waiting    int    // prefixes that will be tried again
}

// Table is the writer. Make one with Open.
type Table struct {
	log    *slog.Logger
	kernel kernel
	cancel context.CancelFunc
	done   chan struct{}
	wake   chan struct{} // holds one: something to do

	mu        sync.Mutex
	policy    Policy
	tunnels   tunnels                 // of the policy
	learned   map[netip.Prefix][]path // lists, not maps: of a full table nearly all have one entry, and a map of one takes ten times as much
	dirty     map[netip.Prefix]struct{}
	waiting   map[netip.Prefix]struct{}
	sweep     bool
	swept     bool
	tables    []int                    // that were looked into for what is there
	installed map[netip.Prefix][]Route // one at each place; written by the one goroutine, under mu
	counters  Counters
}

// path is what a source said of a prefix.
type path struct {
	from    Source
	nextHop netip.Addr
}

// said finds what a source said; -1: nothing.
func said(paths []path, from Source) int {
	return slices.IndexFunc(paths, func(p path) bool { return p.from == from })
}

// place is where a prefix may have one route of ours.
type place struct{ table, metric int }

func (r Route) place() place { return place{r.Table, r.Metric} }

// SetPolicy makes every prefix be judged anew, kept stale ones included.
func (t *Table) SetPolicy(p Policy) {
	p.Metric, p.Table = cmp.Or(p.Metric, DefaultMetric), cmp.Or(p.Table, unix.RT_TABLE_MAIN)
	if err := t.adopt(p.Table); err != nil {
		t.log.Warn("routes of an earlier process may be left", "table", p.Table, "error", err)
	}
	t.change(func() {
		t.policy = p
		t.tunnels = newTunnels(p.Tunnels)
		for prefix := range t.learned {
			t.dirty[prefix] = struct{}{}
		}
		for prefix := range t.installed {
			t.dirty[prefix] = struct{}{}
		}
	})
}

// Update notes a path: prefix through next hop, in place of what the source said before.
func (t *Table) Update(prefix netip.Prefix, from Source, nextHop netip.Addr) {
	t.change(func() {
		paths := t.learned[prefix]
		if i := said(paths, from); i >= 0 {
			paths[i].nextHop = nextHop
		} else {
			t.learned[prefix] = append(paths, path{from, nextHop})
		}
		t.dirty[prefix] = struct{}{}
	})
}

// Withdraw notes that the source has no path to the prefix any more.
func (t *Table) Withdraw(prefix netip.Prefix, from Source) {
	t.change(func() {
		paths := t.learned[prefix]
		i := said(paths, from)
		if i < 0 {
			return
		}
		if paths = slices.Delete(paths, i, i+1); len(paths) == 0 {
			delete(t.learned, prefix)
		} else {
			t.learned[prefix] = paths
		}
		t.dirty[prefix] = struct{}{}
	})
}

// Sweep removes the routes that were kept and not learned again, after everything noted before it is written.
func (t *Table) Sweep() { t.change(func() { t.sweep = true }) }

// Routes returns what is installed, sorted by prefix and metric.
func (t *Table) Routes() []Route {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []Route
	for _, there := range t.installed {
		out = append(out, there...)
	}
	slices.SortFunc(out, func(a, b Route) int {
		return cmp.Or(a.Prefix.Compare(b.Prefix), a.Metric-b.Metric, a.Table-b.Table)
	})
	return out
}

// Counters returns what went wrong so far.
func (t *Table) Counters() Counters {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.counters
	c.Waiting = len(t.waiting)
	return c
}

// Close stops the writer and waits for it. The kernel keeps its routes.
func (t *Table) Close() {
	t.cancel()
	<-t.done
}

func (t *Table) change(f func()) {
	t.mu.Lock()
	f()
	t.mu.Unlock()
	select {
	case t.wake <- struct{}{}:
	default:
	}
}
