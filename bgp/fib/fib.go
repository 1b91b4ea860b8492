// Package fib writes learned routes to a table of the kernel, the main one by default: protocol 186, our own metric, multipath.
//
// The caller reports paths as they come (Update, Withdraw are short: they only note the change); one goroutine writes.
// Routes go by nexthop objects that they share (group.go). Routes of protocol 186 that are already there are kept when a Table opens, each until it is learned again, and
// Sweep removes what was not. Close leaves the kernel as it is. A route of another protocol is never touched, not
// even where it stands in the way: that is a conflict, counted and tried again.
//
// A next hop is looked up in the kernel's table, through other learned routes as well, and never through the route that it is of. One that has no
// way is left out, and counted; it comes when the kernel tells that a way came, and goes when it went.
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
	NextHops []netip.Addr // gateways, sorted; a link-local one has its interface as zone
	Stale    bool         // kept from an earlier life, not learned again yet
}

// Refusal is a learned prefix that is not in the kernel by all of its next hops.
type Refusal struct {
	Prefix   netip.Prefix
	NextHops []netip.Addr // as learned
	Why      string
}

// Counters only grow, but for Waiting.
type Counters struct {
	Unresolved uint64 // next hops left out because they have no way
	Conflicts  uint64 // routes of another protocol in the way
	Circular   uint64 // next hops left out because a tunnel's own packets would take the way into one
	Failures   uint64 // other refusals of the kernel
	Waiting    int    // prefixes that will be tried again
}

// Table is the writer. Make one with Open.
type Table struct {
	log    *slog.Logger
	kernel kernel
	lost   func(link int)
	ways   map[netip.Addr]way // to next hops; the writer's alone
	afar   []netip.Addr       // those of them that are on no link, sorted
	now    *view              // of this pass; nil: nothing was looked up
	cancel context.CancelFunc
	done   chan struct{}
	wake   chan struct{} // holds one: something to do

	mu        sync.Mutex
	policy    Policy
	tunnels   tunnels // of the policy
	learned   map[netip.Prefix]map[Source]netip.Addr
	uses      map[netip.Addr]int // paths by next hop
	news      news
	dirty     map[netip.Prefix]struct{}
	waiting   map[netip.Prefix]error // and why
	sweep     bool
	swept     bool
	tables    []int                           // that were looked into for what is there
	groups    groups                          // changed by the one goroutine, under mu
	installed map[netip.Prefix]map[place]held // written by the one goroutine, under mu
	counters  Counters
}

// place is where a prefix may have one route of ours.
type place struct{ table, metric int }

func (r Route) place() place { return place{r.Table, r.Metric} }

// held is a route with how it got there.
type held struct {
	Route
	group uint32       // the object that it goes by; 0: written by a version that had none
	via   []netip.Addr // the next hops that led there, as learned
}

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
		if paths == nil {
			paths = make(map[Source]netip.Addr, 1)
			t.learned[prefix] = paths
		}
		t.unused(paths, from)
		paths[from] = nextHop
		t.uses[nextHop]++
		t.dirty[prefix] = struct{}{}
	})
}

// Withdraw notes that the source has no path to the prefix any more.
func (t *Table) Withdraw(prefix netip.Prefix, from Source) {
	t.change(func() {
		paths := t.learned[prefix]
		if _, known := paths[from]; !known {
			return
		}
		t.unused(paths, from)
		if delete(paths, from); len(paths) == 0 {
			delete(t.learned, prefix)
		}
		t.dirty[prefix] = struct{}{}
	})
}

// unused counts the path of a source, if there is one, off its next hop.
func (t *Table) unused(paths map[Source]netip.Addr, from Source) {
	old, known := paths[from]
	if !known {
		return
	}
	if t.uses[old]--; t.uses[old] == 0 {
		delete(t.uses, old)
	}
}

// Sweep removes the routes that were kept and not learned again, after everything noted before it is written.
func (t *Table) Sweep() { t.change(func() { t.sweep = true }) }

// Routes returns what is installed, sorted by prefix and metric.
func (t *Table) Routes() []Route {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []Route
	for _, there := range t.installed {
		for _, r := range there {
			if by := t.groups.of[r.group]; by != nil {
				r.NextHops = addresses(by.hops)
			}
			out = append(out, r.Route)
		}
	}
	slices.SortFunc(out, func(a, b Route) int {
		return cmp.Or(a.Prefix.Compare(b.Prefix), a.Metric-b.Metric, a.Table-b.Table)
	})
	return out
}

// Refusals returns what is learned and not in the kernel as it was learned, sorted by prefix.
func (t *Table) Refusals() []Refusal {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]Refusal, 0, len(t.waiting))
	for prefix, why := range t.waiting {
		if paths := t.learned[prefix]; len(paths) > 0 {
			out = append(out, Refusal{prefix, nextHops(paths), why.Error()})
		}
	}
	slices.SortFunc(out, func(a, b Refusal) int { return a.Prefix.Compare(b.Prefix) })
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
	t.kernel.close()
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
