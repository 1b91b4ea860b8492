package shortlist

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestTheFirstOfMany(t *testing.T) {
	type item struct{ value, order int }
	rng := rand.New(rand.NewPCG(1, 2))
	for _, limit := range []int{0, 1, 2, 100, 9999, 10000, 20000, math.MaxInt32} {
		l := New(limit, func(a, b item) int { return cmp.Compare(a.value, b.value) })
		var all []item
		for i := range 10000 {
			v := item{rng.IntN(3000), i} // many are equal
			all = append(all, v)
			l.Add(v)
			if limit > 0 && limit < len(all) && len(l.kept) > 2*limit+room {
				t.Fatalf("%d are held for the sake of %d", len(l.kept), limit)
			}
		}
		slices.SortStableFunc(all, func(a, b item) int { return cmp.Compare(a.value, b.value) })
		if limit > 0 && limit < len(all) {
			all = all[:limit]
		}
		if got, total := l.First(); total != 10000 || !slices.Equal(got, all) {
			t.Errorf("limit %d: %d of %d, want %d, or they differ", limit, len(got), total, len(all))
		}
	}
}

func TestOfNothingThereIsNoFirst(t *testing.T) {
	if got, total := New(3, cmp.Compare[int]).First(); len(got) != 0 || total != 0 {
		t.Errorf("%v, %d", got, total)
	}
}
