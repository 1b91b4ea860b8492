package wireguard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"sluice/crypto/path"
	"sluice/crypto/wireguard/child"
	"sluice/netdump"
)

// Errors that a caller may branch on.
var (
	// ErrPortInUse says that another socket holds the UDP port.
	ErrPortInUse = errors.New("UDP port is in use")
	// ErrNoModule says that the kernel knows no links of type wireguard.
	ErrNoModule = errors.New("this kernel has no WireGuard module")
)

// Options are a Driver's settings.
type Options struct {
	StateDir string // sockets of userspace tunnels are in its run/
	// Command runs one userspace tunnel: a program, and its words before the tunnel's name and socket. It is to call
	// child.Run. None: there is no userspace backend.
	Command []string
	// Answered and Refused are told what became of Probe's requests. They must not block; nil: nobody probes.
	Answered func(tag uint64, at time.Time)
	Refused  func(tag uint64, err error)
	// Deletes is told of each link before it is deleted, by its index; nil: nobody is.
	Deletes func(link int)
}

// Driver owns the WireGuard devices of one network namespace: that of the thread which called New.
type Driver struct {
	log    *slog.Logger
	ns     netns.NsHandle
	place  child.Place
	events chan Event
	closed chan struct{}

	withheld path.Withheld

	// Stop ends rotations first, and waits for them.
	stopping  context.Context
	stop      context.CancelFunc
	rotations sync.WaitGroup // added to under mu, and not once stopping has ended

	identities sync.Map // of userspace tunnels, by interface
	probes     *probes
	asks       asks
	seen       atomic.Pointer[[]TunnelStatus] // by Status, last

	mu       sync.Mutex
	nl       *netlink.Handle
	strict   *netlink.Handle // netdump.Strict
	links    path.Links
	children map[string]*tunneld // of userspace tunnels, by interface
	notes    notes
	rotating map[string]string // tunnels whose key changes, and the public key that they had
	looked   bool              // for what an earlier daemon has held

	// paths is of addresses and routes, taken behind mu where both are. Withhold takes it alone: mu may wait for a process that stands still.
	paths   sync.Mutex
	carried map[string]Tunnel // what devices were last seen or told to send where, by interface
}

// eventsWaiting is how many events wait for the daemon.
const eventsWaiting = 16

// New returns a Driver that has touched nothing yet.
func New(log *slog.Logger, o Options) (*Driver, error) {
	ns, err := netns.Get()
	if err != nil {
		return nil, fmt.Errorf("open the network namespace: %w", err)
	}
	number, err := inode(ns)
	if err != nil {
		return nil, fmt.Errorf("look at the network namespace: %w", err)
	}
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE) // other families may be missing
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	strict, err := netdump.Strict()
	if err != nil {
		nl.Close()
		return nil, err
	}
	stopping, stop := context.WithCancel(context.Background())
	return &Driver{
		stopping: stopping, stop: stop,
		log: log, ns: ns, nl: nl, strict: strict, links: path.NewLinks(nl, strict, isOurs, o.Deletes), events: make(chan Event, eventsWaiting), closed: make(chan struct{}),
		place:    child.At(filepath.Join(o.StateDir, "run"), o.Command, number),
		probes:   newProbes(o),
		asks:     asks{open: map[string]*question{}},
		children: map[string]*tunneld{}, notes: notes{}, carried: map[string]Tunnel{}, rotating: map[string]string{},
	}, nil
}

// Diff is the package's Diff.
func (d *Driver) Diff(have, want State) []Op { return Diff(have, want) }

// Remember tells the names that no device keeps: those of peers and of key files. Apply learns them by itself; a
// restarted daemon that adopts its tunnels without an op calls Remember with what it adopted.
func (d *Driver) Remember(s State) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range s.Tunnels {
		d.notes.tunnel(t)
		for _, p := range t.Peers {
			d.notes.peer(t.Name, p)
			// The device had the endpoint that was wanted, or there would have been an op. From here on its peer may roam.
			if !d.notes.of(t.Name, p.PublicKey).endpoint.IsValid() {
				d.notes.configured(t.Name, p)
			}
		}
	}
}

// Apply does one step. It is idempotent. A context that has ended stops it before the step, not in the middle.
func (d *Driver) Apply(ctx context.Context, op Op) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.apply(op); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	d.carries(op)
	return nil
}

