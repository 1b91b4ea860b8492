package bgp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"sluice/bgp/bfd"
)

// detected is what was last seen of the BFD sessions.
type detected struct {
	known    bool
	failures map[netip.Addr]uint64
	up       map[netip.Addr]bool
}

// detect makes the BFD sessions those of wanted.
func (s *Subsystem) detect(wanted []bfd.Config) error {
	if s.options.BFD == nil {
		if len(wanted) == 0 {
			return nil
		}
		return errors.New("this process holds no BFD sessions")
	}
	if err := s.options.BFD.Set(wanted); err != nil {
		return err
	}
	if s.looks() {
		return nil
	}
	// What failed before this process lived, no session of its own can suffer from.
	r, err := s.options.BFD.Report()
	if err != nil {
		return fmt.Errorf("BFD: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.detected = seen(r)
	return nil
}

// looks says that it is known what failed before: from then on look alone changes that. Who holds the sessions is another process, and
// mu is not held while it is asked.
func (s *Subsystem) looks() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.detected.known
}

func seen(r bfd.Report) detected {
	d := detected{known: true, failures: map[netip.Addr]uint64{}, up: map[netip.Addr]bool{}}
	for _, st := range r.Sessions {
		d.failures[st.Peer], d.up[st.Peer] = st.Failures, st.State == bfd.Up
	}
	return d
}

// Run acts on BFD, and on links that were lost, until ctx ends.
func (s *Subsystem) Run(ctx context.Context) error {
	var changed <-chan struct{}
	if s.options.BFD != nil {
		changed = s.options.BFD.Changed()
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			if err := s.look(ctx); err != nil && ctx.Err() == nil {
				s.log.Error("BFD", "error", err)
			}
		case <-s.links.some:
			s.fallOver(ctx)
		}
	}
}

// look compares the sessions with what was last seen of them. Failures are counted by who holds them, so none is missed.
func (s *Subsystem) look(ctx context.Context) error {
	if !s.looks() {
		return nil
	}
	r, err := s.options.BFD.Report()
	if err != nil || len(r.Sessions) == 0 && len(s.wanted()) > 0 { // nobody holds them at the moment
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.detected
	s.detected = seen(r)
	for _, st := range r.Sessions {
		n, known := s.neighbor(st.Peer)
		if !known || s.speaker == nil {
			continue
		}
		// A process that was started anew counts from 0.
		failed := st.Failures > 0 && st.Failures != before.failures[st.Peer]
		if failed {
			s.failed(ctx, n.Address, st)
		}
		if up := st.State == bfd.Up; failed || up != before.up[st.Peer] {
			s.sessions.liveness(n, st)
		}
	}
	return nil
}

// failed acts on a session that BFD saw fail (RFC 5882 section 4.3). BGP announces no restart beforehand, so a session that is
// established ends, with graceful restart or without: nothing is kept of a neighbor that cannot forward. Where the neighbor is
// restarting already, the failure may be its BFD that shares the fate of its control plane, and what is kept for it stays;
// unless its packets said that it does not (C). GoBGP takes one path after the other away, also of a session that broke before: the next hops
// do not wait for that, nor for an answer of GoBGP's.
func (s *Subsystem) failed(ctx context.Context, addr netip.Addr, st bfd.Status) {
	restarting := s.sessions.life(addr).restarting
	if restarting && !st.Independent {
		return
	}
	s.speaker.fib.Dead(addr, true)
	if restarting {
		go s.dismiss(ctx, s.speaker, addr)
		return
	}
	s.end(ctx, s.speaker, addr, "BFD session down", true)
}

// liveness is the BFD session of each neighbor that has one, as far as its holder answers.
func (s *Subsystem) liveness() map[netip.Addr]*bfd.Status {
	out, wanted := map[netip.Addr]*bfd.Status{}, s.wanted()
	if len(wanted) == 0 {
		return out
	}
	r, err := s.options.BFD.Report()
	if err != nil {
		s.log.Warn("BFD", "error", err)
	}
	for _, st := range r.Sessions {
		if slices.ContainsFunc(wanted, func(c bfd.Config) bool { return c.Peer == st.Peer }) {
			out[st.Peer] = &st
		}
	}
	return out
}

// Discards counts the BFD packets that were not believed, by reason; none where no sessions are held.
func (s *Subsystem) Discards() (map[string]uint64, error) {
	if len(s.wanted()) == 0 {
		return nil, nil
	}
	r, err := s.options.BFD.Report()
	return r.Discards, err
}

// wanted are the BFD sessions that there are to be.
func (s *Subsystem) wanted() []bfd.Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.have.BFD
}

// liveness tells that a BFD session came up or went down. A neighbor that was switched off on purpose has not failed.
func (s *sessions) liveness(n Neighbor, st bfd.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := Event{Time: time.Now(), Neighbor: n.Name, Address: n.Address, Kind: EventLive}
	if known := s.known[n.Address]; known != nil {
		e.Up = known.up
	}
	if st.State == bfd.Up {
		s.log.Info("BFD session up", "neighbor", n.Name, "address", n.Address)
	} else {
		e.Kind, e.Reason = EventDead, st.Diag.String()
		if st.RemoteState == bfd.AdminDown {
			e.Reason = "the neighbor has switched it off"
		}
		s.log.Warn("BFD session down", "neighbor", n.Name, "address", n.Address, "reason", e.Reason)
	}
	s.send(e)
}
