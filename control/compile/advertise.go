package compile

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sluice/bgp"
	"sluice/control/config"
)

// Drain is how far a drain has come.
type Drain uint8

// DrainGraceful announces everything as the last choice (RFC 8326), DrainWithdrawn nothing.
const (
	DrainNone Drain = iota
	DrainGraceful
	DrainWithdrawn
)

// paths are what the node originates. Each neighbor hears a prefix with the communities of every entry that names it for that
// neighbor; of the other attributes the first entry counts that writes one. Where all hear the same it is one path.
func (c *compiler) paths() []bgp.Path {
	entries := c.holding()
	if c.drain == DrainWithdrawn {
		return nil
	}
	neighbors := slices.Clone(c.neighbors())
	slices.SortFunc(neighbors, func(a, b config.Neighbor) int { return a.Address.Compare(b.Address) })
	everybody := c.heard(entries, "") // what a neighbor hears that no entry names
	listeners := make([]map[netip.Prefix]bgp.Path, len(neighbors))
	prefixes := map[netip.Prefix]bool{}
	for i, n := range neighbors {
		listeners[i] = c.heard(entries, n.Name)
		for p := range listeners[i] {
			prefixes[p] = true
		}
	}
	for p := range everybody {
		prefixes[p] = true
	}
	paths := make([]bgp.Path, 0, len(prefixes))
	for prefix := range prefixes {
		paths = append(paths, merged(prefix, everybody, neighbors, listeners)...)
	}
	slices.SortStableFunc(paths, func(a, b bgp.Path) int { return comparePrefixes(a.Prefix, b.Prefix) })
	if c.drain == DrainGraceful {
		for i := range paths {
			p := &paths[i]
			p.LocalPreference, p.Communities = bgp.LeastPreference, sortedNumbers(append(slices.Clone(p.Communities), bgp.GracefulShutdown))
		}
	}
	return paths
}

// merged makes one path of neighbors that hear a prefix in the same way.
func merged(prefix netip.Prefix, everybody map[netip.Prefix]bgp.Path, neighbors []config.Neighbor, listeners []map[netip.Prefix]bgp.Path) []bgp.Path {
	var paths []bgp.Path
	var keys []string
	for i, n := range neighbors {
		p, hears := listeners[i][prefix]
		if !hears {
			continue
		}
		at := slices.Index(keys, wayOf(p))
		if at < 0 {
			at, keys, paths = len(keys), append(keys, wayOf(p)), append(paths, p)
		}
		paths[at].To = append(paths[at].To, n.Address)
	}
	all, toAll := everybody[prefix]
	if toAll && (len(paths) == 0 || len(paths) == 1 && len(paths[0].To) == len(neighbors) && wayOf(all) == keys[0]) {
		return []bgp.Path{all}
	}
	return paths
}

// wayOf is all of a path but its prefix and who hears it.
func wayOf(p bgp.Path) string {
	med := "-"
	if p.MED != nil {
		med = fmt.Sprint(*p.MED)
	}
	return fmt.Sprint(p.Communities, p.LargeCommunities, p.LocalPreference, med, p.Prepend, p.NextHop)
}

// entry is one of the file with the prefixes that it is about now.
type entry struct {
	*config.Advertise
	prefixes []netip.Prefix
}

func (e entry) isFor(neighbor string) bool { return e.To == nil || slices.Contains(e.To, neighbor) }

// holding are the entries whose conditions hold. An aggregate holds while a longer prefix inside it is announced to anybody, be
// it another aggregate.
func (c *compiler) holding() []entry {
	var out []entry
	for i := range c.cfg.BGP.Advertise {
		e := &c.cfg.BGP.Advertise[i]
		if c.waits(i, e) {
			continue
		}
		out = append(out, entry{e, c.prefixesOf(e)})
	}
	aggregates := make([]int, 0, len(out))
	for i, e := range out {
		if e.Aggregate.IsValid() {
			aggregates = append(aggregates, i)
		}
	}
	slices.SortStableFunc(aggregates, func(a, b int) int { return cmp.Compare(out[b].Aggregate.Bits(), out[a].Aggregate.Bits()) })
	for _, i := range aggregates {
		longer := func(p netip.Prefix) bool { return inside(p, out[i].Aggregate) }
		if slices.ContainsFunc(out, func(e entry) bool { return slices.ContainsFunc(e.prefixes, longer) }) {
			out[i].prefixes = []netip.Prefix{out[i].Aggregate}
		}
	}
	return out
}

