package bgp

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"

	"sluice/bgp/flowspec"
)

func (s *Subsystem) originate(p Path) error {
	path, err := p.local()
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
	path, err := Path{Prefix: prefix}.local()
	if err != nil {
		return err
	}
	path.Withdrawal = true
	return s.speaker.bgp.DeletePath(apiutil.DeletePathRequest{Paths: []*apiutil.Path{path}})
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
	if err := s.speaker.bgp.SetPolicies(ctx, exportPolicies(append(slices.Clone(s.have.Neighbors), n))); err != nil {
		return fmt.Errorf("export policy: %w", err)
	}
	s.speaker.passwords[n.Address] = password
	s.speaker.sweep.expect(n.Address, n.unicast())
	s.sessions.add(n)
	if err := s.speaker.receive(n, s.flows); err != nil {
		s.forget(n.Address, n)
		return err
	}
	err = s.speaker.bgp.AddPeer(ctx, &api.AddPeerRequest{Peer: n.peer(password, s.restarting(n))})
	if err != nil {
		s.forget(n.Address, n)
	}
	return err
}

// filter takes effect on the rules that are there as well.
func (s *Subsystem) filter(f FlowSpec) {
	s.flows.change(context.Background(), func(t *flowspec.Table) {
		t.SetPolicy(flowspec.Policy{Trust: f.AcceptFrom, Max: f.MaxRules, Keep: f.Keep})
	})
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

// removeNeighbor ends a session; next is the one that follows at the address, if any.
func (s *Subsystem) removeNeighbor(ctx context.Context, addr netip.Addr, next Neighbor) error {
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
	s.forget(addr, next)
	return s.speaker.bgp.SetPolicies(ctx, exportPolicies(s.have.Neighbors))
}

func (s *Subsystem) forget(addr netip.Addr, next Neighbor) {
	if end := s.speaker.receiving[addr]; end != nil {
		end()
		delete(s.speaker.receiving, addr)
		s.flows.end(addr, next)
	}
	delete(s.speaker.passwords, addr)
	s.speaker.sweep.forget(addr)
	s.sessions.remove(addr)
}
