package config

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// What lies around a prefix is what says so itself, the longest first.
func TestANestFindsAllThatIsAroundAPrefix(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	address := func() netip.Addr {
		if random.IntN(2) == 0 {
			return netip.AddrFrom4([4]byte{10, byte(random.IntN(4)), byte(random.IntN(4)), 1})
		}
		return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(random.IntN(4)), 15: 1})
	}
	prefix := func() netip.Prefix {
		a := address()
		return netip.PrefixFrom(a, random.IntN(a.BitLen()+1)).Masked()
	}
	found := 0
	for range 200 {
		var n nest[int]
		for i := range 20 {
			n.put(prefix(), i)
		}
		inner := prefix()
		var want, got []netip.Prefix
		for p := range n.of {
			if p.Bits() <= inner.Bits() && p.Contains(inner.Addr()) {
				want = append(want, p)
			}
		}
		slices.SortFunc(want, func(a, b netip.Prefix) int { return b.Bits() - a.Bits() })
		n.around(inner, func(p netip.Prefix, v int) bool {
			if v != n.of[p] {
				t.Errorf("%s: %d, want %d", p, v, n.of[p])
			}
			got = append(got, p)
			return true
		})
		if !slices.Equal(got, want) {
			t.Errorf("around %s: %v, want %v", inner, got, want)
		}
		found += len(got)
	}
	if found == 0 {
		t.Error("nothing was ever around anything")
	}
}
