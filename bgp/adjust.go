package bgp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/osrg/gobgp/v4/api"
)

// ErrNoNeighbor: nothing of that name, or none that this can be done to.
var ErrNoNeighbor = errors.New("no such neighbor")

// relaxNeighbor changes what needs no new session; see Neighbor.
func (s *Subsystem) relaxNeighbor(ctx context.Context, n Neighbor) error {
	old, exists := s.neighbor(n.Address)
	switch {
	case !exists || old.session() != n.session():
		return s.setNeighbor(ctx, n)
	case old == n:
		return nil
	}
	if err := n.check(); err != nil {
		return err
	}
	s.sessions.add(n)
	if err := s.alter(ctx, old, n); err != nil {
		s.doubt(n)
		return err
	}
	return nil
}

// alter brings GoBGP from one to the other, in the session that there is.
func (s *Subsystem) alter(ctx context.Context, old, n Neighbor) error {
	if err := s.updatePeer(ctx, old, n); err != nil {
		return err
	}
	if old.NextHop4 != n.NextHop4 || old.NextHop6 != n.NextHop6 {
		if err := s.sendAgain(ctx, n); err != nil {
			return err
		}
	}
	if old.FirstAS != n.FirstAS {
		if err := s.judgeAgain(ctx, n); err != nil {
			return err
		}
	}
	switch {
	case n.Shutdown && !old.Shutdown:
		return s.disable(ctx, n)
	case old.Shutdown && !n.Shutdown, !n.Shutdown && old.Limit != n.Limit && s.sessions.lift(n.Address):
		return s.enable(ctx, n.Address)
	}
	return nil
}

// updatePeer tells GoBGP what it takes without a new session: timers. It forgets with that what the peer
// offered for graceful restart until the session comes up next, so it is told only what it has to know.
func (s *Subsystem) updatePeer(ctx context.Context, old, n Neighbor) error {
	if old.Limit != n.Limit {
		signal(s.sessions.doubt)
	}
	if old.Keepalive == n.Keepalive && old.ConnectRetry == n.ConnectRetry {
		return nil
	}
	_, err := s.speaker.bgp.UpdatePeer(ctx, &api.UpdatePeerRequest{Peer: s.offered(n).peer(s.speaker.passwords[n.Address], false)})
	return err
}

// sendAgain announces what is ours once more, as the export policy now says.
func (s *Subsystem) sendAgain(ctx context.Context, n Neighbor) error {
	if err := s.setPolicies(ctx, Op{kind: setNeighbor, neighbor: n}.on(s.have)); err != nil {
		return err
	}
	return s.reset(ctx, n.Address, api.ResetPeerRequest_DIRECTION_OUT)
}

func (s *Subsystem) reset(ctx context.Context, addr netip.Addr, soft api.ResetPeerRequest_Direction) error {
	return s.speaker.bgp.ResetPeer(ctx, &api.ResetPeerRequest{
		Address: addr.String(), Soft: soft != api.ResetPeerRequest_DIRECTION_UNSPECIFIED, Direction: soft,
		Communication: map[bool]string{true: "cleared by an operator"}[soft == api.ResetPeerRequest_DIRECTION_UNSPECIFIED],
	})
}

// Clear ends a session with a Cease, and it comes up again, with the password that its file holds now; one that was over its limit gets another try. Soft leaves it
// up: what the neighbor sent is judged again, and what is ours is sent again.
func (s *Subsystem) Clear(ctx context.Context, name string, soft bool) error {
	s.change.Lock()
	defer s.change.Unlock()
	n, ok := s.named(name)
	switch {
	case !ok:
		return fmt.Errorf("%w: %s", ErrNoNeighbor, name)
	case n.Shutdown:
		return fmt.Errorf("%w: %s is shut down by the configuration", ErrNoNeighbor, name)
	case soft:
		return s.reset(ctx, n.Address, api.ResetPeerRequest_DIRECTION_BOTH)
	case s.rekeyed(n):
		return s.rekey(ctx, n)
	case s.sessions.offer(n.Address):
		s.sessions.lift(n.Address)
		return s.again(ctx, n, false)
	case s.sessions.lift(n.Address):
		err := s.enable(ctx, n.Address)
		if err != nil {
			s.doubt(n)
		}
		return err
	}
	return s.reset(ctx, n.Address, api.ResetPeerRequest_DIRECTION_UNSPECIFIED)
}

func (s *Subsystem) named(name string) (Neighbor, bool) {
	if s.speaker == nil {
		return Neighbor{}, false
	}
	i := slices.IndexFunc(s.have.Neighbors, func(n Neighbor) bool { return n.Name == name })
	if i < 0 {
		return Neighbor{}, false
	}
	return s.have.Neighbors[i], true
}

// quarantine makes the peer anew, shut down: GoBGP takes the end of a session that was over its limit for a restart of
// the neighbor where graceful restart was negotiated, and would keep its routes.
func (s *Subsystem) quarantine(addr netip.Addr) {
	s.change.Lock()
	defer s.change.Unlock()
	n, ok := s.neighbor(addr)
	if s.speaker == nil || !ok || !s.sessions.over(addr) {
		return
	}
	s.speaker.sweep.forget(addr)
	if err := s.again(context.Background(), n, true); err != nil {
		s.log.Error("BGP neighbor over its limit", "neighbor", n.Name, "error", err)
	}
}

// again makes a peer anew, with change held, and with all that is known of its sessions.
func (s *Subsystem) again(ctx context.Context, n Neighbor, down bool) error {
	err := s.disconnect(ctx, n, true)
	if err == nil {
		s.sessions.bound(n.Address, false)
		err = s.connect(ctx, n, down)
	}
	if err != nil {
		s.doubt(n)
	}
	return err
}

// retry brings a session back that was over its limit, unless somebody did before.
func (s *Subsystem) retry(addr netip.Addr) {
	s.change.Lock()
	defer s.change.Unlock()
	n, ok := s.neighbor(addr)
	if s.speaker == nil || !ok || n.Shutdown || !s.sessions.lift(addr) {
		return
	}
	if err := s.enable(context.Background(), addr); err != nil {
		s.doubt(n)
		s.log.Error("BGP neighbor after its limit", "address", addr, "error", err)
	}
}
