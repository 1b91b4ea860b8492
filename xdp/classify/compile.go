package classify

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"sluice/xdp/abi"
)

// MaxClasses is the budget for distinct sets of entries: 128 MB of kernel memory. Unrelated prefixes need about one
// class per list; only deep nesting of many different lists comes near it.
const MaxClasses = 1 << 18

// BudgetError says that a rule set needs more than the tables hold.
type BudgetError struct {
	Rule   string // "policy/name" of the first rule that does not fit
	What   string // what it needed too much of: "entries" or "address classes"
	Needs  int    // by that rule; for address classes, by all rules up to the point of giving up
	Free   int    // what was left for it
	Total  int    // needed by all rules; 0: not known
	Budget int
	Advice string // what to do
}

func (e *BudgetError) Error() string {
	total := ""
	if e.Total > 0 {
		total = fmt.Sprintf(" (all rules together: %d)", e.Total)
	}
	return fmt.Sprintf("rule %s needs %d %s, %d of %d are left%s: %s",
		e.Rule, e.Needs, e.What, e.Free, e.Budget, total, e.Advice)
}

// span is a rule's place in the rule space: entries first to end, without end.
type span struct {
	rule       *Rule
	name       string // policy/name
	first, end uint32
}

// Compile turns policies into tables. The index in the slice becomes the index of the policies map (enum
// policy_index); policies may be empty. Rules that can never match get no entry. It fails with a *BudgetError, or with
// every invalid rule at once. Equal input gives equal output.
func Compile(policies []Policy) (*Tables, error) {
	if err := validate(policies); err != nil {
		return nil, err
	}
	t := &Tables{Policies: make([]abi.Policy, 0, len(policies))}
	spans, err := t.addRules(policies)
	if err != nil {
		return nil, err
	}
	source := gather(spans, func(r *Rule) direction { return direction{r.From, r.NotFrom} })
	destination := gather(spans, func(r *Rule) direction { return direction{r.To, r.NotTo} })
	of := [abi.ClassTables]*lists{source, destination, source, destination}
	c := newClasses()
	for table := range abi.ClassTables { // all defaults before any other class: their indexes are fixed
		c.setDefault(table, of[table].anyIn)
	}
	for table := range abi.ClassTables {
		if t.Prefixes[table], err = of[table].sweep(isV6(table), c); err != nil {
			return nil, err
		}
	}
	t.Classes = c.sets
	return t, nil
}

// addRules lays the entries of all policies into the rule space.
func (t *Tables) addRules(policies []Policy) ([]span, error) {
	var spans []span
	var over *BudgetError
	total := 0
	for i := range policies {
		p := &policies[i]
		first := uint32(len(t.Rules))
		for j := range p.Rules {
			r := &p.Rules[j]
			entries := expand(r)
			total += len(entries)
			if over == nil && total > abi.MaxRules {
				over = &BudgetError{Rule: p.Name + "/" + r.Name, What: "entries", Needs: len(entries),
					Free: abi.MaxRules - len(t.Rules), Budget: abi.MaxRules, Advice: entryAdvice(len(entries))}
			}
			if over != nil {
				continue
			}
			at := uint32(len(t.Rules))
			t.Rules = append(t.Rules, entries...)
			spans = append(spans, span{r, p.Name + "/" + r.Name, at, at + uint32(len(entries))})
		}
		t.Policies = append(t.Policies, abi.Policy{First: first, Count: uint32(len(t.Rules)) - first,
			DefaultAction: uint8(p.Default), Fragments: uint8(p.Fragments)})
	}
	if over != nil {
		over.Total = total
		return nil, over
	}
	return spans, nil
}

func entryAdvice(needs int) string {
	if needs > 1 {
		return fmt.Sprintf("write its ports as fewer ranges (up to %d share an entry), or join rules by sets", abi.MaxPortRanges)
	}
	return "join rules that differ only in addresses by one set"
}

