package classify

import (
	"iter"
	"net/netip"
)

// shelf holds rules where those that they might cover look for them, so that 100,000 rules need not each meet all.
type shelf struct {
	byFrom, byTo map[netip.Prefix][]*extent // by each prefix of a short list
	rest         []*extent
}

func newShelf() *shelf {
	return &shelf{byFrom: map[netip.Prefix][]*extent{}, byTo: map[netip.Prefix][]*extent{}}
}

// shortList bounds the places that one rule takes.
const shortList = 8

func (s *shelf) put(e *extent) {
	on, list := s.byFrom, e.from
	if e.rule.From == nil {
		on, list = s.byTo, e.to
	}
	if len(list) == 0 || len(list) > shortList {
		s.rest = append(s.rest, e)
		return
	}
	for _, p := range list {
		on[p] = append(on[p], e)
	}
}

// covering returns the first rule that covers e, or nil. It stands at a prefix around the first of e's own, or with the
// rest.
func (s *shelf) covering(e *extent) *extent {
	var first *extent
	look := func(list []*extent) {
		for _, by := range list {
			if first != nil && by.order >= first.order {
				return
			}
			if by.covers(e) {
				first = by
				return
			}
		}
	}
	look(s.rest)
	for p := range upward(orEverywhere(e.rule.From, e.from)[0]) {
		look(s.byFrom[p])
	}
	for p := range upward(orEverywhere(e.rule.To, e.to)[0]) {
		look(s.byTo[p])
	}
	return first
}

// upward yields a masked prefix and all that contain it.
func upward(p netip.Prefix) iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		for bits := p.Bits(); bits >= 0; bits-- {
			if !yield(netip.PrefixFrom(p.Addr(), bits).Masked()) {
				return
			}
		}
	}
}
