package bgp

import (
	"context"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"

	"sluice/bgp/fib"
)

// watch leads GoBGP's events to the writer, the sweeper and the sessions. Each watcher has an unbounded queue, in order: an End-of-RIB comes
// after the paths before it, and what happens to a session does not wait behind a full table.
func (s *Subsystem) watch(ctx context.Context, sp *speaker) error {
	burst := &burst{tell: s.options.Busy}
	err := sp.bgp.WatchEvent(ctx, server.WatchEventMessageCallbacks{
		OnBestPath: func(paths []*apiutil.Path, _ time.Time) {
			for _, p := range paths {
				if sp.learned(p, s.flows) {
					burst.add()
				}
			}
		},
		OnPathEor: func(eor *apiutil.Path, _ time.Time) {
			sp.sweep.received(eor.PeerAddress.Unmap(), eor.Family)
		},
	}, server.WatchBestPath(true), server.WatchEor(true))
	if err != nil {
		return err
	}
	return sp.bgp.WatchEvent(ctx, server.WatchEventMessageCallbacks{
		OnPeerUpdate: func(e *apiutil.WatchEventMessage_PeerEvent, at time.Time) {
			if e.Type == apiutil.PEER_EVENT_STATE {
				s.state(sp, e.Peer.State, at)
			}
		},
	}, server.WatchPeer())
}

// burst tells of many changes in a short time.
type burst struct {
	tell  func()
	n     int
	began time.Time
}

// A burst is so many changes within this time: a table that arrives, not the day's changes of one.
const (
	burstChanges = 1000
	burstWithin  = time.Second
)

func (b *burst) add() {
	if b.n++; b.n < burstChanges {
		return
	}
	if b.tell != nil && time.Since(b.began) < burstWithin {
		b.tell()
	}
	b.n, b.began = 0, time.Now()
}

// state takes a change of a session. What GoBGP has to be told in turn waits for the callback's end.
func (s *Subsystem) state(sp *speaker, p apiutil.PeerState, at time.Time) {
	addr := p.NeighborAddress
	if p.SessionState == bgp.BGP_FSM_ESTABLISHED {
		sp.fib.Dead(addr, false)
		s.sessions.runsOver(addr, sp.fib.Link(addr))
	}
	if p.AdminState == api.PeerState_ADMIN_STATE_PFX_CT && s.sessions.exceeded(addr, func() { s.retry(addr) }) {
		go s.quarantine(addr)
	}
	s.sessions.state(addr, p.SessionState, at, p.DisconnectMessage)
	if p.SessionState == bgp.BGP_FSM_IDLE && s.sessions.spoilt(addr) {
		go s.leaveOut(addr)
	}
}

// learned notes one change among the best paths of a prefix, and says whether a neighbor's was one. With multipath these are deltas by
// neighbor and path id: what is not named stays.
func (sp *speaker) learned(p *apiutil.Path, rules *flows) bool {
	prefix, ok := unicast(p)
	if !ok {
		return false
	}
	signal(rules.routes)
	if !p.PeerAddress.IsValid() { // our own
		return false
	}
	sp.sweep.heard(p.PeerAddress.Unmap())
	from := fib.Source{Neighbor: p.PeerAddress.Unmap(), PathID: p.RemoteID}
	if hop := nextHop(p); !p.Withdrawal && hop.IsValid() {
		sp.fib.Update(prefix, from, hop)
		return true
	}
	sp.fib.Withdraw(prefix, from)
	return true
}
