package classify

import "sync"

// Edit says that a run of a list took the place of another one.
type Edit struct {
	Before, Removed int // where in the former list, and how many elements were there
	Now, Added      int
}

// resync is how far Edits looks ahead for where two lists go on alike: an operator moves a block of rules at most.
const resync = 64

// Edits finds what makes now of former: runs in ascending order, not always the fewest. Equal elements that far apart
// from each other's place are an end and a beginning.
func Edits[T any](former, now []T, same func(a, b *T) bool) []Edit {
	head, tail := commonEnds(former, now, same)
	var edits []Edit
	i, endFormer := head, len(former)-tail
	j, endNow := head, len(now)-tail
	for i < endFormer || j < endNow {
		if i < endFormer && j < endNow && same(&former[i], &now[j]) {
			i, j = i+1, j+1
			continue
		}
		removed, added := meet(former[i:endFormer], now[j:endNow], same)
		edits = append(edits, Edit{i, removed, j, added})
		i, j = i+removed, j+added
	}
	return edits
}

// meet returns how many elements of both come before they are alike again: all, where that is nowhere near.
func meet[T any](former, now []T, same func(a, b *T) bool) (removed, added int) {
	for distance := 1; distance <= resync; distance++ {
		for removed := range distance + 1 {
			if added := distance - removed; removed < len(former) && added < len(now) && same(&former[removed], &now[added]) {
				return removed, added
			}
		}
	}
	return len(former), len(now)
}

// commonEnds compares from both ends, side by side, for a list may have 100,000 rules in memory of its own.
func commonEnds[T any](former, now []T, same func(a, b *T) bool) (head, tail int) {
	all := min(len(former), len(now))
	forward := func(from, limit int) int {
		for from < limit && same(&former[from], &now[from]) {
			from++
		}
		return from
	}
	backward := func(from, limit int) int {
		for from < limit && same(&former[len(former)-1-from], &now[len(now)-1-from]) {
			from++
		}
		return from
	}
	half := all / 2
	var other sync.WaitGroup
	other.Go(func() { head = forward(0, half) })
	tail = backward(0, all-half)
	other.Wait()
	if head == half {
		head = forward(head, all-tail)
	}
	if tail == all-half {
		tail = backward(tail, all-head)
	}
	return head, tail
}
