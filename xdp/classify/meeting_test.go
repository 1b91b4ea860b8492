package classify

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// TestWhatMeetsARegionIsFoundInAListInOrder compares looking up with reading all of the list, in a few nested prefixes.
func TestWhatMeetsARegionIsFoundInAListInOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	random := func() netip.Prefix {
		if rng.IntN(2) == 0 {
			return netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(rng.IntN(3)) << 6, 0, byte(rng.IntN(2)), byte(rng.IntN(4))}), rng.IntN(33)).Masked()
		}
		raw := [16]byte{0: 0x20, 7: byte(rng.IntN(2)), 8: byte(rng.IntN(2)) << 7, 15: byte(rng.IntN(4))}
		return netip.PrefixFrom(netip.AddrFrom16(raw), rng.IntN(129)).Masked()
	}
	found := 0
	for range 3000 {
		var list []netip.Prefix
		for range rng.IntN(60) {
			list = append(list, random())
		}
		if sorted := slices.IsSortedFunc(list, netip.Prefix.Compare); inOrder(list) != sorted {
			t.Fatalf("%v is in order: %v", list, !sorted)
		}
		slices.SortFunc(list, netip.Prefix.Compare)
		list = slices.Compact(list)
		p := random()
		want := slices.DeleteFunc(slices.Clone(list), func(q netip.Prefix) bool { return !q.Overlaps(p) })
		m := memberOf(p, 0)
		if got := meeting(list, []region{{m.first, m.last()}}, p.Addr().Is6()); !inOrder(list) || !slices.Equal(got, want) {
			t.Fatalf("%v meets %v of %v, want %v", p, got, list, want)
		}
		found += len(want)
	}
	if found < 3000 {
		t.Errorf("only %d met: this shows nothing", found)
	}
}
