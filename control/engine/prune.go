package engine

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
)

const (
	// keptRevisions are the newest, whatever became of them: about a month of two changes a working day. Each holds its set
	// files, so without an end a box that applies a large feed every hour fills its disk.
	keptRevisions = 50
	// keptConfirmed are the newest confirmed ones, however many did not come through since: a start that finds one damaged
	// takes the one before.
	keptConfirmed = 3
)

// prune removes the revisions that nobody goes back to any more. those are kept in any case. A revision is there as a whole
// or not at all, also after a crash: what is set aside here the next OpenStore removes.
func (s *Store) prune(those ...int) error {
	keep := map[int]bool{}
	for _, n := range those {
		keep[n] = true
	}
	for _, n := range s.confirmed()[:min(keptConfirmed, len(s.confirmed()))] {
		keep[n] = true
	}
	list := s.List()
	for _, m := range list[:max(0, len(list)-keptRevisions)] {
		if keep[m.Number] || m.Status == Pending {
			continue
		}
		aside := filepath.Join(s.revisions(), fmt.Sprintf(".%d.gone", m.Number))
		if err := s.disk.rename(s.revision(m.Number), aside); err != nil {
			return fmt.Errorf("removing revision %d: %w", m.Number, err)
		}
		delete(s.metas, m.Number)
		if err := s.disk.remove(aside); err != nil {
			return fmt.Errorf("removing revision %d: %w", m.Number, err)
		}
	}
	return nil
}

// prune follows an apply. That it fails is no reason to fail the apply: the next one tries again.
func (e *Engine) prune() {
	keep := []int{e.current.number}
	if e.watch != nil {
		keep = append(keep, e.watch.Base)
	}
	if err := e.store.prune(keep...); err != nil {
		e.log.Warn("bookkeeping", "error", err)
	}
	e.set(func() { e.revisions = e.store.List() })
}

// Gone returns the ranges of numbers, first and last, that a history from 1 on lacks.
func Gone(history []Meta) [][2]int {
	var out [][2]int
	next := 1
	for _, m := range slices.SortedFunc(slices.Values(history), func(a, b Meta) int { return cmp.Compare(a.Number, b.Number) }) {
		if m.Number > next {
			out = append(out, [2]int{next, m.Number - 1})
		}
		next = m.Number + 1
	}
	return out
}

// absent says why a revision is not in the store.
func (s *Store) absent(n int) error {
	if n >= 1 && n <= s.last {
		return fmt.Errorf("revision %d: %w any more: the newest %d are kept", n, ErrNoRevision, keptRevisions)
	}
	return fmt.Errorf("revision %d: %w; `sluice history` lists them", n, ErrNoRevision)
}
