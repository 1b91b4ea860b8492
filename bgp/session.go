package bgp

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"

	"sluice/bgp/flowspec"
)

// originate announces a prefix by its ways. A changed way is another tag, so GoBGP sends the path anew, or withdraws it
// from who hears it no longer: the ways of before stay in the policy until then.
func (s *Subsystem) originate(ctx context.Context, op Op) error {
	for _, p := range op.paths {
		if err := p.check(); err != nil {
			return err
		}
	}
	tag, known := s.speaker.ways.tag(op.paths)
	if !known {
		if err := s.setPolicies(ctx, op.on(s.have)); err != nil {
			return err
		}
	}
	path, err := local(op.prefix, tag)
	if err != nil {
		return err
	}
	_, err = s.speaker.bgp.AddPath(apiutil.AddPathRequest{Paths: []*apiutil.Path{path}})
	return err
}

func (s *Subsystem) withdraw(prefix netip.Prefix) error {
	if !slices.ContainsFunc(s.have.Paths, func(p Path) bool { return p.Prefix == prefix }) {
		return nil
	}
	path, err := local(prefix, 0)
	if err != nil {
		return err
	}
	path.Withdrawal = true
	return s.speaker.bgp.DeletePath(apiutil.DeletePathRequest{Paths: []*apiutil.Path{path}})
}

// learn takes what neighbors announced through the filters again, where these changed: no session is reset, and no neighbor
// asked, for GoBGP keeps all that it was told.
func (s *Subsystem) learn(ctx context.Context, l Learn) error {
	s.speaker.fib.SetPolicy(fibPolicy(l))
	if s.have.Learn.judges(l) {
		return nil
	}
	if err := s.setPolicies(ctx, Op{kind: learn, learn: l}.on(s.have)); err != nil {
		return err
	}
	return s.speaker.bgp.ResetPeer(ctx, &api.ResetPeerRequest{Address: "all", Soft: true, Direction: api.ResetPeerRequest_DIRECTION_IN})
}

// setPolicies has GoBGP judge as next says, and also by the ways of before.
func (s *Subsystem) setPolicies(ctx context.Context, next State) error {
	s.speaker.ways.keep(s.have.Paths, next.Paths)
	if err := s.speaker.bgp.SetPolicies(ctx, policies(next, s.speaker.ways)); err != nil {
		return fmt.Errorf("policies: %w", err)
	}
	return nil
}

func (s *Subsystem) neighbor(addr netip.Addr) (Neighbor, bool) {
	i := slices.IndexFunc(s.have.Neighbors, func(n Neighbor) bool { return n.Address == addr })
	if i < 0 {
		return Neighbor{}, false
	}
	return s.have.Neighbors[i], true
}

// setNeighbor makes a new session. What can be refused is checked before the old one goes.
func (s *Subsystem) setNeighbor(ctx context.Context, n Neighbor) error {
	old, exists := s.neighbor(n.Address)
	if exists && old == n {
		return nil
	}
	if err := n.check(); err != nil {
		return err
	}
	password, err := readPassword(n.PasswordFile)
	if err != nil {
		return err
	}
	if exists {
		if err := s.removeNeighbor(ctx, n.Address, n); err != nil {
			return err
		}
	}
	// The next hop must be right before the first announcement.
	if err := s.setPolicies(ctx, Op{kind: setNeighbor, neighbor: n}.on(s.have)); err != nil {
		return err
	}
	s.speaker.passwords[n.Address] = password
	s.speaker.sweep.expect(n.Address, n.unicast())
	s.sessions.add(n)
	if err = s.speaker.receive(n, s.flows); err == nil {
		err = s.connect(ctx, n, n.Shutdown)
	}
	if err != nil {
		s.forget(n.Address, n)
	}
	return err
}

