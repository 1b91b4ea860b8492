package xdp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"sluice/xdp/pin"
	"sluice/xdp/table"
)

const (
	hookKind = "xdp" // of pin.Hook
	owner    = "xdp" // of generations
)

// Options are the settings of the process that concern this subsystem.
type Options struct {
	BPFDir string // absolute, on a bpffs: /sys/fs/bpf/sluice
}

// Subsystem drives XDP in the network namespace of the calling thread. It keeps nothing that the kernel does not hold
// too, but for why an interface runs in generic mode.
type Subsystem struct {
	log *slog.Logger
	dir string

	mu     sync.Mutex // one operation at a time: explain and apply share pins
	reason map[string]string
	spares *table.Spares
	object table.Object
	root   func() (*ebpf.CollectionSpec, error)
	// written spares comparing; without it, after a restart, the next change takes longer.
	written table.Written
}

// New touches nothing. The directory of pins is made by the first operation that needs it.
func New(log *slog.Logger, opts Options) *Subsystem {
	return &Subsystem{log: log, dir: opts.BPFDir, reason: map[string]string{}, spares: table.NewSpares(), object: table.ParseOnce(_IngressBytes, loadIngress), root: table.ParseOnce(_RootBytes, loadRoot).Spec}
}

// hookState is what the kernel tells about one hook of ours.
type hookState struct {
	attachment
	hook     pin.Hook
	slot     uint32
	failOpen bool
	live     ebpf.ProgramID // in the slot; 0: empty
	digest   string         // see liveDigest
}

// Observe reads the kernel only, so that a daemon that was killed is succeeded by one that knows as much. An interface
// whose root is not attached any more, or is of another version, is listed with Mode "".
func (s *Subsystem) Observe(ctx context.Context) (State, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	hooks, err := s.observeHooks(ctx)
	if err != nil {
		return State{}, err
	}
	var state State
	digests := map[string]bool{}
	for _, h := range hooks {
		i := Interface{Name: h.hook.Interface, FailOpen: h.failOpen}
		if h.current {
			i.Mode = h.mode
		}
		state.Interfaces = append(state.Interfaces, i)
		if h.ifindex != 0 {
			digests[h.digest] = true
			state.Digest = h.digest
		}
	}
	if len(digests) > 1 {
		state.Digest = ""
	}
	return state, nil
}

// Lacks says whether a pin is gone without which Diff finds something to do: at less cost than to observe.
func (s *Subsystem) Lacks(want State) (bool, error) {
	var hooks []pin.Hook
	for _, i := range want.Interfaces {
		hooks = append(hooks, pin.Hook{Kind: hookKind, Interface: i.Name})
	}
	return table.Lacks(pin.At(s.dir), hooks, owner, want.Digest)
}

func (s *Subsystem) observeHooks(ctx context.Context) ([]hookState, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	dir := pin.At(s.dir)
	hooks, err := dir.Hooks(hookKind)
	if err != nil || len(hooks) == 0 {
		return nil, err
	}
	maps, err := s.openState()
	if err != nil {
		return nil, err
	}
	defer maps.Close()
	shared, err := table.PinnedShared(dir)
	if err != nil {
		return nil, err
	}
	var states []hookState
	for _, hook := range hooks {
		h, err := observeHook(dir, maps, shared, hook)
		if err != nil {
			return nil, err
		}
		states = append(states, h)
	}
	return states, nil
}

func observeHook(dir *pin.Dir, maps *stateMaps, shared table.SharedMaps, hook pin.Hook) (hookState, error) {
	h := hookState{hook: hook}
	var err error
	if h.live, err = dir.Live(hook); err != nil {
		return h, err
	}
	if h.live != 0 {
		if h.digest, err = liveDigest(dir, shared, h.live); err != nil {
			return h, err
		}
	}
	if h.attachment, err = attachedTo(dir, hook); err != nil || h.ifindex == 0 {
		return h, err
	}
	entry, err := maps.interfaceEntry(h.ifindex)
	if err != nil {
		return h, err
	}
	h.slot, h.failOpen = entry.Slot, entry.Flags&failOpenFlag != 0
	return h, nil
}

// liveDigest is "" for a program of no pinned generation, and for one that works on flow tables that were replaced.
func liveDigest(dir *pin.Dir, shared table.SharedMaps, id ebpf.ProgramID) (string, error) {
	g, digest, program, err := dir.FindGeneration(owner, id)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer g.Close()
	if program != liveProgram {
		return "", nil
	}
	current, err := shared.UsedBy(g.Programs[program])
	if err != nil || !current {
		return "", err
	}
	return digest, nil
}

// linkOf asks a hook's link for its interface and program: both 0 where there is no link or the interface has gone.
func linkOf(dir *pin.Dir, hook pin.Hook) (ifindex int, root ebpf.ProgramID, err error) {
	l, err := dir.Link(hook)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, err
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		return 0, 0, fmt.Errorf("link of %s: %w", hook, err)
	}
	if on := info.XDP(); on != nil && on.Ifindex != 0 {
		return int(on.Ifindex), info.Program, nil
	}
	return 0, 0, nil
}

// attachment is where the root of a hook is, and how. All zero where it is not on the interface of that name.
type attachment struct {
	ifindex int
	mode    Mode
	current bool // the root is of this version's object, and jumps into the slot that is pinned
}

func attachedTo(dir *pin.Dir, hook pin.Hook) (attachment, error) {
	on, root, err := linkOf(dir, hook)
	if err != nil || on == 0 {
		return attachment{}, err
	}
	device, err := netlink.LinkByIndex(on)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return attachment{}, nil
	}
	if err != nil {
		return attachment{}, fmt.Errorf("interface %s: %w", hook.Interface, err)
	}
	attrs := device.Attrs()
	if attrs.Name != hook.Interface || attrs.Xdp == nil || attrs.Xdp.ProgId != uint32(root) {
		return attachment{}, nil
	}
	a := attachment{ifindex: attrs.Index, mode: Native}
	if attrs.Xdp.AttachMode == xdpAttachedSKB {
		a.mode = Generic
	}
	a.current, err = dir.IsRoot(hook, root, rootName())
	return a, err
}

// Apply does one operation of Diff. Each may come again after a crash.
func (s *Subsystem) Apply(ctx context.Context, op Op) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	dir, err := pin.Open(s.dir)
	if err != nil {
		return err
	}
	switch op.Kind {
	case Load:
		err = s.load(dir, op.State)
	case SetFail:
		err = s.setFail(dir, op.Interface)
	case Attach:
		err = s.attach(dir, op.Interface)
	case Detach:
		err = s.detach(dir, op.Interface.Name)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	return nil
}

// Down takes away everything of ours: roots, slots, generations and maps. Maps that tc shares go with the last of both.
func (s *Subsystem) Down(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	dir := pin.At(s.dir)
	hooks, err := dir.Hooks(hookKind)
	if err != nil {
		return err
	}
	var errs []error
	for _, h := range hooks {
		errs = append(errs, dir.RemoveHook(h))
	}
	errs = append(errs, dir.SweepGenerations(owner), removeOwnState(dir), dir.RemoveIfUnused())
	return errors.Join(errs...)
}

func interfaceByName(name string) (*net.Interface, error) {
	device, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("%w %s in this network namespace: create it, or take it out of the file", ErrNoInterface, name)
	}
	return device, nil
}
