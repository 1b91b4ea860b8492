package bgp

import (
	"context"
	"sync"
)

// lostLinks are those that went down or lost their carrier since somebody last acted on it.
type lostLinks struct {
	mu   *sync.Mutex
	set  map[int]struct{}
	some chan struct{}
}

func newLostLinks() lostLinks {
	return lostLinks{mu: &sync.Mutex{}, set: map[int]struct{}{}, some: make(chan struct{}, 1)}
}

func (l lostLinks) lost(link int) {
	l.mu.Lock()
	l.set[link] = struct{}{}
	l.mu.Unlock()
	signal(l.some)
}

func (l lostLinks) take() map[int]struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make(map[int]struct{}, len(l.set))
	for link := range l.set {
		out[link] = struct{}{}
	}
	clear(l.set)
	return out
}

// fallOver ends the sessions with neighbors on links that were lost, as BFD would: nothing is kept of a neighbor that cannot be
// reached, graceful restart or not. A link that is back by now has lost what was on its way, and its sessions begin anew.
func (s *Subsystem) fallOver(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	lost := s.links.take()
	if s.speaker == nil {
		return
	}
	for _, n := range s.have.Neighbors {
		if _, is := lost[s.sessions.linkOf(n.Address)]; is && n.FallOver {
			s.end(ctx, s.speaker, n.Address, "link down", false)
		}
	}
}
