package ipsec

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"

	"sluice/crypto/ike"
)

// Event is what the supervision of charon has seen.
type Event = ike.Event

// charons are the clients of the charons that tunnels of keying IKE use: in practice one. A client that no tunnel uses any
// more stays, and is quiet.
type charons struct {
	log    *slog.Logger
	events chan Event
	more   chan struct{} // holds one: a client was added

	mu      sync.Mutex
	clients map[string]*ike.Client // by socket
}

func newCharons(log *slog.Logger) *charons {
	return &charons{log: log, events: make(chan Event, 256), more: make(chan struct{}, 1), clients: map[string]*ike.Client{}}
}

// at returns the client of a socket.
func (c *charons) at(socket string) *ike.Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.clients[socket] == nil {
		c.clients[socket] = ike.New(socket, c.log)
		select {
		case c.more <- struct{}{}:
		default:
		}
	}
	return c.clients[socket]
}

func (c *charons) all() []*ike.Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.SortedFunc(maps.Values(c.clients), func(a, b *ike.Client) int { return strings.Compare(a.Socket(), b.Socket()) })
}

// run supervises every charon until ctx ends.
func (c *charons) run(ctx context.Context) {
	var tasks sync.WaitGroup
	defer tasks.Wait()
	attended := map[*ike.Client]bool{}
	for {
		for _, client := range c.all() {
			if attended[client] {
				continue
			}
			attended[client] = true
			tasks.Go(func() { _ = client.Run(ctx) }) // ends with ctx, and with nothing else
			tasks.Go(func() { c.forward(ctx, client) })
		}
		select {
		case <-ctx.Done():
			return
		case <-c.more:
		}
	}
}

func (c *charons) forward(ctx context.Context, client *ike.Client) {
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-client.Events():
			select {
			case c.events <- e:
			default: // nobody takes them; Status has what is
			}
		}
	}
}

// remember tells each charon's client what it is to keep there.
func (c *charons) remember(s State) {
	conns := map[string][]ike.Conn{}
	for _, t := range s.Tunnels {
		if t.Keying != IKE {
			continue
		}
		c.at(t.Charon)
		for _, p := range t.Peers {
			conns[t.Charon] = append(conns[t.Charon], connOf(t, p))
		}
	}
	for _, client := range c.all() {
		client.Remember(conns[client.Socket()])
	}
}

// connOf is what charon is told of a peer.
func connOf(t Tunnel, p Peer) ike.Conn {
	return ike.Conn{
		Tunnel: t.Name, Peer: p.Name, Local: t.Local.Addr(), Remote: p.Endpoint, LocalID: t.ID, RemoteID: p.ID, SecretFile: p.SecretFile, Certificates: t.Certificates,
		InterfaceID: IfID(t.Name), Mark: t.FirewallMark, Prefixes: p.Prefixes, Encapsulate: t.Encapsulation == UDP,
		ReplayWindow: t.ReplayWindow, Rekey: t.Rekey, IKEProposals: t.IKEProposals, ESPProposals: t.ESPProposals,
	}
}

// looks are what the charons hold, at one moment, by tunnel. A charon that does not answer will have again what it was told
// (ike.Client.Run), so it counts as if it had that.
type looks struct {
	loaded map[string][]ike.Loaded
	away   map[string]error // by socket
}

func (c *charons) look(ctx context.Context) looks {
	l := looks{map[string][]ike.Loaded{}, map[string]error{}}
	for _, client := range c.all() {
		list, err := client.Loaded(ctx)
		if err != nil {
			l.away[client.Socket()] = err
		}
		for _, x := range list {
			l.loaded[x.Tunnel] = append(l.loaded[x.Tunnel], x)
		}
	}
	return l
}
