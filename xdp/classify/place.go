package classify

import (
	"fmt"
	"math"
	"slices"

	"sluice/xdp/abi"
)

// Budgets of what a rule may put into buckets before it is kept in fewer places that cost more to ask. Nested prefixes
// make them matter: a rule between two prefixes of a thousand classes each would need a million buckets.
type budgets struct {
	pairs int // of classes that one rule takes buckets for
	side  int // of classes of one direction
}

// generous is tried first, then less and less until all rules together need at most maxPlaced places. The last needs
// no more than one place per prefix of a rule.
var generous = []budgets{{64, 1024}, {16, 256}, {4, 64}, {1, 4}, {0, 0}}

const (
	maxPlaced = 1 << 20 // 4 bytes each while compiling, up to 30 in the tables
	// A policy of so few entries is looked through rather than looked up: the failsafe, the system's, a workload's.
	fewEntries = 16
)

// manner is how a rule's entries are found.
type manner int

const (
	everywhere manner = iota // in every search of the policy
	bySource                 // by the source's class
	byDestination
	byBoth
	belowSource // by the class where its list begins; searches ask the ancestors of theirs
	belowDestination
)

// placed is a rule with what it needs to be placed.
type placed struct {
	rule     *Rule
	policy   int
	in       *Policy
	empty    bool      // it matches nothing, whatever its prefixes
	never    bool      // it can match nothing, and has no entries
	ports    int       // entries that its ports and the rest take
	lists    [2][2]int // numbers of its lists, by direction: in, not in
	src, dst *classSet
	manner   manner
	// Its entries in the rule space, without end.
	first, end uint32
}

func newPlaced(policy int, in *Policy, r *Rule) placed {
	p := placed{rule: r, policy: policy, in: in, lists: [2][2]int{{none, none}, {none, none}}}
	if p.empty = isEmpty(r) != ""; !p.empty {
		p.ports = portEntries(r)
	}
	return p
}

// name is policy/name.
func (p *placed) name() string { return p.in.Name + "/" + p.rule.Name }

func portEntries(r *Rule) int {
	if r.Plain() && len(r.Ports) <= 1 && len(r.SourcePorts) <= 1 {
		return 1
	}
	n := max(1, len(mergePorts(r.Ports))) * max(1, len(mergePorts(r.SourcePorts)))
	return min(n*restEntries(r), math.MaxInt32)
}

// entries is the number of them: what buckets do not choose by is compared, range by range.
func (p *placed) entries(m manner) int {
	if p.never {
		return 0
	}
	n := p.ports
	if p.comparesSource(m) {
		n *= len(p.src.ranges)
	}
	if p.comparesDestination(m) {
		n *= len(p.dst.ranges)
	}
	return n
}

func (p *placed) comparesSource(m manner) bool {
	return !p.src.any && m != bySource && m != byBoth && (m != belowSource || p.src.not)
}

func (p *placed) comparesDestination(m manner) bool {
	return !p.dst.any && m != byDestination && m != byBoth && (m != belowDestination || p.dst.not)
}

// places is the number of leaves that the rule goes into.
func (p *placed) places(m manner) int {
	switch m {
	case bySource:
		return p.src.count
	case byDestination:
		return p.dst.count
	case byBoth:
		return min(p.src.count*p.dst.count, math.MaxInt32)
	case belowSource:
		return len(p.src.first)
	case belowDestination:
		return len(p.dst.first)
	}
	return 1
}

func (p *placed) weight(m manner) int { return p.places(m) * p.entries(m) }

// choose picks the manner that finds the fewest other entries with this one, within the budgets.
func (p *placed) choose(b budgets) manner {
	src, dst := p.src.keyed, p.dst.keyed
	switch {
	case !src && !dst:
		return everywhere
	case src && dst && p.places(byBoth) <= b.pairs:
		return byBoth
	}
	pick := func(source, destination manner) manner {
		if !dst || src && p.weight(source) <= p.weight(destination) {
			return source
		}
		return destination
	}
	one := pick(bySource, byDestination)
	if p.places(one) <= b.side || p.places(one) == 1 {
		return one
	}
	return pick(belowSource, belowDestination)
}

// place chooses for all rules, and finds out which policies have few.
func place(rules []placed, few []bool) (level budgets, total int) {
	entries := make([]int, len(few))
	for i := range rules {
		entries[rules[i].policy] += min(rules[i].entries(everywhere), fewEntries+1)
	}
	for i := range few {
		few[i] = entries[i] <= fewEntries
	}
	for _, level = range generous {
		total = 0
		for i := range rules {
			r := &rules[i]
			r.settle(level, few[r.policy])
			total += r.weight(r.manner)
		}
		if total <= maxPlaced {
			break
		}
	}
	return level, total
}

