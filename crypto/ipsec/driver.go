package ipsec

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/crypto/path"
	"sluice/netdump"
)

// Errors that a caller may branch on.
var (
	// ErrNoModule says that the kernel lacks something that ESP tunnels need; the error says what.
	ErrNoModule = errors.New("this kernel lacks modules that IPsec needs")
	// ErrUnknown says that there is no such tunnel.
	ErrUnknown = errors.New("there is no such IPsec tunnel")
	// ErrPortInUse says that another socket holds the UDP port of an encapsulated tunnel.
	ErrPortInUse = errors.New("UDP port is in use")
	// ErrAmbiguous says that two peers' SPIs cannot be told apart.
	ErrAmbiguous = errors.New("have the same SPIs")
)

// Our if_ids and reqids, which no other owner of states and policies should use.
const (
	ourRange  = 0x51c00000
	rangeMask = 0xfff00000
)

func isOurs(id uint32) bool { return id&rangeMask == ourRange }

// IfID ties an interface's states and policies to it.
func IfID(tunnel string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(tunnel))
	sum := h.Sum32()
	return ourRange | (sum^sum>>20)&^rangeMask
}

// Options say where a Driver keeps its files, and how it holds ports.
type Options struct {
	StateDir string // of the node: epochs go to ipsec/, what belongs to a running port to run/
	// Holder is the command that runs Hold with the arguments behind it, such as the running binary with HolderVerb.
	Holder []string
	Now    func() time.Time // nil: the wall clock
	Boot   string           // another one after each boot of the machine; "": the kernel's boot_id
	// Wrote is told how each try to write a file, called as in StateDir, ended; nil: nobody is.
	Wrote func(file string, err error)
	// Deletes is told of each link before it is deleted, by its index; nil: nobody is.
	Deletes func(link int)
}

// Driver owns the ESP tunnels of one network namespace: that of the thread which called New. Run and Apply of tunnels with
// UDP encapsulation must be called on threads of it too.
type Driver struct {
	log  *slog.Logger
	opts Options

	withheld path.Withheld

	mu       sync.Mutex
	nl       *netlink.Handle
	strict   *netlink.Handle // netdump.Strict
	links    path.Links
	xfrm     *xfrm
	charons  *charons
	tunnels  map[string]*tunnel // by name; loaded from the disk at the first look
	loaded   bool
	highest  uint64 // no tunnel of this node, of now or earlier, has used an epoch above it
	seen     kernel
	placed   map[selector]policy // what should be there, whoever has taken it
	wake     chan struct{}       // holds one: there is something to keep
	expected time.Time           // since when a packet may come that nobody stands ready for
}

// tunnel is what the driver knows beyond the kernel.
type tunnel struct {
	want    Tunnel // as last applied; without a Name it is gone, and its file is kept for its highest epoch
	ifID    uint32
	highest uint64           // of the peers that are gone
	peers   map[string]*peer // by name
	dirty   bool             // differs from the disk
	placed  int              // how many of want.Peers have a place in peers: none, or all,
	first   *Peer            // of a slice that begins here
}

// peer is what the driver knows of one peer.
type peer struct {
	want  Peer // as last applied
	reqid uint32
	moved time.Time // when it moved behind a NAT
	counters
	place
	claim      netip.AddrPort // from which a packet of epoch Again raised the sequence last, which was top then
	top        uint64
	asked      time.Time // when the states were last read for that
	used       uint64    // the last epoch that a state for sending was made of, as far as known; 0: begin anew
	live       uint64    // of the state that sends; 0: none
	since      time.Time // of live
	retiring   bool      // a state for sending stands that another has replaced
	standing   bool      // its policies are in the kernel: the keeper looks after its states
	received   uint64    // authentic packets in all states, at the last look
	lastHeard  time.Time // when received rose; zero: not since the daemon began
	directions *directions
	derived    source    // of directions
	turned     time.Time // when Heard rose, or this process began
	former     uint64    // epoch of the past in which it was last found to send, and which was told of
	fault      string    // why its keys could not be had at the last look
	behind     time.Time // when the keeper first saw that the tunnel has it at another endpoint than want; zero: it has not
}

