package bgp

import (
	"context"
	"errors"
	"sync"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
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
func (s *Subsystem) fallOver(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	lost := s.links.take()
	if s.speaker == nil {
		return nil
	}
	// Asked of a session that is down, GoBGP would end the next one: a link may be lost twice, once seen and once told of.
	states, failed := s.speaker.states(ctx)
	for _, n := range s.have.Neighbors {
		if _, is := lost[s.sessions.linkOf(n.Address)]; is && n.FallOver && states[n.Address].session == bgp.BGP_FSM_ESTABLISHED {
			failed = errors.Join(failed, s.speaker.bgp.ResetPeer(ctx, &api.ResetPeerRequest{Address: n.Address.String(), Communication: "link down"}))
		}
	}
	return failed
}
