// Package tunnel watches what changes by itself around tunnels: which endpoint of a peer answers, what its DNS names
// mean, whether probes through the tunnel are answered, which of two public keys the peer uses, and how large a packet
// to its endpoint may be. It touches no device and no route: what it finds out is Runtime of the next compilation, so
// that plans, repairs and restarts agree about it.
package tunnel

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"sluice/control/compile"
	"sluice/control/config"
	"sluice/control/disk"
)

// Seen is what a device, or a key daemon, says of one peer at one moment.
type Seen struct {
	Tunnel    string
	Peer      string         // as in the file; "" where the source knows the key alone
	PublicKey string         // WireGuard: a peer with two keys is two peers of the device
	Endpoint  netip.AddrPort // that it sends to now, as the peer may have roamed; invalid: none
	Handshake time.Time      // wall clock, of the last one; zero: never
	Rx, Tx    uint64         // encrypted bytes since the device was made, handshakes and keepalives included
	Session   Session
}

// Ping is one echo request.
type Ping struct {
	Tunnel string // also its device
	To     netip.Addr
	Tag    uint64 // comes back with the answer
}

// Down is a live peer whose probes fail.
type Down struct {
	Tunnel, Type string
	Peer         string
	PublicKeys   []string // WireGuard's
}

func (d Down) same(other Down) bool {
	return d.Tunnel == other.Tunnel && d.Type == other.Type && d.Peer == other.Peer && slices.Equal(d.PublicKeys, other.PublicKeys)
}

// Session is whether a key daemon has one with a peer.
type Session string

// The states of a session. WireGuard and static keys know none: their peers are judged by what is heard of them.
const (
	SessionUnknown Session = ""
	SessionUp      Session = "up"
	SessionDown    Session = "down" // sought, or given up (DPD)
)

// Source asks for all peers of the tunnels of one type. It may be slow; it is asked by one caller at a time.
type Source func(ctx context.Context) ([]Seen, error)

// Options are what a Watcher needs of the world.
type Options struct {
	Path string // of the file that keeps what was found out, so that a restart changes nothing
	// Wanted are the live tunnels; false: nothing is live, and what is known is kept for what will be.
	Wanted  func() ([]config.Tunnel, bool)
	Sources map[string]Source // by type of tunnel
	// Resolve returns the addresses of a DNS name, of both families, the preferred ones first.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)
	// Ping sends echo requests through tunnels, those of one as neighbours, and does not wait for the answers: Watcher.Answered gets
	// them, and Watcher.Refused why one could not be sent.
	Ping func([]Ping)
	// Gathers says of a live tunnel whether Ping costs little more for many of its peers than for one. It must not block; nil: of none.
	Gathers func(tunnel string) bool
	// Underlay is the MTU of the route to each address for encrypted packets, in bytes; one that has none is missing.
	Underlay func(ctx context.Context, to []netip.Addr) (map[netip.Addr]int, error)
	// Routes tells that routes or links may have changed; nil: nobody does.
	Routes <-chan struct{}
	// Withhold takes the routes to all these peers away and keeps them away until it is called without them, whatever is
	// being compiled or applied meanwhile. It is called by one goroutine whenever they are others, ahead of Changed, and again where
	// it failed. nil: routes wait for Changed.
	Withhold func(ctx context.Context, down []Down) error
	// Changed has the tunnels compiled again, with Now. It is called by one goroutine, and only after Now gave something
	// new, or Withhold was called without a peer of before.
	Changed func(why string) error
	Notify  func(Event)     // nil: nobody listens; must not block
	Report  func([]Problem) // all there are, whenever they changed; nil: there is no tunnel; nil func: nobody listens
	Log     *slog.Logger
	Faults  *disk.Faults // told of the file
}

// Kind is what happened to a tunnel.
type Kind string

// The kinds of events.
const (
	EndpointChanged Kind = "endpoint"   // another one is tried, or was found by DNS
	KeyChanged      Kind = "key"        // the peer uses its other public key
	PeerDown        Kind = "down"       // probes fail: its routes are withdrawn
	PeerUp          Kind = "up"         // probes are answered again: its routes are back
	UnderlayChanged Kind = "underlay"   // another size of packet fits the way to the endpoints
	NameLost        Kind = "unresolved" // a DNS name does not resolve; what it meant last holds
	NameFound       Kind = "resolved"   // and does again

	// What others than the Watcher tell of.
	SessionChanged Kind = "session"     // a key daemon has one with the peer, or has none any more
	KeyStaged      Kind = "staged"      // this end has made its next private key
	KeyRotated     Kind = "rotated"     // this end uses its next private key, or has keys negotiated anew
	EpochBegan     Kind = "epoch"       // static keys: this end sends in another epoch, or the peer was heard in one
	ProcessLost    Kind = "process"     // the process of a userspace device has ended, and is started again
	CharonGone     Kind = "charon-gone" // charon does not answer; what it established goes on as long as its keys live
	CharonBack     Kind = "charon-back"
)

