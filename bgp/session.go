package bgp

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
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
		if err := s.removeNeighbor(ctx, n.Address); err != nil {
			return err
		}
	}
	// The next hop must be right before the first announcement.
	if err := s.setPolicies(ctx, Op{kind: setNeighbor, neighbor: n}.on(s.have)); err != nil {
		return err
	}
	s.speaker.passwords[n.Address] = password
	s.speaker.sweep.expect(n.Address, n.families())
	s.sessions.add(n)
	err = s.speaker.bgp.AddPeer(ctx, &api.AddPeerRequest{Peer: n.peer(password, s.restarting(n))})
	if err != nil {
		s.forget(n.Address)
	}
	return err
}

// relaxNeighbor changes what does not touch the session, and gives a session that was over its limit another try. In
// GoBGP a new limit forgets that the peer offered graceful restart, until the session comes up next.
func (s *Subsystem) relaxNeighbor(ctx context.Context, n Neighbor) error {
	old, exists := s.neighbor(n.Address)
	if !exists || old.session() != n.session() {
		return s.setNeighbor(ctx, n)
	}
	s.sessions.add(n)
	if old.MaxPrefixes == n.MaxPrefixes {
		return nil
	}
	_, err := s.speaker.bgp.UpdatePeer(ctx, &api.UpdatePeerRequest{Peer: n.peer(s.speaker.passwords[n.Address], false)})
	if err != nil {
		return err
	}
	shut := false
	err = s.speaker.bgp.ListPeer(ctx, &api.ListPeerRequest{Address: n.Address.String()}, func(p *api.Peer) { shut = overLimit(p) })
	if err != nil || !shut {
		return err
	}
	return s.speaker.bgp.EnablePeer(ctx, &api.EnablePeerRequest{Address: n.Address.String()})
}

func (s *Subsystem) removeNeighbor(ctx context.Context, addr netip.Addr) error {
	old, exists := s.neighbor(addr)
	if !exists {
		return nil
	}
	if s.speaker.passwords[addr] != "" {
		// DeletePeer would leave the key on the listeners. An update without it takes it off; admin down, or the
		// session would be tried without a key.
		open := old.peer("", false)
		open.Conf.AdminDown = true
		if _, err := s.speaker.bgp.UpdatePeer(ctx, &api.UpdatePeerRequest{Peer: open}); err != nil {
			return err
		}
	}
	if err := s.speaker.bgp.DeletePeer(ctx, &api.DeletePeerRequest{Address: addr.String()}); err != nil {
		return err
	}
	s.have = Op{kind: removeNeighbor, neighbor: old}.on(s.have)
	s.forget(addr)
	return s.setPolicies(ctx, s.have)
}

func (s *Subsystem) forget(addr netip.Addr) {
	delete(s.speaker.passwords, addr)
	s.speaker.sweep.forget(addr)
	s.sessions.remove(addr)
}