func (p *placed) settle(b budgets, few bool) {
	p.manner = everywhere
	if !few && !p.never {
		p.manner = p.choose(b)
	}
}

// expand appends the entries of a rule. No two of them match one packet, so that a shadow rule counts it once.
func (p *placed) expand(to []abi.Rule, hidden bool) []abi.Rule {
	r := p.rule
	from := len(to)
	to = append(to, Entries(r)...)
	if hidden && !r.Shadow && r.asksTransport() {
		for i := range to[from:] {
			to[from+i].Flags |= abi.RuleHidden
		}
	}
	if p.comparesSource(p.manner) {
		to = times(to, from, p.src.ranges, func(e *abi.Rule, cr abi.ClassRange) {
			e.Flags |= abi.RuleSrc
			e.Src = cr
		})
	}
	if p.comparesDestination(p.manner) {
		to = times(to, from, p.dst.ranges, func(e *abi.Rule, cr abi.ClassRange) {
			e.Flags |= abi.RuleDst
			e.Dst = cr
		})
	}
	return to
}

// Entries are those of a rule without its addresses: one for each combination of what it says in ranges. No two of them
// match one packet.
func Entries(r *Rule) []abi.Rule {
	entry := abi.Rule{ID: r.ID, Action: uint8(r.Action)}
	if r.Shadow {
		entry.Flags |= abi.RuleShadow
		if r.Sample != 0 || r.Action == Limit {
			entry.Flags |= abi.RuleLogged
		}
	}
	if r.Protocol == AnyProtocol {
		entry.Flags |= abi.RuleAnyProtocol
	} else {
		entry.Protocol = uint8(r.Protocol)
	}
	out := rest(r, entry)
	if r.Ports != nil {
		out = times(out, 0, mergePorts(r.Ports), func(e *abi.Rule, pr PortRange) {
			e.Flags |= abi.RulePorts
			e.Ports = abi.PortRange(pr)
		})
	}
	if r.SourcePorts != nil {
		out = times(out, 0, mergePorts(r.SourcePorts), func(e *abi.Rule, pr PortRange) {
			e.Flags |= abi.RuleSourcePorts
			e.SourcePorts = abi.PortRange(pr)
		})
	}
	return out
}

// times puts in place of each entry behind from as many as there are alternatives, with one each.
func times[T any](entries []abi.Rule, from int, alternatives []T, with func(*abi.Rule, T)) []abi.Rule {
	if len(alternatives) == 1 {
		for i := from; i < len(entries); i++ {
			with(&entries[i], alternatives[0])
		}
		return entries
	}
	before := slices.Clone(entries[from:])
	entries = entries[:from]
	for _, e := range before {
		for _, a := range alternatives {
			entries = append(entries, e)
			with(&entries[len(entries)-1], a)
		}
	}
	return entries
}

// eachKey calls f with the buckets that a rule goes into, without the kind's policy.
func (p *placed) eachKey(f func(kind, src, dst uint32)) {
	switch p.manner {
	case everywhere:
		f(0, abi.NoClass, abi.NoClass)
	case bySource:
		p.src.each(func(c uint32) { f(0, c, abi.NoClass) })
	case byDestination:
		p.dst.each(func(c uint32) { f(0, abi.NoClass, c) })
	case byBoth:
		p.src.each(func(s uint32) { p.dst.each(func(d uint32) { f(0, s, d) }) })
	case belowSource:
		for _, c := range p.src.first {
			f(abi.BucketWide, c, abi.NoClass)
		}
	case belowDestination:
		for _, c := range p.dst.first {
			f(abi.BucketWide, abi.NoClass, c)
		}
	}
}

// eachBucket calls f with the keys of the buckets.
func (p *placed) eachBucket(f func(bucketKey)) {
	kind := uint32(p.policy)
	if p.rule.Shadow {
		kind |= abi.BucketShadow
	}
	p.eachKey(func(wide, src, dst uint32) { f(bucketKey{kind | wide, src, dst}) })
}

func (c *classSet) each(f func(class uint32)) {
	for _, r := range c.ranges {
		for n := r.First; n <= r.Last; n++ {
			f(n)
		}
	}
}

func (m manner) key() uint32 {
	return [...]uint32{0, abi.KeySrc, abi.KeyDst, abi.KeyBoth, abi.KeyWideSrc, abi.KeyWideDst}[m]
}

func entryAdvice(p *placed) string {
	switch n := p.ports; {
	case n > 1 && restEntries(p.rule) == 1:
		return fmt.Sprintf("write its ports as fewer ranges (%d now), or join rules by sets", n)
	case n > 1:
		return fmt.Sprintf("write its ports, icmp_types, vlan, length and interfaces as fewer (%d combinations now), or join rules by sets", n)
	}
	return "join rules that differ only in addresses by one set"
}
