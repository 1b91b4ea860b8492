package classify

import (
	"math/bits"
	"net/netip"
	"slices"

	"sluice/xdp/abi"
)

// entrySet holds entries of the rule space, as abi.ClassBits does.
type entrySet [abi.RuleWords]uint64

func (s *entrySet) addRange(first, end uint32) {
	for n := first; n < end; n++ {
		s[n/64] |= 1 << (n % 64)
	}
}

func (s *entrySet) add(other *entrySet) {
	for i, w := range other {
		s[i] |= w
	}
}

func (s *entrySet) without(other *entrySet) entrySet {
	var out entrySet
	for i, w := range other {
		out[i] = s[i] &^ w
	}
	return out
}

// countBits counts the members from first to last, inclusive.
func countBits(words *[abi.RuleWords]uint64, first, last uint32) int {
	n := 0
	for w := first / 64; w <= last/64; w++ {
		n += bits.OnesCount64(words[w] & rangeMask(w, first, last))
	}
	return n
}

// classes numbers the distinct sets of entries.
type classes struct {
	sets  []abi.ClassBits
	index map[entrySet]uint32
}

func newClasses() *classes {
	return &classes{sets: make([]abi.ClassBits, abi.ClassTables), index: map[entrySet]uint32{}}
}

// setDefault gives a table's uncovered addresses their class, whose index is the table's.
func (c *classes) setDefault(table abi.ClassTable, set entrySet) {
	c.sets[table].Word = set
	if _, known := c.index[set]; !known {
		c.index[set] = uint32(table)
	}
}

// number returns the class of a set; ok is false where there is no room for another.
func (c *classes) number(set entrySet) (class uint32, ok bool) {
	if class, known := c.index[set]; known {
		return class, true
	}
	if len(c.sets) == MaxClasses {
		return 0, false
	}
	class = uint32(len(c.sets))
	c.sets = append(c.sets, abi.ClassBits{Word: set})
	c.index[set] = class
	return class, true
}

// direction is what a rule says about one of a packet's addresses: in one of some (nil: anywhere), in none of others.
type direction struct{ in, notIn []netip.Prefix }

// list is a list of prefixes, and the entries that it lets match or keeps from matching.
type list struct {
	prefixes         []netip.Prefix
	rule             string // the first that uses it
	include, exclude entrySet
}

// lists are all lists of one direction, and the entries that need none.
type lists struct {
	all   []*list
	anyIn entrySet
}

// gather collects the lists of one direction. Rules that name the same set share its slice: it is swept once.
func gather(spans []span, of func(*Rule) direction) *lists {
	type identity struct {
		first  *netip.Prefix
		length int
	}
	known := map[identity]*list{}
	out := &lists{}
	find := func(prefixes []netip.Prefix, rule string) *list {
		id := identity{&prefixes[0], len(prefixes)}
		l := known[id]
		if l == nil {
			l = &list{prefixes: prefixes, rule: rule}
			known[id] = l
			out.all = append(out.all, l)
		}
		return l
	}
	for _, s := range spans {
		if s.first == s.end {
			continue // never matches
		}
		d := of(s.rule)
		if d.in == nil {
			out.anyIn.addRange(s.first, s.end)
		} else {
			find(d.in, s.name).include.addRange(s.first, s.end)
		}
		if len(d.notIn) > 0 {
			find(d.notIn, s.name).exclude.addRange(s.first, s.end)
		}
	}
	return out
}

type member struct {
	prefix netip.Prefix // masked
	list   *list
}

// members returns the prefixes of a family sorted, so that a prefix comes behind all that contain it.
func (l *lists) members(v6 bool) []member {
	var out []member
	for _, list := range l.all {
		for _, p := range list.prefixes {
			if p.Addr().Is6() == v6 {
				out = append(out, member{p.Masked(), list})
			}
		}
	}
	slices.SortStableFunc(out, func(a, b member) int { return a.prefix.Compare(b.prefix) })
	return out
}

// covering is a prefix on the way from the whole family to the one at hand. Both sets only grow along that way.
type covering struct {
	prefix           netip.Prefix
	include, exclude entrySet
	class            uint32
}

// sweep walks the prefixes of a family in order with the stack of those that contain the current one, and returns the
// table: each prefix with the class of its addresses, but for those whose class is that of the next shorter one.
func (l *lists) sweep(v6 bool, c *classes) ([]PrefixClass, error) {
	members := l.members(v6)
	root := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if v6 {
		root = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	stack := []covering{{prefix: root, include: l.anyIn}}
	stack[0].class, _ = c.number(l.anyIn) // known: setDefault came before
	var table []PrefixClass
	for i := 0; i < len(members); {
		prefix := members[i].prefix
		for !stack[len(stack)-1].prefix.Contains(prefix.Addr()) {
			stack = stack[:len(stack)-1]
		}
		parent := &stack[len(stack)-1]
		at := covering{prefix: prefix, include: parent.include, exclude: parent.exclude}
		rule := members[i].list.rule
		for ; i < len(members) && members[i].prefix == prefix; i++ {
			at.include.add(&members[i].list.include)
			at.exclude.add(&members[i].list.exclude)
		}
		var ok bool
		at.class, ok = c.number(at.include.without(&at.exclude))
		if !ok {
			return nil, &BudgetError{Rule: rule, What: "address classes", Needs: MaxClasses + 1, Free: 0, Budget: MaxClasses,
				Advice: "its prefixes nest with too many different lists of other rules; join lists into sets"}
		}
		if at.class != parent.class {
			table = append(table, PrefixClass{prefix, at.class})
		}
		stack = append(stack, at)
	}
	return table, nil
}

func isV6(table abi.ClassTable) bool { return table == abi.ClassSrc6 || table == abi.ClassDst6 }
