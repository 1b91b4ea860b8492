package ike

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/strongswan/govici/vici"
)

// Client keeps connections in the charon behind one socket. What was loaded is remembered, and loaded anew by Run when a
// charon comes back that does not have it.
type Client struct {
	socket string
	log    *slog.Logger
	times  times
	events chan Event
	wake   chan struct{} // holds one: something was changed, so look at it soon

	hung hung

	reasons reasons

	mu     sync.Mutex        // one change of charon at a time
	wanted map[string]Conn   // by name
	keyIDs map[string]bool   // of private keys that charon had of us
	broken map[string]string // why files cannot be taken, as it was told last; by name of the connection
}

// New returns a Client that has touched nothing yet. socket is a path, such as /run/charon.vici.
func New(socket string, log *slog.Logger) *Client {
	return &Client{
		socket: socket, log: log.With("charon", socket), times: defaultTimes,
		events: make(chan Event, 256), wake: make(chan struct{}, 1), wanted: map[string]Conn{},
		keyIDs: map[string]bool{}, broken: map[string]string{},
	}
}

// Socket is where charon is expected.
func (c *Client) Socket() string { return c.socket }

// Events tells what Run sees. An event that nobody takes in time is lost; Status has what is.
func (c *Client) Events() <-chan Event { return c.events }

// Ping returns nil if charon answers, else ErrNoCharon or ErrProtocol.
func (c *Client) Ping(ctx context.Context) error {
	return c.with(ctx, func(ctx context.Context, s *session) error {
		_, err := s.ask(ctx, "version", nil)
		return err
	})
}

// with opens a session for one change or look. charon serves any number of them, and none is kept that could be stale.
func (c *Client) with(ctx context.Context, f func(context.Context, *session) error) error {
	if err := c.hung.recent(time.Now()); err != nil {
		return err
	}
	asked, cancel := context.WithTimeout(ctx, c.times.patience)
	defer cancel()
	s, err := open(asked, c.socket)
	if err == nil {
		defer s.close()
		err = f(asked, s)
	}
	if err != nil && ctx.Err() == nil && asked.Err() != nil {
		c.hung.since(time.Now(), err)
	}
	return err
}

// Remember makes conns those that Run keeps in charon, without a look at it: what a restarted daemon has adopted.
func (c *Client) Remember(conns []Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.wanted)
	for _, conn := range conns {
		c.wanted[conn.name()] = conn
	}
	c.poke()
}

// Load makes charon hold conn. One that it holds already is left alone. A changed one takes the place of the former; the
// SAs of that carry on until Run has seen new ones established. ErrNoCharon: it is loaded by Run when charon is there.
func (c *Client) Load(ctx context.Context, conn Conn) error {
	if err := conn.Check(); err != nil {
		return err
	}
	p, err := proofOf(conn)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	before, known := c.wanted[conn.name()]
	c.wanted[conn.name()] = conn
	defer c.poke()
	err = c.with(ctx, func(ctx context.Context, s *session) error { return s.load(ctx, conn, p) })
	switch {
	case err == nil || errors.Is(err, ErrNoCharon):
	case known:
		c.wanted[conn.name()] = before
	default:
		delete(c.wanted, conn.name()) // or Run would load it when nobody wants it any more
	}
	return err
}

// Unload takes a peer out of charon, with its key and its SAs. With no charon there is nothing to take out, which is no
// error: its configuration has gone with it.
func (c *Client) Unload(ctx context.Context, tunnel, peer string) error {
	return c.unload(ctx, tunnel, peer)
}

func (c *Client) unload(ctx context.Context, tunnel string, peers ...string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, peer := range peers {
		name := connName(tunnel, peer)
		delete(c.wanted, name)
		delete(c.broken, name)
		c.reasons.forget(name)
	}
	defer c.poke()
	err := c.with(ctx, func(ctx context.Context, s *session) error {
		var failed []error
		for _, peer := range peers {
			failed = append(failed, s.unload(ctx, tunnel, peer, c.keyIDs))
		}
		return errors.Join(append(failed, s.forgetKeys(ctx, c.keyIDs))...)
	})
	if errors.Is(err, ErrNoCharon) {
		return nil
	}
	return err
}

// Holds says whether a peer was loaded or remembered, and not unloaded since.
func (c *Client) Holds(tunnel, peer string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, yes := c.wanted[connName(tunnel, peer)]
	return yes
}

// UnloadTunnel takes all peers of a tunnel out, also those of which this Client does not know.
func (c *Client) UnloadTunnel(ctx context.Context, tunnel string) error {
	peers := map[string]bool{}
	c.mu.Lock()
	for _, conn := range c.wanted {
		if conn.Tunnel == tunnel {
			peers[conn.Peer] = true
		}
	}
	c.mu.Unlock()
	list, err := c.Status(ctx)
	if err != nil && !errors.Is(err, ErrNoCharon) {
		return err
	}
	for _, s := range list {
		if s.Tunnel == tunnel {
			peers[s.Peer] = true
		}
	}
	return c.unload(ctx, tunnel, slices.Sorted(maps.Keys(peers))...)
}