func (d *Driver) apply(op Op) error {
	switch op.kind {
	case createTunnel, startTunnel, replaceTunnel:
		return d.ensure(op.tunnel)
	case removeTunnel:
		return d.remove(op.tunnel.Name)
	}
	link, err := d.links.Find(op.tunnel.Name)
	if err != nil {
		return err
	}
	switch op.kind {
	case setDevice:
		return d.setDevice(link, op.tunnel, op.fields)
	case setMTU:
		return d.nl.LinkSetMTU(link, op.tunnel.MTU)
	case addPeers:
		return d.addPeers(link, op)
	case updatePeer, dropAllowed, removePeer:
		return d.applyPeer(link, op)
	}
	return d.applyPath(link, op)
}

func (d *Driver) applyPath(link netlink.Link, op Op) error {
	d.paths.Lock()
	defer d.paths.Unlock()
	switch op.kind {
	case addAddress:
		return d.links.AddAddress(link, op.prefix)
	case removeAddress:
		return d.links.RemoveAddress(link, op.prefix)
	case addRoute:
		if d.withheld.Holds(op.tunnel.Name, op.route, op.tunnel.carried()) {
			return nil // its peer was lost since the step was planned
		}
		return d.links.AddRoute(link, op.route)
	case removeRoute:
		return d.links.RemoveRoute(link, op.route)
	}
	return errors.New("unknown op")
}

// stopTime is how long Stop waits for rotations: one goes back within goBackTime.
const stopTime = 2 * goBackTime

// Stop closes the driver and leaves the machine as it is: devices, the processes of userspace ones too, go on carrying
// traffic. A change of a key that is under way is given up: the old key comes back, and nothing stays held.
func (d *Driver) Stop() {
	d.mu.Lock()
	d.stop()
	d.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		d.rotations.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(stopTime):
		d.log.Error("a change of a key does not end: what it holds is released by the next start")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	close(d.closed)
	for _, p := range d.children {
		p.Close()
	}
	clear(d.children)
	d.paths.Lock()
	defer d.paths.Unlock()
	d.nl.Close()
	d.strict.Close()
	d.ns.Close()
}

// Down removes every tunnel of ours with its process and routes, going on after failures, which it returns together.
func (d *Driver) Down(ctx context.Context) error {
	have, err := d.Observe(ctx)
	if err != nil {
		return err
	}
	var failed []error
	for _, op := range Diff(have, State{}) {
		failed = append(failed, d.Apply(ctx, op))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return errors.Join(errors.Join(failed...), d.place.Sweep())
}

// notes are what Apply knows of tunnels and no device does, by tunnel name.
type notes map[string]*tunnelNotes

type tunnelNotes struct {
	keyFile string
	peers   map[string]peerNotes // by public key
}

// peerNotes keep the endpoint that was configured, which a device overwrites when its peer roams, and the one that was
// seen last: a device that is made anew speaks to it first where none is configured.
type peerNotes struct {
	name, presharedFile string
	endpoint, seen      endpointNote
	received            int64     // bytes
	heard               time.Time // when received was last seen to change
}

func (n notes) tunnel(t Tunnel) *tunnelNotes {
	if n[t.Name] == nil {
		n[t.Name] = &tunnelNotes{peers: map[string]peerNotes{}}
	}
	n[t.Name].keyFile = t.PrivateKeyFile
	return n[t.Name]
}

// peer leaves the endpoint note alone: only a step that wrote the endpoint may set it.
func (n notes) peer(tunnel string, p Peer) {
	if n[tunnel] == nil {
		n[tunnel] = &tunnelNotes{peers: map[string]peerNotes{}}
	}
	known := n[tunnel].peers[p.PublicKey]
	known.name, known.presharedFile = p.Name, p.PresharedKeyFile
	n[tunnel].peers[p.PublicKey] = known
}

func (n notes) of(tunnel, key string) peerNotes {
	if n[tunnel] == nil {
		return peerNotes{}
	}
	return n[tunnel].peers[key]
}

// all is a copy of what is known of a tunnel's peers, for who has let go of d.mu.
func (n notes) all(tunnel string) map[string]peerNotes {
	if n[tunnel] == nil {
		return nil
	}
	return maps.Clone(n[tunnel].peers)
}
