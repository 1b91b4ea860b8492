package tc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/cilium/ebpf"

	"sluice/xdp/abi"
	"sluice/xdp/pin"
	"sluice/xdp/table"
)

// Kinds of pin.Hook, and the owner of generations.
const (
	ingressKind = "tcx-ingress"
	egressKind  = "tcx-egress"
	owner       = "tc"
)

var kinds = [...]string{ingressKind, egressKind}

// ErrNoInterface says that an interface is not there.
var ErrNoInterface = errors.New("no interface")

// Options are the settings of the process that concern this subsystem.
type Options struct {
	BPFDir string // absolute, on a bpffs: /sys/fs/bpf/sluice; shared with XDP
}

// Subsystem drives tcx in the network namespace of the calling thread. It keeps nothing that the kernel does not hold,
// and open what it looks at every few seconds.
type Subsystem struct {
	log    *slog.Logger
	dir    string
	mu     sync.Mutex // one operation at a time: explain and apply share pins
	spares *table.Spares
	object table.Object
	root   func() (*ebpf.CollectionSpec, error)
	// written spares comparing; without it, after a restart, the next change takes longer.
	written table.Written
	sweeper sweeper
	dropped dropped
	missing map[string]bool // interfaces that were not there when the last generation was made
}

// New touches nothing. The directory of pins is made by the first operation that needs it.
func New(log *slog.Logger, opts Options) *Subsystem {
	return &Subsystem{log: log, dir: opts.BPFDir, spares: table.NewSpares(), object: table.ParseOnce(_TcBytes, loadTc), root: table.ParseOnce(_RootBytes, loadRoot).Spec}
}

// Observe reads the kernel only, so that a daemon that was killed is succeeded by one that knows as much. An interface
// of ours whose roots are not both on the device of that name, of this version, and with the programs of its role in their
// slots, is listed with RoleNone: so is one that was deleted and made again.
func (s *Subsystem) Observe(ctx context.Context) (State, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	interfaces, err := s.observe(ctx)
	if err != nil {
		return State{}, err
	}
	var state State
	digests := map[string]bool{}
	for _, i := range interfaces {
		state.Interfaces = append(state.Interfaces, i.seen())
		if i.attached() {
			digests[i.digest] = true
			state.Digest = i.digest
		}
	}
	if len(digests) > 1 {
		state.Digest = ""
	}
	return state, nil
}

// Lacks says whether a pin is gone without which Diff finds something to do: at less cost than to observe. An interface that was missing
// for the last generation has none yet.
func (s *Subsystem) Lacks(want State) (bool, error) {
	s.mu.Lock()
	missing := s.missing
	s.mu.Unlock()
	var hooks []pin.Hook
	for _, i := range want.Interfaces {
		if missing[i.Name] {
			continue
		}
		for _, kind := range kinds {
			hooks = append(hooks, pin.Hook{Kind: kind, Interface: i.Name})
		}
	}
	return table.Lacks(pin.At(s.dir), hooks, owner, want.Digest)
}

// observed is what the kernel tells about the two hooks of an interface.
type observed struct {
	name    string
	ifindex int           // of both roots, on the device of that name; 0: not so
	current bool          // both roots are as this version would put them
	entry   abi.Interface // in the live generation's table; zero: it has none, or the slots hold something else
	digest  string        // of the generation that both slots hold; "": of none that is pinned
}

func (o observed) attached() bool { return o.ifindex != 0 }

func (o observed) seen() Interface {
	if !o.attached() || !o.current {
		return Interface{Name: o.name}
	}
	i := Interface{Name: o.name, Role: Role(o.entry.Role), Judge: o.entry.Flags&abi.InterfaceJudge != 0, Stack: o.entry.Flags&abi.InterfaceStack != 0,
		FQ: Role(o.entry.Role) == RoleUplink && o.entry.Flags&abi.InterfaceFq != 0, SNAT: seenSNAT(o.entry)}
	i.seeTunnel(o.entry)
	return i
}

func (s *Subsystem) observe(ctx context.Context) ([]observed, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	dir := pin.At(s.dir)
	names, err := hooked(dir)
	if err != nil || len(names) == 0 {
		return nil, err
	}
	generations, err := openGenerations(dir)
	if err != nil {
		return nil, err
	}
	defer generations.Close()
	var out []observed
	for _, name := range names {
		o, err := observeInterface(dir, generations, name)
		if err != nil {
			return nil, err
		}
		out = append(out, o)
	}
	return out, nil
}

// hooked lists the interfaces that have a link or a slot of ours, sorted.
func hooked(dir *pin.Dir) ([]string, error) {
	var names []string
	for _, kind := range kinds {
		hooks, err := dir.Hooks(kind)
		if err != nil {
			return nil, err
		}
		for _, h := range hooks {
			names = append(names, h.Interface)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

func observeInterface(dir *pin.Dir, generations generations, name string) (observed, error) {
	o := observed{name: name}
	device, err := deviceByName(name)
	if errors.Is(err, ErrNoInterface) {
		return o, nil
	}
	if err != nil {
		return o, err
	}
	var live [len(kinds)]liveProgram
	current := true
	for i, kind := range kinds {
		hook := pin.Hook{Kind: kind, Interface: name}
		on, err := attachedTo(dir, hook)
		if err != nil || on.ifindex != device.Index {
			return o, err
		}
		current = current && on.current
		id, err := dir.Live(hook)
		if err != nil {
			return o, err
		}
		live[i] = generations.find(id)
	}
	o.ifindex, o.current = device.Index, current
	if live[0].generation == nil || live[0].generation != live[1].generation {
		return o, nil
	}
	entry, err := live[0].generation.entry(device.Index)
	if err != nil {
		return o, err
	}
	role := Role(entry.Role)
	if live[0].name == programName(role, false) && live[1].name == programName(role, true) {
		o.entry, o.digest = entry, live[0].generation.digest
	}
	return o, nil
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
	s.dropped.slots = nil
	switch op.Kind {
	case Load:
		err = s.load(dir, op.State)
	case Attach:
		err = s.attach(dir, op.Interface.Name)
	case Detach:
		err = s.detach(dir, op.Interface.Name)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	return nil
}

// Down takes away everything of ours: roots, slots, generations and maps. Maps that XDP shares go with the last of both.
func (s *Subsystem) Down(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	dir := pin.At(s.dir)
	names, err := hooked(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		errs = append(errs, removeHooks(dir, name))
	}
	errs = append(errs, dir.SweepGenerations(owner), dir.RemoveStateMap(reasonsPin, reasonsVersion),
		dir.RemoveStateMap(pacersPin, pacersVersion), dir.RemoveIfUnused(), s.sweeper.close(), s.dropped.close())
	return errors.Join(errs...)
}
