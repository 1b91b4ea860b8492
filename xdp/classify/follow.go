package classify

import (
	"net/netip"
	"sync/atomic"
)

// follower finds the lists of prefixes that changed under rules that did not: a set is one list, however many rules name
// it, and stays the list that it was.
type follower struct {
	step  *step
	lists map[listID]*followed
}

// near says whether two rules differ in nothing but what is in their lists of several prefixes. met is set where such a list
// is not in the memory that it was in.
func near(a, b *Rule, met *atomic.Bool) bool {
	if !sameBesideLists(a, b) {
		return false
	}
	for _, pair := range [...][2][]netip.Prefix{{a.From, b.From}, {a.To, b.To}, {a.NotFrom, b.NotFrom}, {a.NotTo, b.NotTo}} {
		switch {
		case sameMemory(pair[0], pair[1]) && (pair[0] == nil) == (pair[1] == nil):
		case len(pair[0]) > 1 && len(pair[1]) > 1:
			met.Store(true)
		case !same(pair[0], pair[1]):
			return false
		}
	}
	return true
}

type listID struct{ direction, number int }

type followed struct {
	now   []netip.Prefix
	rules int // that name it
}

// rule looks at the lists of a rule as it was and as it is. false: they do not go together with those of rules before.
func (f *follower) rule(p *placed, now *Rule) bool {
	for d, lists := range p.lists {
		in, out := p.rule.directed(d)
		nowIn, nowOut := now.directed(d)
		if !f.list(listID{d, lists[0]}, in, nowIn) || !f.list(listID{d, lists[1]}, out, nowOut) {
			return false
		}
	}
	return true
}

func (f *follower) list(id listID, before, now []netip.Prefix) bool {
	if id.number == none || sameMemory(before, now) || len(now) < 2 {
		return true // of one prefix it is the same one
	}
	known := f.lists[id]
	if known == nil {
		if f.lists == nil {
			f.lists = map[listID]*followed{}
		}
		known = &followed{now: now}
		f.lists[id] = known
	}
	known.rules++
	return sameMemory(known.now, now)
}

// consistent takes the new lists over. false: some rules go on with an old one, or two have become one.
func (f *follower) consistent() bool {
	sides := f.step.sides()
	for id, to := range f.lists {
		side := sides[id.direction]
		l := &side.lists[id.number]
		if to.rules != l.uses {
			return false
		}
		delete(side.bySlice, sliceID{&l.prefixes[0], len(l.prefixes)})
	}
	for id, to := range f.lists {
		side, now := sides[id.direction], sliceID{&to.now[0], len(to.now)}
		if _, taken := side.bySlice[now]; taken {
			return false
		}
		side.bySlice[now] = id.number
		side.lists[id.number].prefixes = to.now
		f.step.lists[id.direction] = append(f.step.lists[id.direction], id.number)
	}
	return true
}
