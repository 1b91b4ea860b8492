package compile

import (
	"fmt"
	"net/netip"
	"slices"

	"sluice/control/config"
)

// set returns the prefixes of a set: never nil, sorted, and always the same slice.
func (c *compiler) set(name string) []netip.Prefix {
	if known, ok := c.sets[name]; ok {
		return known
	}
	s := c.cfg.SetByName(name)
	var list []netip.Prefix
	if len(s.Prefixes) == 0 && len(s.Watched) == 1 {
		list = c.watched[s.Watched[0]] // sorted already, and it may be a million
	} else {
		list = s.Prefixes
		for _, path := range s.Watched {
			list = slices.Concat(list, c.watched[path])
		}
		list = sortedPrefixes(list)
	}
	if list == nil {
		list = []netip.Prefix{} // nil would be every address
	}
	c.sets[name] = list
	return list
}

// judgeSets warns of sets that do not what they seem to. All rules are resolved by now, so a set that nobody asked for
// is used by none.
func (c *compiler) judgeSets() {
	for n, s := range c.cfg.Sets {
		list, used := c.sets[s.Name]
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
