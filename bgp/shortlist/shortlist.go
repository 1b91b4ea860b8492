// Package shortlist keeps the first few of many values, in their order, in room for a few.
package shortlist

import "slices"

// List takes values in any order.
type List[T any] struct {
	limit   int
	compare func(a, b T) int
	kept    []T
	full    bool // kept begins with as many as are wanted, sorted: what is behind them is not taken any more
	total   int
}

// room lets a list with a small limit be sorted seldom.
const room = 1024

// New makes a list of the first so many; limit 0: of all.
func New[T any](limit int, compare func(a, b T) int) *List[T] {
	return &List[T]{limit: limit, compare: compare}
}

// Add counts a value, and keeps it unless as many as are wanted come before it.
func (l *List[T]) Add(v T) {
	l.total++
	if l.full && l.compare(v, l.kept[l.limit-1]) >= 0 {
		return
	}
	l.kept = append(l.kept, v)
	if l.limit > 0 && len(l.kept)-room >= 2*l.limit {
		l.trim()
		l.full = true
	}
}

// First returns the first of them in their order, and how many were added. Of equal ones the first is kept.
func (l *List[T]) First() (first []T, total int) {
	l.trim()
	return l.kept, l.total
}

func (l *List[T]) trim() {
	slices.SortStableFunc(l.kept, l.compare)
	if l.limit > 0 && len(l.kept) > l.limit {
		l.kept = slices.Delete(l.kept, l.limit, len(l.kept))
	}
}
