package flowspec

import (
	"cmp"
	"errors"
	"slices"
	"time"
)

// Kept is a rule for a process that follows, which finds its packets filtered and its session gone.
type Kept struct {
	Origin       Origin    `json:"origin"`
	Family       Family    `json:"family"`
	Components   []byte    `json:"components"`
	Communities  []byte    `json:"communities,omitempty"`
	Communities6 []byte    `json:"communities6,omitempty"`
	Problem      string    `json:"problem,omitempty"`
	Since        time.Time `json:"since"`
	Stale        time.Time `json:"stale,omitzero"`
	Unfeasible   string    `json:"unfeasible,omitempty"`
}

// Keep returns all rules in the order of their arrival.
func (t *Table) Keep() []Kept {
	list := t.byArrival()
	out := make([]Kept, 0, len(list))
	for _, e := range list {
		k := Kept{Origin: e.Origin, Family: e.said.Family, Components: e.said.Components, Communities: e.said.Communities,
			Communities6: e.said.Communities6, Since: e.Since, Stale: e.Stale}
		if e.said.Problem != nil {
			k.Problem = e.said.Problem.Error()
		}
		if e.unfeasible != nil {
			k.Unfeasible = e.unfeasible.Error()
		}
		out = append(out, k)
	}
	return out
}

// Restore takes rules that an earlier process kept, stale since then or from now on. What they were judged by, the unicast routes,
// has to come again as well: they keep their verdict until their neighbor announces them.
func (t *Table) Restore(kept []Kept, now time.Time) {
	for _, k := range kept {
		a := Announcement{Origin: k.Origin, Family: k.Family, Components: k.Components, Communities: k.Communities, Communities6: k.Communities6}
		if k.Problem != "" {
			a.Problem = errors.New(k.Problem)
		}
		e := newEntry(a, k.Since)
		e.Stale = k.Stale
		if e.Stale.IsZero() || e.Stale.After(now) {
			e.Stale = now
		}
		if k.Unfeasible != "" {
			e.unfeasible = errors.New(k.Unfeasible)
		}
		e.judged = true
		t.arrivals++
		e.arrival = t.arrivals
		t.entries[e.key()] = e
	}
}

func (t *Table) byArrival() []*entry {
	list := make([]*entry, 0, len(t.entries))
	for _, e := range t.entries {
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b *entry) int { return cmp.Compare(a.arrival, b.arrival) })
	return list
}