// Loaded returns the connections of ours that charon holds, by tunnel and peer.
func (c *Client) Loaded(ctx context.Context) (list []Loaded, err error) {
	err = c.with(ctx, func(ctx context.Context, s *session) error {
		list, err = s.loaded(ctx)
		return err
	})
	return list, err
}

// Status returns what is loaded and what is established, by tunnel and peer.
func (c *Client) Status(ctx context.Context) (list []Status, err error) {
	err = c.with(ctx, func(ctx context.Context, s *session) error {
		conns, err := s.conns(ctx, "")
		if err != nil {
			return err
		}
		sas, err := s.associations(ctx, "")
		list = join(conns, sas)
		return err
	})
	for i, s := range list {
		if !s.Up() {
			list[i].Why = c.reasons.of(connName(s.Tunnel, s.Peer))
		}
	}
	return list, err
}

func join(conns []Loaded, sas []IKESA) []Status {
	byName := map[string]*Status{}
	get := func(tunnel, peer string) *Status {
		name := connName(tunnel, peer)
		if byName[name] == nil {
			byName[name] = &Status{Tunnel: tunnel, Peer: peer}
		}
		return byName[name]
	}
	digests := map[string]string{}
	for _, l := range conns {
		s := get(l.Tunnel, l.Peer)
		s.Loaded, s.Leads = true, leads(l.LocalID, l.RemoteID)
		digests[connName(l.Tunnel, l.Peer)] = l.Digest
	}
	for _, sa := range sas {
		s := get(sa.Tunnel, sa.Peer)
		s.SAs = append(s.SAs, sa)
		for _, child := range sa.Children {
			s.Changed = s.Changed || s.Loaded && child.live() && child.Name != digests[connName(sa.Tunnel, sa.Peer)]
		}
	}
	out := make([]Status, 0, len(byName))
	for _, s := range byName {
		slices.SortFunc(s.SAs, func(a, b IKESA) int { return int(a.ID) - int(b.ID) })
		out = append(out, *s)
	}
	slices.SortFunc(out, func(a, b Status) int { return strings.Compare(connName(a.Tunnel, a.Peer), connName(b.Tunnel, b.Peer)) })
	return out
}

// Initiate starts to establish a peer's SAs and does not wait for them. Run does so by itself.
func (c *Client) Initiate(ctx context.Context, tunnel, peer string) error {
	return c.with(ctx, func(ctx context.Context, s *session) error {
		conns, err := s.conns(ctx, connName(tunnel, peer))
		if err != nil {
			return err
		}
		if len(conns) == 0 {
			return fmt.Errorf("tunnel %s, peer %s is not loaded into charon at %s", tunnel, peer, c.socket)
		}
		return s.initiate(ctx, tunnel, peer, conns[0].Digest)
	})
}

// RekeyChild has the keys of a peer's ESP states renewed, and RekeyIKE those of IKE itself. Neither waits, and neither
// loses a packet: charon keeps the former states for what is on its way.
func (c *Client) RekeyChild(ctx context.Context, tunnel, peer string) error {
	return c.rekey(ctx, tunnel, peer, func(sa IKESA) []uint32 {
		var ids []uint32
		for _, child := range sa.Children {
			if child.live() {
				ids = append(ids, child.ID)
			}
		}
		return ids
	}, "child-id")
}

// RekeyIKE is described at RekeyChild.
func (c *Client) RekeyIKE(ctx context.Context, tunnel, peer string) error {
	return c.rekey(ctx, tunnel, peer, func(sa IKESA) []uint32 {
		if sa.State != "ESTABLISHED" {
			return nil
		}
		return []uint32{sa.ID}
	}, "ike-id")
}

func (c *Client) rekey(ctx context.Context, tunnel, peer string, pick func(IKESA) []uint32, key string) error {
	return c.with(ctx, func(ctx context.Context, s *session) error {
		sas, err := s.associations(ctx, connName(tunnel, peer))
		if err != nil {
			return err
		}
		done := 0
		for _, sa := range sas {
			for _, id := range pick(sa) {
				if _, err := s.ask(ctx, "rekey", arguments(key, fmt.Sprint(id))); err != nil {
					return err
				}
				done++
			}
		}
		if done == 0 {
			return fmt.Errorf("tunnel %s, peer %s has nothing established that could be rekeyed", tunnel, peer)
		}
		return nil
	})
}

// Terminate closes all SAs of a peer and leaves it loaded: it comes up again, by Run or by what is sent to it.
func (c *Client) Terminate(ctx context.Context, tunnel, peer string) error {
	defer c.poke()
	return c.with(ctx, func(ctx context.Context, s *session) error {
		sas, err := s.associations(ctx, connName(tunnel, peer))
		for _, sa := range sas {
			err = errors.Join(err, s.terminateIKE(ctx, sa.ID))
		}
		return err
	})
}

func (c *Client) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// arguments are pairs of a key and its value; what is empty is left out.
func arguments(pairs ...string) *vici.Message {
	m := vici.NewMessage()
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			// Text is never refused.
			_ = m.Set(pairs[i], pairs[i+1])
		}
	}
	return m
}