// New returns a Driver that has touched nothing yet.
func New(log *slog.Logger, o Options) (*Driver, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Boot == "" {
		id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
		if err != nil {
			return nil, fmt.Errorf("which boot of the machine this is: %w", err)
		}
		o.Boot = strings.TrimSpace(string(id))
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
	x, err := openXFRM()
	if err != nil {
		nl.Close()
		strict.Close()
		return nil, err
	}
	return &Driver{
		log: log, opts: o, nl: nl, strict: strict, links: path.NewLinks(nl, strict, isOurLink, o.Deletes), xfrm: x, charons: newCharons(log), tunnels: map[string]*tunnel{},
		seen:   kernel{map[owner][]sa{}, map[selector]policy{}},
		placed: map[selector]policy{}, wake: make(chan struct{}, 1),
	}, nil
}

// Diff is the package's Diff.
func (d *Driver) Diff(have, want State) []Op { return Diff(have, want) }

// Remember tells what the tunnels are meant to be where no op did: after a restart that adopted them.
func (d *Driver) Remember(s State) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.load(); err != nil {
		d.log.Error("IPsec epochs", "error", err)
	}
	for _, t := range s.Tunnels {
		d.register(t)
	}
	d.charons.remember(s)
}

// Apply does one step. It is idempotent. A context that has ended stops it before the step, not in the middle.
func (d *Driver) Apply(ctx context.Context, op Op) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.load()
	if err == nil {
		err = d.apply(ctx, op)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	return nil
}

func (d *Driver) apply(ctx context.Context, op Op) error {
	switch op.kind {
	case createTunnel, startTunnel, setTunnel:
		return d.ensure(ctx, op.tunnel)
	case removeTunnel:
		return d.remove(ctx, op.tunnel.Name)
	case addPeer, updatePeer:
		return d.setPeer(ctx, d.register(op.tunnel), op.peer)
	case dropPrefixes:
		return d.dropPrefixes(ctx, d.register(op.tunnel), op.peer, op.lost)
	case removePeer:
		return d.removePeer(ctx, op.tunnel.Name, op.peer.Name)
	}
	link, err := d.links.Find(op.tunnel.Name)
	if err != nil {
		return err
	}
	switch op.kind {
	case setMTU:
		return d.nl.LinkSetMTU(link, op.tunnel.MTU)
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

// Rotate begins the next epoch towards every peer of a tunnel. The peers stand ready for it and need not be told. With
// keying IKE the keys are negotiated anew, and Rotate does not wait for that.
func (d *Driver) Rotate(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.load(); err != nil {
		return err
	}
	t := d.tunnels[name]
	if t == nil || t.want.Name == "" {
		return fmt.Errorf("%s: %w", name, ErrUnknown)
	}
	if t.want.Keying == IKE {
		return d.rekeyIKE(ctx, t)
	}
	var names []string
	for n, p := range t.peers {
		if p.standing {
			names = append(names, n)
		}
	}
	return d.rotate(t, names)
}

// rotate begins the next epoch towards the named peers.
func (d *Driver) rotate(t *tunnel, names []string) error {
	failed := []error{d.reserve(t, names)}
	for _, n := range names {
		if t.peers[n].reserved() {
			failed = append(failed, d.settle(t, t.peers[n], true))
		}
	}
	return errors.Join(failed...)
}

// Stop closes the driver. Links, states, policies and held ports stay, and with them the traffic.
func (d *Driver) Stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.save(); err != nil {
		d.log.Error("IPsec epochs", "error", err)
	}
	d.nl.Close()
	d.strict.Close()
	d.xfrm.close()
}

// Down removes every tunnel of ours, going on after failures, which it returns together. The files of epochs stay: a
// tunnel that comes back must not begin where it began before.
func (d *Driver) Down(ctx context.Context) error {
	have, err := d.Observe(ctx)
	if err != nil {
		return err
	}
	d.mu.Lock()
	for name, t := range d.tunnels { // of which a reboot has left nothing but the file
		if _, ok := find(have, name); !ok && t.want.Name != "" {
			have.Tunnels = append(have.Tunnels, Tunnel{Name: name})
		}
	}
	d.mu.Unlock()
	var failed []error
	for _, op := range Diff(have, State{}) {
		failed = append(failed, d.Apply(ctx, op))
	}
	return errors.Join(failed...)
}
