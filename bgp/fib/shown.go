package fib

import (
	"cmp"
	"net/netip"

	"sluice/bgp/shortlist"
)

// Route is what the kernel holds of ours for a prefix and metric, or what was learned and the kernel was not given.
type Route struct {
	Prefix   netip.Prefix
	Metric   int
	Table    int
	NextHops []netip.Addr // gateways, sorted; a link-local one has its interface as zone. Absent: as learned. Not to be changed
	Stale    bool         // kept from an earlier life, not learned again yet
	Absent   bool         // not in the kernel
	Problem  string       // why it is absent, or not by all of its next hops
}

func (r Route) place() place { return place{r.Table, r.Metric} }

// Query chooses routes.
type Query struct {
	About netip.Prefix // those that cover it, and those within it; invalid: all
	Limit int          // the first so many; 0: all
}

// Shown are routes that a query chose.
type Shown struct {
	Routes               []Route // sorted by prefix, metric and table
	Total, Stale, Absent int     // beyond the limit, too
}

func (r Route) compare(with Route) int {
	return cmp.Or(r.Prefix.Compare(with.Prefix), r.Metric-with.Metric, r.Table-with.Table)
}

// Routes returns what is installed, and what is learned and has no way into the kernel.
func (t *Table) Routes(q Query) (out Shown) {
	list := shortlist.New(q.Limit, Route.compare)
	out.Stale, out.Absent = t.walk(q, list)
	out.Routes, out.Total = list.First() // sorts
	return out
}

// walk lists the routes that a query chooses. The writer waits meanwhile, so a million of them are neither held nor sorted for the sake of a few.
func (t *Table) walk(q Query, list *shortlist.List[Route]) (stale, absent int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	by := t.groups.gateways()
	for prefix, there := range t.installed {
		if !q.chooses(prefix) {
			continue
		}
		for _, r := range there {
			if r.stale {
				stale++
			}
			list.Add(Route{Prefix: prefix, Metric: r.metric, Table: r.table, NextHops: r.leads(by), Stale: r.stale, Problem: t.problem(prefix)})
		}
	}
	for prefix := range t.waiting {
		set := t.learned[prefix]
		if set == nil || len(t.installed[prefix]) > 0 || !q.chooses(prefix) {
			continue
		}
		absent++
		list.Add(Route{Prefix: prefix, Metric: t.policy.Metric, Table: t.policy.Table, NextHops: set.nextHops, Absent: true, Problem: t.problem(prefix)})
	}
	return stale, absent
}

func (q Query) chooses(p netip.Prefix) bool { return !q.About.IsValid() || p.Overlaps(q.About) }

// problem is why a prefix is to be tried again; "": it is not.
func (t *Table) problem(prefix netip.Prefix) string {
	if why := t.waiting[prefix]; why != nil && t.learned[prefix] != nil {
		return why.Error()
	}
	return ""
}
