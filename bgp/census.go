package bgp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"sync"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"
)

// census is what GoBGP said of all neighbors when it was last asked. To count the routes of one it copies its table, while everything
// else waits: so it is left alone for a multiple of the time that an answer took, unless a session changed.
type census struct {
	mu       sync.Mutex
	asking   chan struct{} // closed when there is an answer; nil: nobody asks
	peers    map[string]*api.Peer
	err      error
	states   map[netip.Addr]peerState
	until    time.Time
	believed believed
}

// patience is how long GoBGP is waited for. It answers nobody while it takes away the routes of a lost session, minutes for a full table.
const patience = 2 * time.Second

var errBusy = errors.New("bgp: GoBGP is busy with a table and does not answer yet")

// GoBGP is left alone for so many times as long as an answer took. A wait for a busy GoBGP is in that, and holds nothing up for long.
const (
	censusRest = 5
	restAtMost = 10 * time.Second
)

func restAfter(took time.Duration) time.Duration { return min(censusRest*took, restAtMost) }

// peerState is what changes of a session.
type peerState struct {
	session bgp.FSMState
	admin   api.PeerState_AdminState
}

// peers are all neighbors with their counts, by address; the last known ones where GoBGP does not answer.
func (sp *speaker) peers(ctx context.Context, neighbors []Neighbor) (map[string]*api.Peer, error) {
	c := &sp.census
	c.mu.Lock()
	if c.asking == nil {
		c.asking = make(chan struct{})
		go sp.ask(c.asking, neighbors)
	}
	answered := c.asking
	c.mu.Unlock()
	select {
	case <-answered:
	case <-time.After(patience):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.peers == nil && c.err == nil {
		return nil, errBusy
	}
	return c.peers, c.err
}

// ask takes a census, unless the last one is young and the sessions are the same.
func (sp *speaker) ask(answered chan struct{}, neighbors []Neighbor) {
	c := &sp.census
	states, err := sp.states(context.Background())
	c.mu.Lock()
	young := time.Now().Before(c.until) && maps.Equal(c.states, states)
	c.mu.Unlock()
	peers, began := map[string]*api.Peer{}, time.Now()
	if err == nil && !young {
		err = sp.bgp.ListPeer(context.Background(), &api.ListPeerRequest{}, func(p *api.Peer) { peers[p.Conf.NeighborAddress] = p })
		if err == nil {
			err = sp.believe(peers, neighbors)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err = err; err == nil && !young {
		c.peers, c.states, c.until = peers, states, time.Now().Add(restAfter(time.Since(began)))
	}
	c.asking = nil
	close(answered)
}

// within bounds the wait for an answer of GoBGP, which heeds no context while it is busy. The question stays with it.
func within(ctx context.Context, ask func() error) error {
	answer := make(chan error, 1)
	go func() { answer <- ask() }()
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// busyAfter bounds the wait of somebody who only looks.
func busyAfter(wait time.Duration, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	err := within(ctx, func() error { return ask(ctx) })
	if errors.Is(err, context.DeadlineExceeded) {
		return errBusy
	}
	return err
}

// states asks GoBGP for the state of each session as it is now. A new watcher is told them first, and nothing is counted for that.
func (sp *speaker) states(ctx context.Context) (map[netip.Addr]peerState, error) {
	ctx, end := context.WithCancel(ctx)
	defer end()
	out, told := map[netip.Addr]peerState{}, make(chan struct{})
	err := within(ctx, func() error {
		err := sp.bgp.WatchEvent(ctx, server.WatchEventMessageCallbacks{
			OnPeerUpdate: func(e *apiutil.WatchEventMessage_PeerEvent, _ time.Time) {
				switch e.Type {
				case apiutil.PEER_EVENT_INIT:
					out[e.Peer.State.NeighborAddress] = peerState{e.Peer.State.SessionState, e.Peer.State.AdminState}
				case apiutil.PEER_EVENT_END_OF_INIT: // is sent once
					close(told)
				}
			},
		}, server.WatchPeer())
		if err != nil {
			return fmt.Errorf("bgp: ask for the sessions: %w", err)
		}
		select {
		case <-told:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
