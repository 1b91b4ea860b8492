package host

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"sluice/netdump"
)

// routeKey is the kernel's identity of a route: what differs in nothing else replaces it.
type routeKey struct {
	Table  int
	Prefix netip.Prefix
	Metric int
}

func (r Route) key() routeKey {
	return routeKey{r.Table, r.Prefix, netdump.Metric(r.Prefix, r.Metric)}
}

// forwardsAs says whether the kernel, holding have, does what want asks for. A want with next hops and no link leaves
// the link to the kernel.
func (r Route) forwardsAs(have Route) bool {
	if r.Type != have.Type {
		return false
	}
	if r.Type != Unicast {
		return true
	}
	if r.Link != have.Link && (r.Link != "" || len(r.Via) == 0) {
		return false
	}
	return slices.Equal(sortedAddrs(r.Via), sortedAddrs(have.Via))
}

func sortedAddrs(in []netip.Addr) []netip.Addr {
	out := slices.Clone(in)
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// Diff says what brings have to want: what is set comes first, in the order of use (devices, sysctls, links, addresses,
// routes, rules), what is given up last, in the reverse order. Forwarding is switched on after the rules that bound it and
// off before they go, so that no moment is an open forwarder. Diff is pure.
func Diff(have, want State) []Op {
	set, drop := differ(have, want)
	if gone := disturbed(have.Devices, want.Devices); len(gone) > 0 {
		set, _ = differ(have.without(gone), want)
	}
	return append(set, drop...)
}

func differ(have, want State) (set, drop []Op) {
	add := func(s, d []Op) {
		set = append(set, s...)
		drop = append(drop, d...)
	}
	forwarding := func(s Sysctl) bool { return switchesForwarding(sysctlID(s.Key)) }
	plain := func(s Sysctl) bool { return !forwarding(s) }

	add(diffDevices(have.Devices, want.Devices))
	add(diffSysctls(filter(have.Sysctls, plain), filter(want.Sysctls, plain)))
	add(diffInner(have.Inner, want.Inner))
	add(diffTags(have.Tags, want.Tags))
	add(diffTunings(have.Tunings, want.Tunings, false))
	add(diffLinks(have.Links, parentsFirst(want)))
	add(diffTunings(have.Tunings, want.Tunings, true))
	add(diffQdiscs(have.Qdiscs, want.Qdiscs))
	add(diffList(have.Addresses, want.Addresses, addressKey,
		func(h, w Address) bool { return h.Keep == w.Keep },
		func(a Address) Op { return setAddress{a} }, func(a Address) Op { return dropAddress{a} }))
	add(diffRoutes(have.Routes, want.Routes))
	add(diffList(have.Rules, want.Rules, func(r Rule) Rule { return r },
		func(h, w Rule) bool { return true },
		func(r Rule) Op { return setRule{r} }, func(r Rule) Op { return dropRule{r} }))
	add(diffSysctls(filter(have.Sysctls, forwarding), filter(want.Sysctls, forwarding)))

	slices.Reverse(drop)
	return set, drop
}

// parentsFirst orders links so that a VLAN child comes after its parent, which must be up before it, and whose MTU is the
// largest that it can have.
func parentsFirst(s State) []Link {
	child := func(l Link) int {
		if slices.ContainsFunc(s.Devices, func(d Device) bool { return d.Name == l.Name && d.Parent != "" }) {
			return 1
		}
		return 0
	}
	out := slices.Clone(s.Links)
	slices.SortStableFunc(out, func(a, b Link) int { return cmp.Compare(child(a), child(b)) })
	return out
}

func filter[T any](in []T, keep func(T) bool) []T {
	var out []T
	for _, v := range in {
		if keep(v) {
			out = append(out, v)
		}
	}
	return out
}

// diffList sets what is missing or not alike, in want's order, and drops what is not wanted, in have's order.
func diffList[T any, K comparable](have, want []T, key func(T) K, alike func(have, want T) bool,
	toSet, toDrop func(T) Op) (set, drop []Op) {
	held := make(map[K]T, len(have))
	for _, h := range have {
		held[key(h)] = h
	}
	wanted := make(map[K]bool, len(want))
	for _, w := range want {
		k := key(w)
		wanted[k] = true
		if h, ok := held[k]; !ok || !alike(h, w) {
			set = append(set, toSet(w))
		}
	}
	for _, h := range have {
		if !wanted[key(h)] {
			drop = append(drop, toDrop(h))
		}
	}
	return set, drop
}

type addressID struct {
	link   string
	prefix netip.Prefix
}

func addressKey(a Address) addressID { return addressID{a.Link, a.Prefix} }

// diffLinks works by attribute: each is claimed and given up for itself. The MTU comes before the link is up.
func diffLinks(have, want []Link) (set, drop []Op) {
	var before, after []Op
	held := make(map[string]Link, len(have))
	for _, h := range have {
		held[h.Name] = h
	}
	wanted := make(map[string]Link, len(want))
	for _, w := range want {
		wanted[w.Name] = w
		h := held[w.Name]
		if w.MTU != 0 && w.MTU != h.MTU {
			before = append(before, setMTU{w.Name, w.MTU})
		}
		if w.Group != 0 && w.Group != h.Group {
			before = append(before, setGroup{w.Name, w.Group})
		}
		if w.Up && !h.Up {
			after = append(after, setUp{w.Name})
		}
	}
	for _, h := range have {
		w, ok := wanted[h.Name]
		if h.MTU != 0 && w.MTU == 0 {
			drop = append(drop, dropMTU{h.Name})
		}
		if h.Group != 0 && w.Group == 0 {
			drop = append(drop, dropGroup{h.Name})
		}
		// An entry that is not up was taken down by hand: its claim is given up with the entry.
		if (h.Up || !ok) && !w.Up {
			drop = append(drop, dropUp{h.Name})
		}
	}
	return append(before, after...), drop
}

// diffRoutes sets on-link routes first, as next hops may be reached by them.
func diffRoutes(have, want []Route) (set, drop []Op) {
	order := func(in []Route) []Route {
		out := slices.Clone(in)
		slices.SortStableFunc(out, func(a, b Route) int { return cmp.Compare(min(len(a.Via), 1), min(len(b.Via), 1)) })
		return out
	}
	return diffList(order(have), order(want), Route.key,
		func(h, w Route) bool { return w.forwardsAs(h) && h.Keep == w.Keep },
		func(r Route) Op { return setRoute{r} }, func(r Route) Op { return dropRoute{r} })
}

// diffSysctls sets all before default before single interfaces, as the first two may change the third.
func diffSysctls(have, want []Sysctl) (set, drop []Op) {
	order := func(in []Sysctl) []Sysctl {
		out := slices.Clone(in)
		slices.SortStableFunc(out, func(a, b Sysctl) int {
			return cmp.Compare(sysctlRank(sysctlID(a.Key)), sysctlRank(sysctlID(b.Key)))
		})
		return out
	}
	return diffList(order(have), order(want), func(s Sysctl) string { return sysctlID(s.Key) },
		func(h, w Sysctl) bool { return sameValue(h.Value, w.Value) },
		func(s Sysctl) Op { return setSysctl{s} }, func(s Sysctl) Op { return dropSysctl{s} })
}

// sameValue compares as the kernel prints: fields of a list are parted by tabs or by blanks.
func sameValue(a, b string) bool {
	return slices.Equal(strings.Fields(a), strings.Fields(b))
}

// Kept is the part of a state that outlives down.
func (s State) Kept() State {
	return State{
		Devices:   filter(s.Devices, func(d Device) bool { return d.Keep }),
		Addresses: filter(s.Addresses, func(a Address) bool { return a.Keep }),
		Routes:    filter(s.Routes, func(r Route) bool { return r.Keep }),
	}
}
