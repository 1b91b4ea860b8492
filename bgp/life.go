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
	ended      uint64 // the one that is to end for a reason of ours
	dead       bool   // for one that takes its next hops with it
}

func (s *sessions) began(addr netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.known[addr]; known != nil {
		known.life.up, known.life.restarting, known.life.dead = true, false, false
		known.life.session++
		known.dial = nil
		known.tally.up.Store(true)
	}
}

func (s *sessions) broke(addr netip.Addr, restarting bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.known[addr]; known != nil {
		known.life.up, known.life.restarting = false, restarting
		known.tally.up.Store(false)
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

// ends is the session that is to be ended; 0: none is up, or somebody ends it already. Dead says that its next hops are told to be.
func (s *sessions) ends(addr netip.Addr, dead bool) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.known[addr]
	if known == nil || !known.life.up {
		return 0
	}
	known.life.dead = known.life.dead || dead
	if known.life.ended == known.life.session {
		return 0
	}
	known.life.ended = known.life.session
	return known.life.session
}

// stays takes back that a session is to be ended, and says whether its next hops were told to be dead for that.
func (s *sessions) stays(addr netip.Addr, session uint64) (dead bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.known[addr]
	if known == nil || known.life.ended != session {
		return false
	}
	dead = known.life.dead
	known.life.ended, known.life.dead = 0, false
	return dead
}

// end has GoBGP end a session, which nobody waits for. Dead says that the caller told its next hops to be.
func (s *Subsystem) end(ctx context.Context, sp *speaker, addr netip.Addr, why string, dead bool) {
	session := s.sessions.ends(addr, dead)
	if session == 0 {
		return
	}
	go func() {
		err := s.cut(ctx, sp, addr, session, why)
		s.mu.Lock() // nobody else ends it meanwhile
		defer s.mu.Unlock()
		if err == nil || ctx.Err() != nil || s.speaker != sp {
			return
		}
		if s.sessions.stays(addr, session) {
			sp.fib.Dead(addr, false)
		}
		s.log.Error("end a BGP session", "address", addr, "why", why, "error", err)
	}()
}

// cut ends this session and no later one: asked of a session that is down, GoBGP would end the next. Between our last look and GoBGP's a
// session may still end and come anew, which would end for nothing.
func (s *Subsystem) cut(ctx context.Context, sp *speaker, addr netip.Addr, session uint64, why string) error {
	if _, err := sp.states(ctx); err != nil { // when there is an answer, it may be over
		return err
	}
	if now := s.sessions.life(addr); !now.up || now.session != session {
		return nil
	}
	err := sp.bgp.ResetPeer(ctx, &api.ResetPeerRequest{Address: addr.String(), Communication: why})
	if now := s.sessions.life(addr); err == nil && now.session != session {
		s.log.Warn("a BGP session came anew while the one before was to be ended, and may have ended for that", "address", addr, "why", why)
	}
	return err
}

// dismiss has GoBGP forget what it keeps for a neighbor that restarts, which it does with the neighbor alone.
func (s *Subsystem) dismiss(ctx context.Context, sp *speaker, addr netip.Addr) {
	s.change.Lock()
	defer s.change.Unlock()
	n, known := s.neighbor(addr)
	if s.speaker != sp || !known || !s.sessions.life(addr).restarting {
		return
	}
	_, err := readPassword(n.PasswordFile) // or it would be removed, and not come again
	if err == nil {
		err = s.removeNeighbor(ctx, addr, n)
	}
	if err == nil {
		err = s.setNeighbor(ctx, n)
	}
	if err != nil {
		s.log.Error("forget the routes of a BGP neighbor", "neighbor", n.Name, "error", err)
		return
	}
	s.did(Op{kind: setNeighbor, neighbor: n})
}
