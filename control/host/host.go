package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/netdump"
)

// ErrNoLink says that a link is named that the namespace does not have.
var ErrNoLink = errors.New("interface does not exist")

// Options are what a Host needs beside its logger.
type Options struct {
	// StateDir holds host.json, the ledger. It is made (0700) where it is missing.
	StateDir string
	// Spare is a file in memory for the ledger while the disk has no room; "": there is none.
	Spare string
	// Wrote is told how each try to write the ledger ended; nil: nobody is. It must not call the Host.
	Wrote func(error)
	// Deletes is told of each link before it is deleted, by its index; nil: nobody is.
	Deletes func(link int)
	// Root is where /sys and /proc are; "": "/".
	Root string
}

// Host applies State in one network namespace. It is safe for concurrent use, but sysctls are read and written through
// the namespace of the calling thread: the process must live in the namespace it was made in.
type Host struct {
	log    *slog.Logger
	path   string // of the ledger
	spare  string // where it is while there is no room for it; "": nowhere
	wrote  func(error)
	tell   func(link int) // Options.Deletes
	nl     *netlink.Handle
	strict *netlink.Handle // netdump.Strict

	fq       fairQueue
	offloads offloads
	ethtool  *ethtoolOffloads // what offloads is, but in tests
	tuners   map[Tunable]tuner

	mu     sync.Mutex
	ledger *ledger
	owed   bool // the ledger is not in its file
	spared bool // it was put into the spare, or an earlier process put it there
}

// New opens netlink in the calling thread's network namespace and reads the ledger of StateDir. A ledger of another
// boot or namespace is void. Errors wrap ErrLedger where the file is damaged.
func New(log *slog.Logger, o Options) (*Host, error) {
	if err := os.MkdirAll(o.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("make the state directory: %w", err)
	}
	ns, err := namespaceID()
	if err != nil {
		return nil, err
	}
	h := &Host{log: log, path: filepath.Join(o.StateDir, "host.json"), spare: o.Spare, wrote: o.Wrote, tell: o.Deletes, fq: newFairQueue()}
	if h.wrote == nil {
		h.wrote = func(error) {}
	}
	if h.tell == nil {
		h.tell = func(int) {}
	}
	if err := h.load(ns); err != nil {
		return nil, err
	}
	plain, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	strict, err := netdump.Strict()
	if err != nil {
		plain.Close()
		return nil, err
	}
	nics, err := openOffloads()
	if err != nil {
		plain.Close()
		strict.Close()
		return nil, err
	}
	h.nl, h.strict, h.offloads, h.ethtool = plain, strict, nics, nics
	h.tuners = newTuners(plain, nics, nics.fd, cmp.Or(o.Root, "/"))
	return h, nil
}

// Close gives the netlink sockets back. The machine stays as it is.
func (h *Host) Close() {
	h.nl.Close()
	h.strict.Close()
	h.ethtool.close()
}

// Diff is the package's Diff: a Host is a driver of the engine.
func (h *Host) Diff(have, want State) []Op { return Diff(have, want) }

// Observe returns what is ours and there: claims of the ledger that the kernel confirms, with the kernel's values, and
// the routes and rules of RouteProtocol.
func (h *Host) Observe(ctx context.Context) (State, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.observe(ctx)
}

func (h *Host) observe(ctx context.Context) (State, error) {
	if err := ctx.Err(); err != nil {
		return State{}, err
	}
	links, err := h.links()
	if err != nil {
		return State{}, err
	}
	var s State
	s.Devices = h.observeDevices(links)
	s.Links = h.observeLinks(links)
	if s.Addresses, err = h.observeAddresses(links); err != nil {
		return State{}, err
	}
	if s.Routes, err = h.observeRoutes(links); err != nil {
		return State{}, err
	}
	if s.Rules, err = h.observeRules(); err != nil {
		return State{}, err
	}
	if s.Sysctls, err = h.observeSysctls(links); err != nil {
		return State{}, err
	}
	if s.Tags, err = h.observeTags(links); err != nil {
		return State{}, err
	}
	if s.Qdiscs, err = h.observeQdiscs(links); err != nil {
		return State{}, err
	}
	s.Tunings = h.observeTunings(links)
	s.Inner, err = h.observeInner()
	return s, err
}

// Apply does one step. An error leaves kernel and ledger as they were before the step.
func (h *Host) Apply(ctx context.Context, op Op) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.applyOne(ctx, op)
}

func (h *Host) applyOne(ctx context.Context, op Op) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := op.apply(ctx, h); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	h.log.Debug("host step done", "step", op.String())
	return nil
}

// Down gives the machine back: everything of ours goes but the addresses and routes with Keep, and what was changed
// gets the value it had. It goes on after an error, to give back as much as it can, and returns all errors. Doing it
// twice is doing it once.
func (h *Host) Down(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	have, err := h.observe(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, op := range Diff(have, have.Kept()) {
		if err := h.applyOne(ctx, op); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) == 0 {
		errs = append(errs, h.prune(ctx))
	}
	return errors.Join(errs...)
}

// prune forgets claims that the kernel does not confirm: their objects went without us.
func (h *Host) prune(ctx context.Context) error {
	have, err := h.observe(ctx)
	if err != nil {
		return err
	}
	l := h.ledger
	l.Links, l.Sysctls, l.Inner, l.Tags, l.Qdiscs, l.Tunings = nil, nil, nil, nil, nil, nil
	l.Devices = filter(l.Devices, func(c *deviceClaim) bool {
		return slices.ContainsFunc(have.Devices, func(d Device) bool { return d.Name == c.Name && !d.Gone })
	})
	l.Addresses = filter(l.Addresses, func(c addressClaim) bool {
		return slices.ContainsFunc(have.Addresses, func(a Address) bool { return a.Link == c.Link && a.Prefix == c.Prefix })
	})
	l.Routes = filter(l.Routes, func(c routeClaim) bool {
		return slices.ContainsFunc(have.Routes, func(r Route) bool { return r.key() == c.key() })
	})
	return h.save()
}

// link finds a link by its name; the error wraps ErrNoLink and lists what is there.
func (h *Host) link(name string) (netlink.Link, error) {
	link, err := h.nl.LinkByName(name)
	if err == nil && link.Attrs().Name == name { // the kernel also finds alternative names
		return link, nil
	}
	var missing netlink.LinkNotFoundError
	if err != nil && !errors.As(err, &missing) {
		return nil, fmt.Errorf("look up interface %s: %w", name, err)
	}
	links, err := h.links()
	if err != nil {
		return nil, err
	}
	return nil, noLink(name, links)
}

func noLink(name string, links []netlink.Link) error {
	var here []string
	for _, l := range links {
		here = append(here, l.Attrs().Name)
	}
	slices.Sort(here)
	return &missingLink{name, here}
}

type missingLink struct {
	name string
	here []string
}

func (e *missingLink) Error() string {
	return fmt.Sprintf("interface %s does not exist; interfaces here: %s", e.name, strings.Join(e.here, ", "))
}

func (e *missingLink) Is(target error) bool { return target == ErrNoLink }

func (h *Host) links() ([]netlink.Link, error) {
	links, err := netdump.List(h.nl.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	return links, nil
}

func linkNames(links []netlink.Link) map[int]string {
	names := make(map[int]string, len(links))
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	return names
}