// expand returns the entries of a rule: one per group of MAX_PORT_RANGES port ranges, times the same of source ports.
// Ranges are merged first, so at most one entry matches a packet and shadow rules count it once.
func expand(r *Rule) []abi.Rule {
	if neverMatches(r) != "" {
		return nil
	}
	entry := abi.Rule{ID: r.ID, Action: uint8(r.Action), TTL: r.TTL}
	if r.Shadow {
		entry.Flags |= abi.RuleShadow
	}
	if r.Protocol == AnyProtocol {
		entry.Flags |= abi.RuleAnyProtocol
	} else {
		entry.Protocol = uint8(r.Protocol)
	}
	if r.Ports != nil {
		entry.Flags |= abi.RulePorts
	}
	if r.SourcePorts != nil {
		entry.Flags |= abi.RuleSourcePorts
	}
	var entries []abi.Rule
	for _, ports := range groups(r.Ports) {
		for _, sources := range groups(r.SourcePorts) {
			entry.Ports, entry.SourcePorts = ports, sources
			entries = append(entries, entry)
		}
	}
	return entries
}

// groups cuts merged ranges into what one entry holds. No ranges give one group without any.
func groups(ranges []PortRange) [][abi.MaxPortRanges]abi.PortRange {
	var empty [abi.MaxPortRanges]abi.PortRange
	for i := range empty {
		empty[i] = abi.PortRange{First: 1, Last: 0}
	}
	if len(ranges) == 0 {
		return [][abi.MaxPortRanges]abi.PortRange{empty}
	}
	var out [][abi.MaxPortRanges]abi.PortRange
	for chunk := range slices.Chunk(mergePorts(ranges), abi.MaxPortRanges) {
		group := empty
		for i, r := range chunk {
			group[i] = abi.PortRange{First: r.First, Last: r.Last}
		}
		out = append(out, group)
	}
	return out
}

// mergePorts returns the same ports as sorted ranges that neither overlap nor touch.
func mergePorts(ranges []PortRange) []PortRange {
	sorted := slices.Clone(ranges)
	slices.SortFunc(sorted, func(a, b PortRange) int { return int(a.First) - int(b.First) })
	var out []PortRange
	for _, r := range sorted {
		if n := len(out); n > 0 && int(r.First) <= int(out[n-1].Last)+1 {
			out[n-1].Last = max(out[n-1].Last, r.Last)
			continue
		}
		out = append(out, r)
	}
	return out
}

// validate refuses what has no meaning in the tables. The file's own errors are config's; these are its safety net.
func validate(policies []Policy) error {
	var errs []error
	if len(policies) > abi.MaxPolicies {
		errs = append(errs, fmt.Errorf("%d policies, the tables hold %d: remove workloads", len(policies), abi.MaxPolicies))
	}
	for i := range policies {
		p := &policies[i]
		if p.Default > Drop || p.Fragments > FragDrop {
			errs = append(errs, fmt.Errorf("policy %s: default %d, fragments %d: no such action", p.Name, p.Default, p.Fragments))
		}
		for j := range p.Rules {
			for _, problem := range problems(&p.Rules[j]) {
				errs = append(errs, fmt.Errorf("rule %s/%s: %s", p.Name, p.Rules[j].Name, problem))
			}
		}
	}
	return errors.Join(errs...)
}

func problems(r *Rule) []string {
	var out []string
	if r.ID == 0 || r.ID >= abi.RuleIDs {
		out = append(out, fmt.Sprintf("id %d is not in 1-%d", r.ID, abi.RuleIDs-1))
	}
	if r.Protocol < AnyProtocol || r.Protocol > 255 {
		out = append(out, fmt.Sprintf("protocol %d is not in 0-255", r.Protocol))
	}
	if r.Action != Accept && r.Action != Drop && !r.Shadow {
		out = append(out, "its action is neither accept nor drop")
	}
	for _, ranges := range [][]PortRange{r.Ports, r.SourcePorts} {
		for _, pr := range ranges {
			if pr.First > pr.Last {
				out = append(out, fmt.Sprintf("port range %d-%d is upside down", pr.First, pr.Last))
			}
		}
	}
	for _, prefixes := range [][]netip.Prefix{r.From, r.NotFrom, r.To, r.NotTo} {
		for _, p := range prefixes {
			if !p.IsValid() {
				out = append(out, "a prefix is invalid (the zero netip.Prefix, or too long for its family)")
			}
		}
	}
	return out
}
