package classify

import (
	"net/netip"

	"sluice/xdp/abi"
)

// Tables are what a generation's classifier looks packets up in: the content of the maps in include/sluice/maps.h.
// They are never written after Compile.
type Tables struct {
	// Prefixes holds one longest-prefix table per enum class_table, sorted by netip.Prefix.Compare, without
	// duplicates. An address that none covers has the class of the table's own index (CLASS_SRC4 and so on).
	Prefixes [abi.ClassTables][]PrefixClass
	// Classes by class index: bit n says that entry n of Rules can match addresses of the class. The first
	// abi.ClassTables are the classes of uncovered addresses. A set of bits stands there once, whichever tables use it.
	Classes []abi.ClassBits
	// Rules is the rule space: the entries of all policies, policy after policy.
	Rules []abi.Rule
	// Policies are ranges of Rules, in the order given to Compile (enum policy_index).
	Policies []abi.Policy
}

// PrefixClass gives the addresses of a prefix, but those of longer prefixes in the same table, to a class.
type PrefixClass struct {
	Prefix netip.Prefix // masked
	Class  uint32       // index into Tables.Classes
}

// Cost is what Tables ask of the machine.
type Cost struct {
	Entries  int   // of the rule space, of abi.MaxRules
	Classes  int   // sets of bits, abi.RuleWords * 8 bytes each
	Prefixes int   // of all four tables
	Bytes    int64 // of the maps, as the kernel allocates them, its small change for hashes and page tables excluded
	// WorstProbes bounds the map lookups that one policy costs for one packet. A probe is one map lookup: two
	// addresses to classes (a longest-prefix lookup counts as one), two sets of bits, the policy, and one per entry
	// that both addresses could match. The first two are shared by the policies that judge a packet.
	WorstProbes int
}

// Bytes per element in the kernel. A node of an LPM trie is 40 bytes of header, the key's data and the value, in a
// slab of 64 for both families; every prefix may need one more node that only branches. Array values round up to 8.
const (
	nodeBytes   = 64
	classBytes  = abi.RuleWords * 8
	ruleBytes   = 40
	policyBytes = 16
)

// Cost counts the tables.
func (t *Tables) Cost() Cost {
	c := Cost{Entries: len(t.Rules), Classes: len(t.Classes), WorstProbes: t.worstProbes()}
	for _, prefixes := range t.Prefixes {
		c.Prefixes += len(prefixes)
	}
	c.Bytes = 2*nodeBytes*int64(c.Prefixes) + classBytes*int64(c.Classes) +
		ruleBytes*int64(c.Entries) + policyBytes*int64(len(t.Policies))
	return c
}

// worstProbes bounds the entries that any pair of classes shares by the fuller class of the emptier direction: exact
// pairs would cost classes squared.
func (t *Tables) worstProbes() int {
	most := 0
	for _, family := range [][2]abi.ClassTable{{abi.ClassSrc4, abi.ClassDst4}, {abi.ClassSrc6, abi.ClassDst6}} {
		src, dst := t.fullest(family[0]), t.fullest(family[1])
		for i := range t.Policies {
			most = max(most, min(src[i], dst[i]))
		}
	}
	return 5 + most
}

// fullest returns, by policy, the most entries that one class of a table can match.
func (t *Tables) fullest(table abi.ClassTable) []int {
	most := make([]int, len(t.Policies))
	seen := make([]bool, len(t.Classes))
	consider := func(class uint32) {
		if seen[class] {
			return
		}
		seen[class] = true
		for i, p := range t.Policies {
			if p.Count > 0 {
				most[i] = max(most[i], countBits(&t.Classes[class].Word, p.First, p.First+p.Count-1))
			}
		}
	}
	consider(uint32(table))
	for _, pc := range t.Prefixes[table] {
		consider(pc.Class)
	}
	return most
}
