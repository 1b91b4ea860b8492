package wireguard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Errors that a caller may branch on.
var (
	// ErrForeign says that the wanted name or route belongs to somebody else.
	ErrForeign = errors.New("exists and is not Sluice's")
	// ErrPortInUse says that another socket holds the UDP port.
	ErrPortInUse = errors.New("UDP port is in use")
	// ErrNoModule says that the kernel knows no links of type wireguard.
	ErrNoModule = errors.New("this kernel has no WireGuard module")
)

// Driver owns the WireGuard devices of one network namespace: that of the thread which called New. With the userspace
// backend the whole process must live in that namespace, since sockets are made on threads of the runtime's choice.
type Driver struct {
	log *slog.Logger

	mu      sync.Mutex
	nl      *netlink.Handle
	running map[string]*userDevice // the embedded devices, by interface
	notes   notes
}

// New returns a Driver that has touched nothing yet.
func New(log *slog.Logger) (*Driver, error) {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE) // other families may be missing
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return &Driver{log: log, nl: nl, running: map[string]*userDevice{}, notes: notes{}}, nil
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
	return nil
}

func (d *Driver) apply(op Op) error {
	switch op.kind {
	case addBlackhole:
		return d.addBlackhole(op.prefix)
	case removeBlackhole:
		return d.removeBlackhole(op.prefix)
	case createTunnel, startTunnel, replaceTunnel:
		return d.ensure(op.tunnel)
	case removeTunnel:
		return d.remove(op.tunnel.Name)
	}
	link, err := d.ours(op.tunnel.Name)
	if err != nil {
		return err
	}
	switch op.kind {
	case setDevice:
		return d.setDevice(link, op.tunnel, op.fields)
	case setMTU:
		return d.nl.LinkSetMTU(link, op.tunnel.MTU)
	case addPeer, updatePeer, dropAllowed, removePeer:
		return d.applyPeer(link, op)
	case addAddress:
		return d.addAddress(link, op.prefix)
	case removeAddress:
		return d.removeAddress(link, op.prefix)
	case addRoute:
		return d.addRoute(link, op.route)
	case removeRoute:
		return d.removeRoute(link, op.route)
	}
	return errors.New("unknown op")
}

// Stop ends the embedded devices and closes the driver. Links, addresses and routes stay: a kernel device goes on
// carrying traffic, and a userspace one swallows it until the next start attaches to it.
func (d *Driver) Stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, dev := range d.running {
		dev.close()
		delete(d.running, name)
	}
	d.nl.Close()
}

// Down removes every tunnel, route and blackhole of ours, going on after failures, which it returns together.
func (d *Driver) Down(ctx context.Context) error {
	have, err := d.Observe(ctx)
	if err != nil {
		return err
	}
	var failed []error
	for _, op := range Diff(have, State{}) {
		failed = append(failed, d.Apply(ctx, op))
	}
	return errors.Join(failed...)
}

// notes are what Apply knows of tunnels and no device does, by tunnel name.
type notes map[string]*tunnelNotes

type tunnelNotes struct {
	keyFile string
	peers   map[string]peerNotes // by public key
}

// peerNotes keep the endpoint that was configured: a device overwrites it when its peer roams.
type peerNotes struct {
	name, presharedFile string
	endpoint            endpointNote
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