// filter takes effect on the rules that are there as well.
func (s *Subsystem) filter(f FlowSpec) {
	s.flows.change(context.Background(), func(t tables) {
		s.flows.policed = true
		t.rules.SetPolicy(flowspec.Policy{Trust: f.AcceptFrom, Max: f.MaxRules, Keep: f.Keep})
		b := f.Blackholes
		t.blackholes.SetPolicy(flowspec.Policy{Trust: b.AcceptFrom, Max: b.Max, Keep: b.Keep, Blackholes: true, Within: b.Within})
	})
}

// connect hands a neighbor to GoBGP. One that is to stay down is shut down after that: an admin down of its configuration
// would be one more thing that differs in every update.
func (s *Subsystem) connect(ctx context.Context, n Neighbor, down bool) error {
	peer := n.peer(s.speaker.passwords[n.Address], s.restarting(n))
	if err := s.speaker.bgp.AddPeer(ctx, &api.AddPeerRequest{Peer: peer}); err != nil || !down {
		return err
	}
	return s.disable(ctx, n)
}

func (s *Subsystem) disable(ctx context.Context, n Neighbor) error {
	return s.admin(ctx, n.Address, api.PeerState_ADMIN_STATE_DOWN, func() error {
		return s.speaker.bgp.DisablePeer(ctx, &api.DisablePeerRequest{Address: n.Address.String(), Communication: n.Reason})
	})
}

func (s *Subsystem) enable(ctx context.Context, addr netip.Addr) error {
	return s.admin(ctx, addr, api.PeerState_ADMIN_STATE_UP, func() error {
		return s.speaker.bgp.EnablePeer(ctx, &api.EnablePeerRequest{Address: addr.String()})
	})
}

// adminTimeout bounds the wait for a peer's machine, which takes milliseconds, where GoBGP has time for it.
const adminTimeout = 5 * time.Second

// admin asks until the peer is in the state: GoBGP drops a request, without an error, while an earlier one waits to be
// taken.
func (s *Subsystem) admin(ctx context.Context, addr netip.Addr, want api.PeerState_AdminState, ask func() error) error {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for polls := 0; ; polls++ {
		var err error
		if polls%10 == 0 {
			err = within(ctx, ask)
		}
		var states map[netip.Addr]peerState
		if err == nil {
			states, err = s.speaker.states(ctx)
		}
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("the session does not take its new state: %w", ctx.Err())
		case err != nil || states[addr].admin == want:
			return err
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// removeNeighbor ends a session; next is the one that follows at the address, if any.
func (s *Subsystem) removeNeighbor(ctx context.Context, addr netip.Addr, next Neighbor) error {
	old, exists := s.neighbor(addr)
	if !exists {
		return nil
	}
	if err := s.disconnect(ctx, old); err != nil {
		return err
	}
	s.did(Op{kind: removeNeighbor, neighbor: old})
	s.forget(addr, next)
	return s.setPolicies(ctx, s.have)
}

// disconnect takes a neighbor from GoBGP, and with it what the neighbor announced.
func (s *Subsystem) disconnect(ctx context.Context, n Neighbor) error {
	if s.speaker.passwords[n.Address] != "" {
		// DeletePeer would leave the key on the listeners. An update without it takes it off; admin down, or the
		// session would be tried without a key.
		open := n.peer("", false)
		open.Conf.AdminDown = true
		if _, err := s.speaker.bgp.UpdatePeer(ctx, &api.UpdatePeerRequest{Peer: open}); err != nil {
			return err
		}
	}
	return s.speaker.bgp.DeletePeer(ctx, &api.DeletePeerRequest{Address: n.Address.String()})
}

func (s *Subsystem) forget(addr netip.Addr, next Neighbor) {
	if end := s.speaker.receiving[addr]; end != nil {
		end()
		delete(s.speaker.receiving, addr)
		s.flows.end(addr, next)
	}
	if !next.Address.IsValid() { // else not before its session: what GoBGP drops is still to be told
		s.speaker.fib.Dead(addr, false)
	}
	delete(s.speaker.passwords, addr)
	s.speaker.sweep.forget(addr)
	s.sessions.remove(addr)
}
