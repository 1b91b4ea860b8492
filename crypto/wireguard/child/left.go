package child

import (
	"maps"
	"slices"
	"time"
)

// at is a place and a port of it.
type at struct {
	place
	port uint16
}

// left is a place that a peer was told of to be no longer at, and where it is.
type left struct {
	from, to at
	until    time.Time
}

// leave has what comes from there taken as if it came from the peer's new place, for greetPause: it was sent before the peer, which is told
// anew as well, knew of that. A device follows each packet of a peer, so with traffic both ways each end would follow the other one back.
func (b *bind) leave(list []left) {
	if len(list) == 0 {
		return
	}
	if old := b.left.Load(); old != nil {
		list = append(slices.DeleteFunc(slices.Clone(*old), func(l left) bool {
			return slices.ContainsFunc(list, func(n left) bool { return n.from == l.from || n.to == l.from })
		}), list...)
	}
	b.left.Store(&list)
}

// now is where who sends from a place is now; false: there.
func (b *bind) now(from at) (at, bool) {
	list := b.left.Load()
	if list == nil {
		return from, false
	}
	now := time.Now()
	if !slices.ContainsFunc(*list, func(l left) bool { return now.Before(l.until) }) {
		b.left.CompareAndSwap(list, nil)
		return from, false
	}
	for _, l := range *list {
		if l.from == from && now.Before(l.until) {
			return l.to, true
		}
	}
	return from, false
}

// leaving is of settings that are not written yet.
func (s *server) leaving(settings string) []left {
	told := contacts(settings)
	if !slices.ContainsFunc(slices.Collect(maps.Values(told)), func(c contact) bool { return c.endpoint != "" }) {
		return nil
	}
	text, err := s.dev.IpcGet()
	if err != nil {
		return nil
	}
	return leaving(contacts(text), told)
}

// leaving are the places of peers that are told another one. Where another peer is, or will be, is not left.
func leaving(before, told map[string]contact) (list []left) {
	taken := map[at]bool{}
	for peer, c := range before {
		if told[peer].endpoint == "" {
			place, _ := atOf(c.endpoint)
			taken[place] = true
		}
	}
	for _, c := range told {
		place, _ := atOf(c.endpoint)
		taken[place] = true
	}
	for peer, c := range told {
		from, known := atOf(before[peer].endpoint)
		if to, ok := atOf(c.endpoint); known && ok && !taken[from] {
			list = append(list, left{from, to, time.Now().Add(greetPause)})
		}
	}
	return list
}

// atOf reads what parseEndpoint does.
func atOf(text string) (at, bool) {
	e, err := parseEndpoint(text)
	if err != nil {
		return at{}, false
	}
	to := e.(*endpoint)
	return at{to.remote, to.port}, true
}
