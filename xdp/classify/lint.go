package classify

import (
	"fmt"
	"net/netip"
	"strings"
)

// Kind says what is odd about a rule.
type Kind string

// The kinds. What never matches or is never reached changes no verdict and no counter when it goes; what is redundant
// changes no verdict, only who is counted for it.
const (
	NeverMatches Kind = "never-matches"
	Unreachable  Kind = "unreachable" // earlier rules match all that it could
	Redundant    Kind = "redundant"   // what follows does the same
)

// Finding is a rule that an operator probably did not mean: it can be left out without changing any verdict.
type Finding struct {
	Policy string
	Rule   string // its name
	ID     uint32
	Kind   Kind
	By     []string // names of the rules that make it so, in order; none: itself, or the policy's default
	Text   string   // "from is an empty set: it never matches"
}

// Lint finds rules without effect, policy by policy in order. What it says is true; where it is silent it may not have
// looked: the cost of looking is bounded, and a rule between thousands that it overlaps with is judged by pairs only.
func Lint(policies []Policy) []Finding {
	l := linter{rest: restFields(), outer: map[sliceID][]netip.Prefix{}}
	for i := range policies {
		l.policy(&policies[i])
	}
	return l.found
}

type linter struct {
	rest  []int // fields of Rule that only sameRest compares
	outer map[sliceID][]netip.Prefix
	found []Finding
}

func (l *linter) policy(p *Policy) {
	var matching []int
	for i := range p.Rules {
		if neverMatches(&p.Rules[i]) == "" {
			matching = append(matching, i)
		}
	}
	all := make([]*extent, 0, len(matching))
	for _, i := range matching {
		r := &p.Rules[i]
		if len(matching) == 1 { // nothing is there to compare its lists with, which may hold a million
			r = r.brief()
		}
		all = append(all, l.extent(r, i))
	}
	earlier, near := newShelf(), newNeighborhood(all)
	var odd []oddity
	for i := range p.Rules {
		if len(all) == 0 || all[0].order != i {
			odd = append(odd, oddity{rule: &p.Rules[i], kind: NeverMatches, text: neverMatches(&p.Rules[i]) + ": it never matches"})
			continue
		}
		e := all[0]
		all = all[1:]
		around, complete := near.of(e)
		if by := earlier.covering(e); by != nil {
			odd = append(odd, oddity{e.rule, Unreachable, []*extent{by}, coverText(by, e)})
			e.unreachable = true
		} else if by := together(e, around, p.Default == Continue); by != nil {
			odd = append(odd, oddity{e.rule, Unreachable, by, togetherText(by, e)})
			e.unreachable = true
		} else if acts(e.rule) {
			if by, ok := redundant(p, e, around); ok && complete && e.rule.Sample == 0 { // what it logs would be missed
				odd = append(odd, oddity{e.rule, Redundant, by, redundantText(by)})
			}
			earlier.put(e)
		}
	}
	l.report(p, odd)
}

// oddity is a finding on its way.
type oddity struct {
	rule *Rule
	kind Kind
	by   []*extent
	text string
}

// report leaves out what is redundant for a rule that is itself never reached: one of the two must stay.
func (l *linter) report(p *Policy, odd []oddity) {
	for _, o := range odd {
		if o.kind == Redundant && len(o.by) > 0 && o.by[0].unreachable {
			continue
		}
		f := Finding{Policy: p.Name, Rule: o.rule.Name, ID: o.rule.ID, Kind: o.kind, Text: o.text}
		for _, e := range o.by {
			f.By = append(f.By, e.rule.Name)
		}
		l.found = append(l.found, f)
	}
}

func coverText(by, e *extent) string {
	if e.covers(by) {
		return fmt.Sprintf("rule %s before it matches the same packets: it is never reached", by.rule.Name)
	}
	return fmt.Sprintf("rule %s before it matches all that it could: it is never reached", by.rule.Name)
}

func togetherText(by []*extent, e *extent) string {
	if len(by) == 1 {
		return coverText(by[0], e)
	}
	return fmt.Sprintf("rules %s before it match all that it could together: it is never reached", listed(by))
}

func redundantText(by []*extent) string {
	if len(by) == 0 {
		return "the default does the same, and no rule behind it differs: without it no verdict changes"
	}
	return fmt.Sprintf("rule %s behind it does the same, and none in between differs: without it no verdict changes", by[0].rule.Name)
}

// listed bounds what one line says. There are at least two.
func listed(by []*extent) string {
	var names []string
	for _, e := range by[:min(len(by), maxShown)] {
		names = append(names, e.rule.Name)
	}
	if more := len(by) - len(names); more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names, ", "), more)
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}

// acts says whether a rule that matches surely ends the search. An action that is not known here may let packets on.
func acts(r *Rule) bool {
	switch r.Action {
	case Accept, Drop, Limit, SYNCookie, Bypass:
		return !r.Shadow
	}
	return false
}

// neverMatches says why a rule matches no packet at all, or "".
func neverMatches(r *Rule) string {
	if why := isEmpty(r); why != "" {
		return why
	}
	if familiesOf(r.From)&familiesOf(r.To) == 0 {
		return "from and to have no address family in common"
	}
	return ""
}

// isEmpty says why a rule matches nothing, or "". It looks into no list of prefixes.
func isEmpty(r *Rule) string {
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
	return restNever(r)
}

// families are a bit each.
type families uint8

const (
	familyIPv4 families = 1 << iota
	familyIPv6
	bothFamilies = familyIPv4 | familyIPv6
)

// familiesOf says which families a list has addresses of. nil: both.
func familiesOf(prefixes []netip.Prefix) (have families) {
	if prefixes == nil {
		return bothFamilies
	}
	for i := 0; i < len(prefixes) && have != bothFamilies; i++ {
		if prefixes[i].Addr().Is4() {
			have |= familyIPv4
		} else {
			have |= familyIPv6
		}
	}
	return have
}

// String is the finding as `sluice check` prints it.
func (f Finding) String() string { return f.Policy + "/" + f.Rule + ": " + f.Text }
