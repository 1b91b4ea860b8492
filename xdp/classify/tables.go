package classify

import (
	"math/bits"
	"unsafe"

	"sluice/xdp/abi"
)

// Tables are what a generation's classifier looks packets up in: the content of the maps in include/sluice/maps.h, as
// abi.h describes it. They are never written after Compile.
type Tables struct {
	Prefixes [abi.ClassTables]*prefixTable
	// Up is by direction, source first, and class: the nearest ancestor with a wide bucket. nil where there is none.
	Up      [2][]uint64
	Buckets []abi.Bucket // a power of two
	Leaves  []uint64
	// Rules is the rule space: the entries of all policies, policy after policy.
	Rules []abi.Rule
	// Verdicts are by entry.
	Verdicts []abi.Verdict
	// Policies are in the order given to Compile (enum policy_index).
	Policies []abi.Policy

	entries                      int // of Rules; the others are room for more
	prefixes, classes, ancestors int
	probes, walk, runs           int
}

// Words are those of a prefix table. nil where there is none.
func (t *Tables) Words(table abi.ClassTable) []uint64 {
	if t.Prefixes[table] == nil {
		return nil
	}
	return t.Prefixes[table].words
}

// Cost is what Tables ask of the machine.
type Cost struct {
	Entries  int   // of the rule space, of abi.MaxRules
	Classes  int   // different sets of lists that contain an address, both directions
	Prefixes int   // of all four tables
	Bytes    int64 // of the maps
	// WorstProbes bounds the loads from tables that one packet costs one policy: the ways of both addresses, every
	// kind of bucket, the search in a leaf, and the longest list of entries, each of them.
	WorstProbes int
}

// Cost counts the tables.
func (t *Tables) Cost() Cost {
	c := Cost{Entries: t.entries, Prefixes: t.prefixes, Classes: t.classes, Bytes: bytesOf(t.Buckets) + bytesOf(t.Leaves) + bytesOf(t.Rules) + bytesOf(t.Verdicts) +
		bytesOf(t.Policies) + bytesOf(t.Up[0]) + bytesOf(t.Up[1])}
	for table := range abi.ClassTables {
		c.Bytes += bytesOf(t.Words(table))
	}
	c.WorstProbes = t.worstProbes()
	return c
}

// bytesOf is exact but for the last page of a map.
func bytesOf[T any](values []T) int64 {
	var one T
	return int64(len(values)) * int64(unsafe.Sizeof(one))
}

func (t *Tables) worstProbes() int {
	most := 0
	for i := range t.Policies {
		most = max(most, t.policyProbes(i))
	}
	return t.addressProbes() + most
}

// Probes bounds the loads from tables that one packet costs that meets these policies, one after the other.
func (t *Tables) Probes(policies ...int) int {
	n := t.addressProbes()
	for _, i := range policies {
		if i < len(t.Policies) {
			n += t.policyProbes(i)
		}
	}
	return n
}

// addressProbes are those of the ways to both classes, once per packet.
func (t *Tables) addressProbes() int {
	way := func(table abi.ClassTable) int { return t.Prefixes[table].steps() }
	return max(way(abi.ClassSrc4)+way(abi.ClassDst4), way(abi.ClassSrc6)+way(abi.ClassDst6))
}

func (t *Tables) policyProbes(i int) int {
	return 1 + t.planProbes(t.Policies[i].Act) + t.planProbes(t.Policies[i].Shadow)
}

func (t *Tables) planProbes(plan abi.SearchPlan) int {
	leaves, lookups := 0, 0
	if plan.Everywhere != 0 {
		leaves++
	}
	for key := uint32(abi.KeyBoth); key <= abi.KeyWideDst; key *= 2 {
		times := 1
		if key >= abi.KeyWideSrc {
			times = 1 + t.ancestors
		}
		if plan.Keys&key != 0 {
			lookups, leaves = lookups+times, leaves+times
		}
	}
	return lookups*t.probes + leaves*(bits.Len(uint(t.runs))+t.walk)
}
