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
	"sync/atomic"
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
	taken  func(prefixes int)
	gone   int                // prefixes that somebody took routes of, and nobody was told; the writer's alone, as blamed
	blamed time.Time          // when somebody was told last
	ways   map[netip.Addr]way // to next hops; the writer's alone
	afar   []netip.Addr       // those of them that are on no link, sorted
	now    *view              // of this pass; nil: nothing was looked up
	turn   int                // of ways: a choice of an earlier one is none
	vigil  vigil
	cancel context.CancelFunc
	done   chan struct{}
	wake   chan struct{} // holds one: something to do
	kept   atomic.Bool   // there was a route of an earlier life

	mu        sync.Mutex
	policy    Policy
	tunnels   tunnels                 // of the policy
	dead      map[netip.Addr]struct{} // neighbors
	learned   map[netip.Prefix]*pathSet
	sets      pathSets
	news      news
	carriers  carriers
	dirty     map[netip.Prefix]struct{}
	waiting   map[netip.Prefix]error // and why
	sweep     bool
	swept     bool
	tables    []int                   // that were looked into for what is there
	groups    groups                  // changed by the one goroutine, under mu
	installed map[netip.Prefix]routes // written by the one goroutine, under mu
	counters  Counters
}

// place is where a prefix may have one route of ours.
type place struct{ table, metric int }

// held is how a route of ours got into the kernel. Routes that got there alike share one, so nothing in it changes.
type held struct {
	place
	group    uint32       // the object that it goes by; 0: written by a version that had none
	via      []netip.Addr // the next hops that led there, as learned
	gateways []netip.Addr // of one without an object, sorted
	stale    bool         // kept from an earlier life, not learned again yet
}

// routes are those of a prefix, one at each place.
type routes []*held

// index finds the one at a place; -1: there is none.
func (r routes) index(at place) int {
	return slices.IndexFunc(r, func(one *held) bool { return one.place == at })
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
		was := t.learned[prefix]
		if is := t.said(was, path{from, nextHop}); is != was {
			t.learned[prefix] = is
			t.dirty[prefix] = struct{}{}
		}
	})
}

// Withdraw notes that the source has no path to the prefix any more.
func (t *Table) Withdraw(prefix netip.Prefix, from Source) {
	t.change(func() {
		was := t.learned[prefix]
		is := t.said(was, path{from: from})
		if is == was {
			return
		}
		if t.learned[prefix] = is; is == nil {
			delete(t.learned, prefix)
		}
		t.dirty[prefix] = struct{}{}
	})
}

// said is the set of a prefix after a change, with t.mu held. Which sets there are says who told of a next hop, and so whether it is dead.
func (t *Table) said(was *pathSet, by path) *pathSet {
	turn := t.sets.turn
	is := t.sets.follow(was, by)
	t.news.moved = t.news.moved || len(t.dead) > 0 && t.sets.turn != turn
	return is
}

// Dead notes that a neighbor does not forward any more, or does again: with it go the next hops that nobody else told of. Its routes move at once, by their
// groups, and need not wait until each path is withdrawn.
func (t *Table) Dead(neighbor netip.Addr, is bool) {
	t.change(func() {
		if _, was := t.dead[neighbor]; was == is {
			return
		}
		if t.dead[neighbor] = struct{}{}; !is {
			delete(t.dead, neighbor)
		}
		t.news.moved = true
	})
}

// Sweep removes the routes that were kept and not learned again, after everything noted before it is written.
func (t *Table) Sweep() { t.change(func() { t.sweep = true }) }

// Kept says whether there were routes of an earlier life, which Sweep is about.
func (t *Table) Kept() bool { return t.kept.Load() }

// NextHops returns the gateways of what is installed, each with a prefix that goes by it.
func (t *Table) NextHops() map[netip.Addr]netip.Prefix {
	t.mu.Lock()
	defer t.mu.Unlock()
	out, seen, by := map[netip.Addr]netip.Prefix{}, map[*held]bool{}, t.groups.gateways()
	for prefix, there := range t.installed {
		for _, r := range there {
			if seen[r] {
				continue
			}
			seen[r] = true
			for _, addr := range r.leads(by) {
				out[addr] = prefix
			}
		}
	}
	return out
}

// leads are the gateways of a route; by are those of groups. One whose group went, and that is not written anew yet, has what it was learned with.
func (h *held) leads(by map[uint32][]netip.Addr) []netip.Addr {
	if hops, known := by[h.group]; known {
		return hops
	}
	if h.group != 0 {
		return h.via
	}
	return h.gateways
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
