package bgp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

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
// asked, for GoBGP keeps all that it was told. What guards tunnels is in the writer before there is more to write.
func (s *Subsystem) learn(ctx context.Context, l Learn) error {
	s.speaker.fib.SetPolicy(fibPolicy(l))
	if s.have.Learn.judges(l) {
		return nil
	}
	if err := s.setPolicies(ctx, Op{kind: learn, learn: l}.on(s.have)); err != nil {
		s.speaker.fib.SetPolicy(fibPolicy(s.have.Learn))
		return err
	}
	defer s.speaker.census.judgedAnew()
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

func (s *Subsystem) neighbor(addr netip.Addr) (Neighbor, bool) { return at(s.have.Neighbors, addr) }

func at(list []Neighbor, addr netip.Addr) (Neighbor, bool) {
	i := slices.IndexFunc(list, func(n Neighbor) bool { return n.Address == addr })
	if i < 0 {
		return Neighbor{}, false
	}
	return list[i], true
}

// setNeighbor makes a new session. What can be refused is checked before the old one goes.
func (s *Subsystem) setNeighbor(ctx context.Context, n Neighbor) error {
	old, exists := s.neighbor(n.Address)
	if exists && old == n && !s.rekeyed(n) {
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
	s.keep(n.Address, password)
	s.speaker.sweep.expect(n.Address, n.unicast())
	s.sessions.add(n)
	s.doubt(n)
	if err = s.speaker.receive(n, s.flows); err == nil {
		err = s.connect(ctx, n, n.Shutdown)
	}
	if err != nil { // what GoBGP has of it by now must not stay
		return errors.Join(err, s.removeNeighbor(ctx, n.Address, n))
	}
	return nil
}

// doubt notes a neighbor whose step is not done, or failed: what GoBGP holds of it is not known, so it is none that anybody wants. Whoever looks
// next makes it anew, or removes it.
func (s *Subsystem) doubt(n Neighbor) {
	n.Doubtful = true
	s.did(Op{kind: setNeighbor, neighbor: n})
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
	peer := s.offered(n).peer(s.speaker.passwords[n.Address], s.restarting(n))
	if err := s.speaker.bgp.AddPeer(ctx, &api.AddPeerRequest{Peer: peer}); err != nil || !down {
		return err
	}
	return s.disable(ctx, n)
}

func (s *Subsystem) disable(ctx context.Context, n Neighbor) error {
	return s.admin(n.Address, api.PeerState_ADMIN_STATE_DOWN, func() error {
		return s.speaker.bgp.DisablePeer(ctx, &api.DisablePeerRequest{Address: n.Address.String(), Communication: n.Reason})
	})
}

func (s *Subsystem) enable(ctx context.Context, addr netip.Addr) error {
	return s.admin(addr, api.PeerState_ADMIN_STATE_UP, func() error {
		return s.speaker.bgp.EnablePeer(ctx, &api.EnablePeerRequest{Address: addr.String()})
	})
}

// adminPolls bound the wait for a peer's machine, which takes milliseconds: they are 10 ms apart, and GoBGP answers each.
const adminPolls = 500

// admin asks until the peer is in the state: GoBGP drops a request, without an error, while an earlier one waits to be taken. A busy GoBGP is waited
// for, as in every step: a request that somebody gave up would be done later, and nobody would know.
func (s *Subsystem) admin(addr netip.Addr, want api.PeerState_AdminState, ask func() error) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for polls := range adminPolls {
		if polls%10 == 0 {
			if err := ask(); err != nil {
				return err
			}
		}
		states, err := s.speaker.states(context.Background())
		if err != nil || states[addr].admin == want {
			return err
		}
		<-tick.C
	}
	return errors.New("the session does not take its new state")
}

// removeNeighbor ends a session; next is the one that follows at the address, if any.
func (s *Subsystem) removeNeighbor(ctx context.Context, addr netip.Addr, next Neighbor) error {
	old, exists := s.neighbor(addr)
	if !exists {
		return nil
	}
	if err := s.disconnect(ctx, old, next.Address.IsValid()); err != nil {
		s.doubt(old)
		return err
	}
	s.did(Op{kind: removeNeighbor, neighbor: old})
	s.forget(addr, next)
	return s.setPolicies(ctx, s.have)
}

// disconnect takes a neighbor from GoBGP, if it is there, and with it what the neighbor announced. It hears whether it comes anew.
func (s *Subsystem) disconnect(ctx context.Context, n Neighbor, anew bool) error {
	states, err := s.speaker.states(context.Background())
	state, there := states[n.Address]
	if err != nil || !there {
		return err
	}
	password := s.speaker.passwords[n.Address]
	if state.session == bgp.BGP_FSM_ESTABLISHED && (anew || password != "") {
		// What an update changes is what the neighbor hears (RFC 4486): anything, Other Configuration Change; its AS, Peer De-configured, as
		// DeletePeer says; admin down, Administrative Shutdown. Passive, or the next session might begin.
		last := s.offered(n).peer(password, false)
		if last.Transport.PassiveMode, last.Conf.Description = true, "goes"; !anew {
			last.Conf.PeerAsn = bgp.AS_TRANS // nobody's
		}
		if _, err := s.speaker.bgp.UpdatePeer(ctx, &api.UpdatePeerRequest{Peer: last}); err != nil {
			return err
		}
	}
	if password != "" {
		// DeletePeer would leave the key on the listeners. An update without it takes it off; admin down, or the
		// session would be tried without a key.
		open := s.offered(n).peer("", false)
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
	s.keep(addr, "")
	s.speaker.sweep.forget(addr)
	s.sessions.remove(addr)
}
