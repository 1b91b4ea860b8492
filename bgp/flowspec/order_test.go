package flowspec_test

import (
	"math/rand/v2"
	"testing"

	"sluice/bgp/flowspec"
	"sluice/bgp/flowspec/flowspectest"
)

// Pairs of which the first is asked before the second, by each branch of the reference algorithms (RFC 8955 appendix A,
// RFC 8956 appendix A).
func TestOrder(t *testing.T) {
	for _, c := range []struct {
		family       flowspec.Family
		what         string
		first, later string
	}{
		{4, "more components", "03 81 06 04 81 19", "03 81 06"},
		{4, "a lower type", "03 81 06", "04 81 06"},
		{4, "a lower type, though fewer", "01 00", "02 20 01 02 03 04 03 81 06"},
		{4, "the longer of prefixes that overlap", "01 10 0a 01", "01 08 0a"},
		{4, "the lower of prefixes that do not", "01 08 0a", "01 10 0b 01"},
		{4, "the lower, though shorter", "02 08 0a", "02 20 0b 01 01 01"},
		{4, "the longest source", "01 08 0a 02 18 c0 00 02", "01 08 0a 02 10 c0 00"},
		{4, "the second component, where the first is equal", "01 08 0a 03 81 06", "01 08 0a 03 81 07"},
		{4, "lower octets of one length", "05 81 50", "05 81 51"},
		{4, "lower octets, though shorter", "05 81 50", "05 91 00 50"},
		{4, "the operator's octet before the value's", "05 81 ff", "05 83 00"},
		{6, "the lower offset", "01 18 07 aa aa 80", "01 18 08 00 00"},
		{6, "the lower offset, though shorter", "01 18 07 aa aa 80", "01 20 08 00 00 00"},
		{6, "the longer of one offset that overlap", "01 10 04 10 00", "01 08 04 10"},
		{6, "the lower of one offset", "01 08 04 10", "01 10 04 20 00"},
		{6, "the source's offset", "02 18 07 aa aa 80", "02 18 08 00 00"},
		{6, "flow labels by octets", "0d a1 00 00 00 01", "0d a1 00 00 00 02"},
	} {
		first, later := parse(t, c.family, c.first), parse(t, c.family, c.later)
		if flowspec.Compare(first, later) >= 0 || flowspec.Compare(later, first) <= 0 {
			t.Errorf("%s: %s is not before %s: %d, %d", c.what, first, later, flowspec.Compare(first, later), flowspec.Compare(later, first))
		}
		if flowspec.Compare(first, first) != 0 {
			t.Errorf("%s is not equal to itself", first)
		}
	}
}

// weak fails where Compare is no strict weak order over three rules.
func weak(t *testing.T, a, b, c flowspec.Rule) {
	t.Helper()
	ab, bc, ac := flowspec.Compare(a, b), flowspec.Compare(b, c), flowspec.Compare(a, c)
	switch {
	case ab != -flowspec.Compare(b, a):
		t.Fatalf("%s and %s: %d and %d", a, b, ab, flowspec.Compare(b, a))
	case ab < 0 && bc < 0 && ac >= 0, ab == 0 && bc == 0 && ac != 0, ab == 0 && ac != bc:
		t.Fatalf("%s, %s, %s: %d, %d, %d", a, b, c, ab, bc, ac)
	}
	x, errX := a.MarshalComponents()
	y, errY := b.MarshalComponents()
	if errX == nil && errY == nil && (ab == 0) != (a.Family == b.Family && string(x) == string(y)) {
		t.Fatalf("%s and %s: %d, as octets %x and %x", a, b, ab, x, y)
	}
}

func TestOrderIsAStrictWeakOne(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	some := make([]flowspec.Rule, 60)
	for i := range some {
		some[i] = flowspectest.Rule(rng, [...]flowspec.Family{flowspec.IPv4, flowspec.IPv6}[i%2])
		some[i].Components = some[i].Components[:min(2, len(some[i].Components))] // so that many are near each other
	}
	for _, a := range some {
		for _, b := range some {
			for _, c := range some {
				weak(t, a, b, c)
			}
		}
	}
}