// Event is one thing that happened. Peer is "" where it is about the whole tunnel.
type Event struct {
	Kind   Kind   `json:"kind"`
	Tunnel string `json:"tunnel"`
	Peer   string `json:"peer,omitempty"`
	Text   string `json:"text"`
}

// Problem is something that is not as the file wants it and that nobody has to mend here.
type Problem struct {
	Tunnel, Peer string
	Kind         Kind // of the event that it began with: PeerDown, NameLost
	Text         string
}

// Watcher watches the tunnels of a configuration. Its methods may be called by anybody.
type Watcher struct {
	opts  Options
	wake  chan struct{}            // tells that other tunnels may be live
	again chan struct{}            // tells the loop that something came from outside it
	dirty chan struct{}            // tells that Now gives something new, or that other tunnels are live
	ready chan struct{}            // tells that what Now gives may be compiled
	polls map[string]chan struct{} // by type: tells that other tunnels are live

	mu sync.Mutex
	m  *machine

	unsaved chan struct{} // tells that the file is behind
	saved   []byte        // what the file holds; keep's alone
}

// New makes a Watcher. Nothing happens before Load and Run.
func New(o Options) *Watcher {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Notify == nil {
		o.Notify = func(Event) {}
	}
	if o.Report == nil {
		o.Report = func([]Problem) {}
	}
	if o.Withhold == nil {
		o.Withhold = func(context.Context, []Down) error { return nil }
	}
	signal := func() chan struct{} { return make(chan struct{}, 1) }
	w := &Watcher{opts: o, wake: signal(), again: signal(), dirty: signal(), ready: signal(), unsaved: signal(), polls: map[string]chan struct{}{}, m: newMachine()}
	w.m.gathers = o.Gathers
	for kind := range o.Sources {
		w.polls[kind] = signal()
	}
	return w
}

// Wake says that other tunnels may be live than before.
func (w *Watcher) Wake() { poke(w.wake) }

// Look says that sources have news.
func (w *Watcher) Look() {
	for _, c := range w.polls {
		poke(c)
	}
}

// Answered takes the answer to a ping.
func (w *Watcher) Answered(tag uint64, at time.Time) {
	news := false
	w.locked(func(m *machine) {
		m.answered(tag, at)
		news = len(m.events) > 0 || m.problemsStale
	})
	// Probing goes on by its own clock; only a peer that came up, or an event, has to be told at once.
	if news {
		poke(w.again)
	}
}

// Refused takes why a ping could not be sent.
func (w *Watcher) Refused(tag uint64, err error) {
	w.locked(func(m *machine) { m.refused(tag, err) })
}

// Adopt is told, before anything is compiled, what devices say that an earlier process left running: the endpoint of a
// peer that is in touch is in use, be it one that no file names because the peer roamed there.
func (w *Watcher) Adopt(seen []Seen) {
	w.locked(func(m *machine) { m.adopt(seen, time.Now()) })
}

// Measure looks at the routes to the endpoints of tunnels that are new, so that Now has their MTU from the beginning.
func (w *Watcher) Measure(ctx context.Context, cfg *config.Config) {
	var places map[string][]netip.Addr
	w.locked(func(m *machine) { places = m.unmeasured(cfg.Tunnels) })
	found := map[string]int{}
	for name, to := range places {
		mtu, err := w.opts.Underlay(ctx, to)
		if err != nil {
			w.opts.Log.Debug("routes to endpoints", "tunnel", name, "error", err)
		}
		for _, n := range mtu {
			found[name] = smaller(found[name], n)
		}
	}
	w.locked(func(m *machine) { maps.Copy(m.measured, found) })
}

// Now is what is known of the tunnels of a configuration, be it live or not: where it says of a peer what was said
// before, what was found out holds.
func (w *Watcher) Now(cfg *config.Config) map[string]compile.TunnelNow {
	var out map[string]compile.TunnelNow
	w.locked(func(m *machine) { out = m.now(cfg.Tunnels) })
	return out
}

func (w *Watcher) locked(f func(m *machine)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f(w.m)
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
