package classify

import (
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"sort"
)

// Finding is a rule that an operator probably did not mean: it can be left out without changing any verdict.
type Finding struct {
	Policy string
	Rule   string // its name
	ID     uint32
	Text   string // "from is an empty set: it never matches"
}

// Lint finds rules that can never match, and rules that an earlier one of the same policy covers alone. Rules that
// only several earlier ones cover together are not found.
func Lint(policies []Policy) []Finding {
	var out []Finding
	for i := range policies {
		p := &policies[i]
		earlier := newShelf()
		for j := range p.Rules {
			r := &p.Rules[j]
			if why := neverMatches(r); why != "" {
				out = append(out, Finding{p.Name, r.Name, r.ID, why + ": it never matches"})
				continue
			}
			e := newExtent(r)
			if by := earlier.covering(e); by != nil {
				out = append(out, Finding{p.Name, r.Name, r.ID, coverText(by, e)})
			} else if !r.Shadow {
				earlier.put(e)
			}
		}
	}
	return out
}

func coverText(by, e *extent) string {
	if e.covers(by) {
		return fmt.Sprintf("rule %s before it matches the same packets: it is never reached", by.rule.Name)
	}
	return fmt.Sprintf("rule %s before it matches all that it could: it is never reached", by.rule.Name)
}

// neverMatches says why a rule matches no packet at all, or "".
func neverMatches(r *Rule) string {
	switch {
	case r.From != nil && len(r.From) == 0:
		return "from is an empty set"
	case r.To != nil && len(r.To) == 0:
		return "to is an empty set"
	case r.Ports != nil && len(r.Ports) == 0:
		return "ports is empty"
	case r.SourcePorts != nil && len(r.SourcePorts) == 0:
		return "source_ports is empty"
	}
	if why := restNever(r); why != "" {
		return why
	}
	src4, src6 := families(r.From)
	dst4, dst6 := families(r.To)
	if !(src4 && dst4) && !(src6 && dst6) {
		return "from and to have no address family in common"
	}
	return ""
}

// families says which families a list has addresses of. nil: both.
func families(prefixes []netip.Prefix) (v4, v6 bool) {
	if prefixes == nil {
		return true, true
	}
	for _, p := range prefixes {
		v4 = v4 || p.Addr().Is4()
		v6 = v6 || p.Addr().Is6()
	}
	return v4, v6
}

// shelf holds rules where those that they might cover look for them, so that 100,000 rules need not each meet all.
type shelf struct {
	byFrom, byTo map[netip.Prefix][]*extent // by each prefix of a short list
	rest         []*extent
	count        int
}

func newShelf() *shelf {
	return &shelf{byFrom: map[netip.Prefix][]*extent{}, byTo: map[netip.Prefix][]*extent{}}
}

// shortList bounds the places that one rule takes.
const shortList = 8

func (s *shelf) put(e *extent) {
	e.order = s.count
	s.count++
	on, list := s.byFrom, e.from
	if e.rule.From == nil {
		on, list = s.byTo, e.to
	}
	if len(list) == 0 || len(list) > shortList {
		s.rest = append(s.rest, e)
		return
	}
	for _, p := range list {
		on[p] = append(on[p], e)
	}
}

// covering returns the first rule that covers e, or nil. It stands at a prefix around the first of e's own, or with the
// rest.
func (s *shelf) covering(e *extent) *extent {
	var first *extent
	look := func(list []*extent) {
		for _, by := range list {
			if first != nil && by.order >= first.order {
				return
			}
			if by.covers(e) {
				first = by
				return
			}
		}
	}
	look(s.rest)
	for p := range around(orEverywhere(e.rule.From, e.from)[0]) {
		look(s.byFrom[p])
	}
	for p := range around(orEverywhere(e.rule.To, e.to)[0]) {
		look(s.byTo[p])
	}
	return first
}

// around yields a masked prefix and all that contain it.
func around(p netip.Prefix) iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		for bits := p.Bits(); bits >= 0; bits-- {
			if !yield(netip.PrefixFrom(p.Addr(), bits).Masked()) {
				return
			}
		}
	}
}

// extent is what a rule matches, in a form that compares fast.
type extent struct {
	rule                     *Rule
	order                    int
	from, notFrom, to, notTo []netip.Prefix // outermost
	ports, sources           []PortRange    // merged
}

func newExtent(r *Rule) *extent {
	return &extent{rule: r, from: outermost(r.From), notFrom: outermost(r.NotFrom), to: outermost(r.To), notTo: outermost(r.NotTo),
		ports: mergePorts(r.Ports), sources: mergePorts(r.SourcePorts)}
}

// outermost returns the masked prefixes that no other one of the list contains, sorted.
func outermost(prefixes []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	sorted := slices.Clone(prefixes)
	for i, p := range sorted {
		sorted[i] = p.Masked()
	}
	slices.SortFunc(sorted, netip.Prefix.Compare)
	for _, p := range sorted {
		if n := len(out); n == 0 || !out[n-1].Contains(p.Addr()) {
			out = append(out, p)
		}
	}
	return out
}

// covers says whether every packet that other matches, e matches too. Where it says no, it may still be so.
func (e *extent) covers(other *extent) bool {
	a, b := e.rule, other.rule
	return (a.Protocol == AnyProtocol || a.Protocol == b.Protocol) &&
		restWithin(b, a) &&
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

// String is the finding as `sluice check` prints it.
func (f Finding) String() string { return f.Policy + "/" + f.Rule + ": " + f.Text }