// inside says whether p is a longer prefix in another one.
func inside(p, around netip.Prefix) bool {
	return around.Bits() < p.Bits() && around.Contains(p.Addr())
}

// prefixesOf are those of an entry but for aggregates. Those of a peer that is down lead nowhere.
func (c *compiler) prefixesOf(e *config.Advertise) []netip.Prefix {
	out := slices.Clone(e.Prefixes)
	if e.Workloads {
		for _, w := range c.present {
			out = append(out, hostPrefixes(w.Addresses)...)
		}
	}
	for _, t := range c.cfg.Tunnels {
		for _, p := range t.Peers {
			if e.Tunnels && !c.tunnels.now[t.Name].Peers[p.Name].Down {
				out = append(out, p.Prefixes...)
			}
		}
	}
	return out
}

// heard is what a neighbor is told by all entries.
func (c *compiler) heard(entries []entry, neighbor string) map[netip.Prefix]bgp.Path {
	out := map[netip.Prefix]bgp.Path{}
	var summaries []netip.Prefix
	for _, e := range entries {
		if !e.isFor(neighbor) {
			continue
		}
		for _, prefix := range e.prefixes {
			out[prefix] = with(out[prefix], prefix, e.Advertise)
		}
		if e.SummaryOnly {
			summaries = append(summaries, e.prefixes...)
		}
	}
	for prefix := range out {
		if slices.ContainsFunc(summaries, func(s netip.Prefix) bool { return inside(prefix, s) }) {
			delete(out, prefix)
		}
	}
	return out
}

// with adds what an entry says of a prefix to what earlier ones said.
func with(p bgp.Path, prefix netip.Prefix, e *config.Advertise) bgp.Path {
	p.Prefix = prefix
	p.Communities = sortedNumbers(slices.Concat(p.Communities, e.Communities))
	p.LargeCommunities = slices.Concat(p.LargeCommunities, largeCommunities(e.LargeCommunities))
	slices.SortFunc(p.LargeCommunities, func(a, b bgp.LargeCommunity) int { return slices.Compare(a[:], b[:]) })
	p.LargeCommunities = slices.Compact(p.LargeCommunities)
	p.LocalPreference, p.Prepend = cmp.Or(p.LocalPreference, e.LocalPreference), cmp.Or(p.Prepend, e.Prepend)
	p.MED = cmp.Or(p.MED, e.MED)
	if !p.NextHop.IsValid() && e.NextHop.Is4() == prefix.Addr().Is4() {
		p.NextHop = e.NextHop
	}
	return p
}

func sortedNumbers(list []uint32) []uint32 {
	if len(list) == 0 {
		return nil
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// waits says whether the conditions of an entry do not hold, and tells so.
func (c *compiler) waits(index int, e *config.Advertise) bool {
	tell := func(format string, args ...any) bool {
		c.warn = append(c.warn, fmt.Sprintf("bgp.advertise[%d] is not announced: ", index)+fmt.Sprintf(format, args...))
		return true
	}
	if names := e.When.Workloads; len(names) > 0 && !slices.ContainsFunc(c.present, func(w config.Workload) bool { return slices.Contains(names, w.Name) }) {
		return tell("no workload is here of %s", strings.Join(names, ", "))
	}
	if list := e.When.Reach; len(list) > 0 && !slices.ContainsFunc(list, func(a netip.Addr) bool { return c.reached[a] }) {
		if c.reached == nil { // nobody has looked
			return true
		}
		return tell("no answer from %s", joinedText(list))
	}
	return false
}

func joinedText[T fmt.Stringer](list []T) string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = v.String()
	}
	return strings.Join(out, ", ")
}

// advertised is all that the entries name, whether they hold or not: what others are meant to know the way back to.
func (c *compiler) advertised() []netip.Prefix {
	var out []netip.Prefix
	for i := range c.cfg.BGP.Advertise {
		e := &c.cfg.BGP.Advertise[i]
		out = append(out, c.prefixesOf(e)...)
		if e.Aggregate.IsValid() {
			out = append(out, e.Aggregate)
		}
	}
	return out
}
