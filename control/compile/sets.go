package compile

import (
	"fmt"
	"net/netip"
	"slices"

	"sluice/control/config"
)

// set returns the prefixes of a set: never nil, sorted, and always the same slice, that of the last compilation where they
// are the same.
func (c *compiler) set(name string) []netip.Prefix {
	if known, ok := c.now.sets[name]; ok {
		return known.to
	}
	from := c.setParts(c.cfg.SetByName(name))
	list := from[0]
	if len(from) > 1 {
		list = slices.Concat(from...)
	}
	if list = sortedPrefixes(list); list == nil {
		list = []netip.Prefix{} // nil would be every address
	}
	c.now.sets[name] = resolvedSet{from, list}
	return list
}

// setParts are the lists that a set is made of. What a watched file holds is sorted already, and it may be a million.
func (c *compiler) setParts(s *config.Set) [][]netip.Prefix {
	parts := [][]netip.Prefix{s.Prefixes}
	if len(s.Prefixes) == 0 && len(s.Watched) == 1 {
		parts = nil
	}
	for _, path := range s.Watched {
		parts = append(parts, c.watched[path])
	}
	return parts
}

// judgeSets warns of sets that do not what they seem to. All rules are resolved by now, so a set that nobody asked for
// is used by none.
func (c *compiler) judgeSets() {
	all := c.usedSets()
	for n, s := range c.cfg.Sets {
		var list []netip.Prefix
		used := all[s.Name]
		if used {
			list = c.set(s.Name)
		}
		warn := func(msg string) {
			w := config.Error{Pos: s.Pos, Path: fmt.Sprintf("sets[%d]", n), Msg: "set " + s.Name + " " + msg}
			c.warn = append(c.warn, w.Error())
		}
		switch {
		case !used:
			warn("is used by no rule")
		case len(list) == 0 && len(s.Watched) > 0: // of rules that name another empty set, linting says that they never match
			warn("is empty: it matches nothing")
		}
		if len(s.Watched) > 0 && slices.ContainsFunc(c.cfg.Management, func(m config.ManagementRule) bool { return names(m.From, s.Name) }) {
			warn("is watched, and management: lets in who is in it: an empty feed locks everybody out")
		}
		for _, all := range []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)} {
			if _, found := slices.BinarySearchFunc(list, all, comparePrefixes); found {
				warn(fmt.Sprintf("holds %s: every address of that family is in it", all))
			}
		}
	}
}

func names(refs []config.Ref, set string) bool {
	return slices.ContainsFunc(refs, func(r config.Ref) bool { return r.Set == set })
}

// fewRuns is how many ascending runs a list may have that is merged rather than sorted: a file that is in order, with a line
// behind it.
const fewRuns = 8

// sortedPrefixes returns p itself where nothing is to be done: it may hold a million. Neither is changed afterwards.
func sortedPrefixes(p []netip.Prefix) []netip.Prefix {
	var runs [][]netip.Prefix
	from := 0
	for i := 1; i <= len(p) && len(runs) <= fewRuns; i++ {
		if i == len(p) || comparePrefixes(p[i-1], p[i]) >= 0 {
			runs = append(runs, p[from:i])
			from = i
		}
	}
	switch {
	case len(p) > 0 && len(runs) == 1:
		return p
	case from < len(p) || len(runs) == 0:
		out := append([]netip.Prefix{}, p...) // never nil
		config.SortPrefixes(out)
		return slices.Compact(out)
	}
	for len(runs) > 1 { // the last ones are the short ones
		n := len(runs)
		runs = append(runs[:n-2], mergePrefixes(runs[n-2], runs[n-1]))
	}
	return runs[0]
}

// mergePrefixes merges ascending lists. Where one is short, the other is copied in few pieces.
func mergePrefixes(a, b []netip.Prefix) []netip.Prefix {
	if len(a) < len(b) {
		a, b = b, a
	}
	return config.Exchange(a, nil, b)
}
