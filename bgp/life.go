package bgp

import (
	"context"
	"net/netip"

	"github.com/osrg/gobgp/v4/api"
)

// life is what the goroutine of a peer logs of its session before GoBGP acts on it. Events come when a lost session's routes are taken away, which is
// minutes for a full table.
type life struct {
	up         bool
	restarting bool   // it broke, and the neighbor's routes are kept for its restart time
	session    uint64 // how many came up
	ended      uint64 // the one that was to end for a reason of ours
}

func (s *sessions) began(addr netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.known[addr]; known != nil {
		known.life.up, known.life.restarting = true, false
		known.life.session++
	}
}

func (s *sessions) broke(addr netip.Addr, restarting bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.known[addr]; known != nil {
		known.life.up, known.life.restarting = false, restarting
	}
}

func (s *sessions) life(addr netip.Addr) life {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.known[addr]; known != nil {
		return known.life
	}
	return life{}
}

// ends is the session that is to be ended; 0: none is up, or somebody ends it already.
func (s *sessions) ends(addr netip.Addr) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.known[addr]
	if known == nil || !known.life.up || known.life.ended == known.life.session {
		return 0
	}
	known.life.ended = known.life.session
	return known.life.session
}

// end has GoBGP end a session, which nobody waits for.
func (s *Subsystem) end(ctx context.Context, sp *speaker, addr netip.Addr, why string) {
	session := s.sessions.ends(addr)
	if session == 0 {
		return
	}
	go func() {
		if err := s.cut(ctx, sp, addr, session, why); err != nil && ctx.Err() == nil && s.running() == sp {
			sp.fib.Dead(addr, false)
			s.log.Error("end a BGP session", "address", addr, "why", why, "error", err)
		}
	}()
}

// cut ends this session and no later one: asked of a session that is down, GoBGP would end the next.
func (s *Subsystem) cut(ctx context.Context, sp *speaker, addr netip.Addr, session uint64, why string) error {
	if _, err := sp.states(ctx); err != nil { // when there is an answer, it may be over
		return err
	}
	if now := s.sessions.life(addr); !now.up || now.session != session {
		return nil
	}
	return sp.bgp.ResetPeer(ctx, &api.ResetPeerRequest{Address: addr.String(), Communication: why})
}

// dismiss has GoBGP forget what it keeps for a neighbor that restarts, which it does with the neighbor alone.
func (s *Subsystem) dismiss(ctx context.Context, sp *speaker, addr netip.Addr) {
	s.change.Lock()
	defer s.change.Unlock()
	n, known := s.neighbor(addr)
	if s.speaker != sp || !known || !s.sessions.life(addr).restarting {
		return
	}
	err := s.removeNeighbor(ctx, addr, n)
	if err == nil {
		err = s.setNeighbor(ctx, n)
	}
	if err != nil {
		s.log.Error("forget the routes of a BGP neighbor", "neighbor", n.Name, "error", err)
		return
	}
	s.did(Op{kind: setNeighbor, neighbor: n})
}
