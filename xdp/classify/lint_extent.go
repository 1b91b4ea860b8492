package classify

import (
	"net/netip"
	"reflect"
	"slices"
	"sort"
)

// extent is what a rule matches, in a form that compares fast.
type extent struct {
	rule                     *Rule
	order                    int            // in its policy
	from, notFrom, to, notTo []netip.Prefix // outermost
	ports, sources           []PortRange    // merged
	rest                     []int          // of restFields those that ask for something
	hull                     hull
	unreachable              bool
}

func (l *linter) extent(r *Rule, order int) *extent {
	e := &extent{rule: r, order: order, from: l.outermost(r.From), notFrom: l.outermost(r.NotFrom), to: l.outermost(r.To), notTo: l.outermost(r.NotTo),
		ports: mergePorts(r.Ports), sources: mergePorts(r.SourcePorts)}
	v := reflect.ValueOf(r).Elem()
	for _, field := range l.rest {
		if !v.Field(field).IsZero() {
			e.rest = append(e.rest, field)
		}
	}
	e.hull = newHull(e)
	return e
}

// brief is the rule with no more than one prefix in each list.
func (r *Rule) brief() *Rule {
	out := *r
	for _, list := range []*[]netip.Prefix{&out.From, &out.To, &out.NotFrom, &out.NotTo} {
		*list = (*list)[:min(len(*list), 1)]
	}
	return &out
}

// restFields are the conditions of a rule that Lint does not understand: all but those named here. The zero value of
// each must mean any; a test fails for a field that nobody looked at.
func restFields() []int {
	var out []int
	for i := range reflect.TypeFor[Rule]().NumField() {
		switch reflect.TypeFor[Rule]().Field(i).Name {
		case "ID", "Name", "Action", "Argument", "Sample", "Shadow": // no conditions
		case "From", "To", "NotFrom", "NotTo", "Protocol", "Ports", "SourcePorts":
		case "TTL", "TCPMask", "TCPFlags", "ICMPTypes", "Fragment", "VLANs", "Lengths", "DSCP", "Interfaces": // restWithin's
		default:
			out = append(out, i)
		}
	}
	return out
}

// sameRest says whether e's conditions beside addresses, protocol and ports let all through that other's do. Of those that
// Lint does not understand each must be absent, or the same in the other.
func (e *extent) sameRest(other *extent) bool {
	if !restWithin(other.rule, e.rule) {
		return false
	}
	for _, field := range e.rest {
		a, b := reflect.ValueOf(e.rule).Elem().Field(field), reflect.ValueOf(other.rule).Elem().Field(field)
		if !reflect.DeepEqual(a.Interface(), b.Interface()) {
			return false
		}
	}
	return true
}

// outermost is that of a list, made once for all rules that share it.
func (l *linter) outermost(list []netip.Prefix) []netip.Prefix {
	if len(list) < longList {
		return outermost(list)
	}
	id := sliceID{&list[0], len(list)}
	out, known := l.outer[id]
	if !known {
		out = outermost(list)
		l.outer[id] = out
	}
	return out
}

// outermost returns the masked prefixes that no other one of the list contains, sorted: the list itself, where it is that.
func outermost(prefixes []netip.Prefix) []netip.Prefix {
	sorted := prefixes
	count, ok := countOutermost(sorted)
	if !ok {
		sorted = slices.Clone(prefixes)
		for i, p := range sorted {
			sorted[i] = p.Masked()
		}
		slices.SortFunc(sorted, netip.Prefix.Compare)
		count, _ = countOutermost(sorted)
	}
	if count == len(sorted) {
		return sorted
	}
	out := make([]netip.Prefix, 0, count)
	for _, p := range sorted {
		if n := len(out); n == 0 || !out[n-1].Contains(p.Addr()) {
			out = append(out, p)
		}
	}
	return out
}

// countOutermost counts those that no other one contains. Not ok: the list is not sorted, or not masked.
func countOutermost(list []netip.Prefix) (count int, ok bool) {
	var before, around member
	before6 := false
	for i, p := range list {
		m, v6 := memberOf(p, 0), p.Addr().Is6()
		if m.first != keyOf(p.Addr()) || i > 0 && m.precedes(v6, before, before6) {
			return 0, false
		}
		if i == 0 || v6 != before6 || around.last().compare(m.first) < 0 {
			around = m
			count++
		}
		before, before6 = m, v6
	}
	return count, true
}

// covers says whether every packet that other matches, e matches too. Where it says no, it may still be so.
func (e *extent) covers(other *extent) bool {
	a, b := e.rule, other.rule
	return (a.Protocol == AnyProtocol || a.Protocol == b.Protocol) &&
		e.sameRest(other) &&
		(a.Ports == nil || b.Ports != nil && portsWithin(other.ports, e.ports)) &&
		(a.SourcePorts == nil || b.SourcePorts != nil && portsWithin(other.sources, e.sources)) &&
		(a.From == nil || prefixesWithin(orEverywhere(b.From, other.from), e.from)) &&
		(a.To == nil || prefixesWithin(orEverywhere(b.To, other.to), e.to)) &&
		prefixesWithin(e.notFrom, other.notFrom) && prefixesWithin(e.notTo, other.notTo)
}

// orEverywhere returns the outermost prefixes of a list; nil stands for both families as a whole.
func orEverywhere(list, outer []netip.Prefix) []netip.Prefix {
	if list == nil {
		return []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}
	}
	return outer
}

// prefixesWithin says whether each of inner lies in one of outer, which outermost made.
func prefixesWithin(inner, outer []netip.Prefix) bool {
	if len(inner) > 0 && len(inner) == len(outer) && &inner[0] == &outer[0] {
		return true
	}
	for _, p := range inner {
		n := sort.Search(len(outer), func(i int) bool { return outer[i].Compare(p) > 0 })
		if n == 0 || outer[n-1].Bits() > p.Bits() || !outer[n-1].Contains(p.Addr()) {
			return false
		}
	}
	return true
}

// portsWithin says whether each range of inner lies in one of outer, both merged.
func portsWithin(inner, outer []PortRange) bool {
	for _, r := range inner {
		if !slices.ContainsFunc(outer, func(o PortRange) bool { return o.First <= r.First && r.Last <= o.Last }) {
			return false
		}
	}
	return true
}
