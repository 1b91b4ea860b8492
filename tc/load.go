package tc

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"

	"sluice/xdp/abi"
	"sluice/xdp/classify"
	"sluice/xdp/pin"
	"sluice/xdp/table"
)

const (
	reasonsPin     = "tc-reasons"
	reasonsVersion = 1
)

// links are what a generation knows about interfaces: by index, and the index by name.
type links struct {
	entries map[int]abi.Interface
	index   map[string]int
	missing map[string]bool // wanted, and not there
}

// among leaves out what concerns interfaces that are missing. The digest stays: what is left out comes with the interface.
func (s State) among(on *links) State {
	if len(on.missing) == 0 {
		return s
	}
	s.Interfaces = slices.DeleteFunc(slices.Clone(s.Interfaces), func(i Interface) bool { return on.missing[i.Name] })
	g := &s.Generation
	g.OnLink = slices.DeleteFunc(slices.Clone(g.OnLink), func(o OnLink) bool { return on.missing[o.Interface] })
	g.Paced = slices.DeleteFunc(slices.Clone(g.Paced), func(p Paced) bool { return on.missing[p.Interface] })
	return s
}

// load brings a generation into the kernel, whole, and only then switches slot after slot to it. Each packet is judged
// at one hook alone (what ingress judged is marked, and egress passes it), so the order of the slots changes nothing.
// The one that was live before stays, so that going back after an error finds it still there, and the next one is recast
// from it.
func (s *Subsystem) load(dir *pin.Dir, want State) error {
	spec, err := s.object.Spec()
	if err != nil {
		return err
	}
	reasons, err := dir.StateMap(spec.Maps[tcMapReasons], reasonsPin, reasonsVersion)
	if err != nil {
		return err
	}
	defer reasons.Close()
	on, err := resolve(dir, reasons, want)
	if err != nil {
		return err
	}
	former, err := dir.LivePrograms(kinds[:]...)
	if err != nil {
		return err
	}
	s.missing = on.missing
	want = want.among(on)
	key := want.Digest + "-" + on.hash()
	if err := preparePacers(dir, spec, on, want.Generation.Paced); err != nil {
		return err
	}
	g, err := reuse(dir, key)
	if errors.Is(err, fs.ErrNotExist) {
		g, err = s.build(dir, spec, reasons, on, former, key, want.Generation)
	}
	if err != nil {
		return err
	}
	defer g.Close()
	flows, err := table.TakeOver(dir)
	if err != nil {
		return err
	}
	for _, i := range want.Interfaces {
		if err := switchInterface(dir, g, i); err != nil {
			return err
		}
	}
	if err := sweepPacers(dir, spec, on, want.Generation.Paced); err != nil {
		return err
	}
	return errors.Join(flows.Settle(dir), pinned(dir).Sweep(key, former))
}

func switchInterface(dir *pin.Dir, g *pin.Generation, i Interface) error {
	for _, kind := range kinds {
		name := programName(i.Role, kind == egressKind)
		program, ok := g.Programs[name]
		if !ok {
			return fmt.Errorf("interface %s: no program for role %s", i.Name, i.Role)
		}
		if err := dir.Switch(pin.Hook{Kind: kind, Interface: i.Name}, program); err != nil {
			return err
		}
	}
	return nil
}

// resolve finds the wanted interfaces, and gives each the counter slot that it had, or a free one. One that is missing keeps the others
// from nothing, but for a workload's: those come and go, and who wants one that has gone compiles again.
func resolve(dir *pin.Dir, reasons *ebpf.Map, want State) (*links, error) {
	policies := map[string]uint32{} // by interface: which of the pairs of policies, counted from 1
	for i, w := range want.Generation.Workloads {
		policies[w.Interface] = uint32(i + 1)
	}
	for i, l := range want.Generation.LANs {
		policies[l.Interface] = uint32(len(want.Generation.Workloads) + i + 1)
	}
	had, err := slotsInUse(dir)
	if err != nil {
		return nil, err
	}
	on := &links{map[int]abi.Interface{}, map[string]int{}, map[string]bool{}}
	for _, i := range want.Interfaces {
		device, err := deviceByName(i.Name)
		if errors.Is(err, ErrNoInterface) && i.Role != RoleWorkload {
			on.missing[i.Name] = true
			continue
		}
		if errors.Is(err, ErrNoInterface) { // no more than text: what lacks now is a generation for all, which is not that one interface is absent
			return nil, errors.New(err.Error())
		}
		if err != nil {
			return nil, err
		}
		entry := abi.Interface{Role: uint8(i.Role), Slot: had[device.Index]}
		if entry.Slot == 0 {
			if entry.Slot, err = newSlot(reasons, had, device.Index); err != nil {
				return nil, err
			}
		}
		if i.Judge {
			entry.Flags |= abi.InterfaceJudge
		}
		i.SNAT.enter(&entry)
		if i.FQ {
			entry.Flags |= abi.InterfaceFq
		}
		if slices.ContainsFunc(want.Generation.Paced, func(p Paced) bool { return p.Interface == i.Name }) {
			entry.Flags |= abi.InterfacePaced
		}
		if i.Stack {
			entry.Flags |= abi.InterfaceStack
		}
		i.enterTunnel(&entry)
		if device.EncapType != "ether" {
			entry.Flags |= abi.InterfaceL3
		}
		if i.Role == RoleWorkload || i.Role == RoleDownstream {
			entry.Policies = policies[i.Name]
		}
		on.entries[device.Index], on.index[i.Name] = entry, device.Index
	}
	for _, w := range want.Generation.Workloads {
		if _, ok := on.index[w.Interface]; !ok {
			return nil, fmt.Errorf("workload %s: its interface %s is not among those with tcx programs", w.Name, w.Interface)
		}
	}
	return on, nil
}

// slotsInUse are the counter slots that pinned generations know, by interface index. An index is never used again for
// another interface, unless billions were made.
func slotsInUse(dir *pin.Dir) (map[int]uint32, error) {
	all, err := openGenerations(dir)
	if err != nil {
		return nil, err
	}
	defer all.Close()
	slots := map[int]uint32{}
	for _, p := range all {
		entries, err := p.generation.entries()
		if err != nil {
			return nil, err
		}
		for ifindex, e := range entries {
			slots[ifindex] = e.Slot
		}
	}
	return slots, nil
}

// newSlot takes the lowest free slot and clears its counters. Where none is left the interface shares slot 0 with all
// that are unknown: its packets are judged all the same.
func newSlot(reasons *ebpf.Map, had map[int]uint32, ifindex int) (uint32, error) {
	var used [abi.InterfaceSlots]bool
	for _, slot := range had {
		used[slot%abi.InterfaceSlots] = true
	}
	for slot := uint32(1); slot < abi.InterfaceSlots; slot++ {
		if !used[slot] {
			had[ifindex] = slot
			return slot, table.ClearSlot(reasons, slot)
		}
	}
	return 0, nil
}

func (l *links) hash() string {
	text, _ := json.Marshal(l.entries) // sorted by key; plain values, so it cannot fail
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

// build makes a generation, from one that no slot holds or anew, and pins it.
func (s *Subsystem) build(dir *pin.Dir, spec *ebpf.CollectionSpec, reasons *ebpf.Map, on *links, live map[ebpf.ProgramID]bool, key string,
	g Generation) (*pin.Generation, error) {
	tables, err := g.tables()
	if err != nil {
		return nil, err
	}
	if err := size(spec, tables, on, g); err != nil {
		return nil, err
	}
	keepPrograms(spec, on)
	shared, err := table.OpenShared(dir, spec, table.Sizes{Flows: g.FlowSlots, Rules: max(g.RuleSlots, classify.IDs(g.Policies(), g.Limiters...)),
		Limited: max(g.LimitSlots, classify.Limited(g.Limiters))})
	if err != nil {
		return nil, err
	}
	defer table.CloseAll(shared)
	if shared[tcMapPacers], err = openPacers(dir, spec); err != nil {
		return nil, err
	}
	loader := s.newLoader(spec, shared, reasons)
	fill := func(m map[string]*ebpf.Map) error { return s.fill(m, tables, on, key, g) }
	recast, err := loader.Recast(pinned(dir), key, live, fill)
	if err != nil || recast != nil {
		return recast, err
	}
	fresh, err := loader.Load(fill)
	if err != nil {
		return nil, err
	}
	if err := dir.SaveGeneration(owner, key, fresh); err != nil {
		return nil, errors.Join(err, fresh.Close())
	}
	return fresh, nil
}

func pinned(dir *pin.Dir) table.Site { return table.Site{Dir: dir, Owner: owner, Kinds: kinds[:]} }

func (s *Subsystem) newLoader(spec *ebpf.CollectionSpec, shared map[string]*ebpf.Map, reasons *ebpf.Map) table.Loader {
	all := maps.Clone(shared)
	all[tcMapReasons] = reasons
	return table.Loader{Spec: spec, State: all, Object: s.object, Log: s.log}
}

// beside opens what works beside live generations: the loader of twins and spares.
func (s *Subsystem) beside(dir *pin.Dir) (loader table.Loader, done func() error, err error) {
	spec, err := s.object.Spec()
	if err != nil {
		return loader, nil, err
	}
	reasons, err := dir.StateMap(spec.Maps[tcMapReasons], reasonsPin, reasonsVersion)
	if err != nil {
		return loader, nil, err
	}
	shared, err := table.Reopen(dir, spec)
	if err != nil {
		return loader, nil, errors.Join(err, reasons.Close())
	}
	if shared[tcMapPacers], err = openPacers(dir, spec); err != nil {
		return loader, nil, errors.Join(err, reasons.Close(), table.CloseAll(shared))
	}
	return s.newLoader(spec, shared, reasons), func() error { return errors.Join(reasons.Close(), table.CloseAll(shared)) }, nil
}

// KeepSpares makes a generation that the next one is recast from, so that a change does not wait for the verifier, whenever
// WantSpare asks for it. It ends with ctx. What fails is logged: the next change takes longer then.
func (s *Subsystem) KeepSpares(ctx context.Context) error {
	return s.spares.Keep(ctx, s.log, func() error { return pinned(pin.At(s.dir)).MakeSpare(&s.mu, s.beside) })
}

// WantSpare has KeepSpares look whether a change would find something to be recast. It takes the place of the generation that
// was live before, where that is of no use for it: so it is for when nobody may want to go back to that at once.
func (s *Subsystem) WantSpare() { s.spares.Wanted() }

// keepPrograms leaves those of the roles that are there, and the witness: the verifier's time is most of a change, and
// another role's interface makes another generation.
func keepPrograms(spec *ebpf.CollectionSpec, on *links) {
	keep := map[string]bool{witness: true}
	for _, entry := range on.entries {
		for _, egress := range []bool{false, true} {
			keep[programName(Role(entry.Role), egress)] = true
		}
	}
	maps.DeleteFunc(spec.Programs, func(name string, _ *ebpf.ProgramSpec) bool { return !keep[name] })
}

// size sets what must be known before loading: the sizes of the tables, and the matrix, which is a constant.
func size(spec *ebpf.CollectionSpec, t *classify.Tables, on *links, g Generation) error {
	if err := table.Resize(spec, t); err != nil {
		return err
	}
	if err := table.ResizeLimiters(spec, g.Limiters); err != nil {
		return err
	}
	v4, v6 := splitFamilies(g.guarded())
	announced4, announced6 := splitFamilies(g.Announced)
	addresses := 0
	for _, w := range g.Workloads {
		addresses += len(w.Addresses)
	}
	for name, n := range map[string]int{
		tcMapSelf: len(g.Self), tcMapInterfaces: len(on.entries), tcMapWorkloads: addresses,
		tcMapStrict4: len(v4), tcMapStrict6: len(v6), tcMapRates: len(g.Paced),
		tcMapAnnounced4: len(announced4), tcMapAnnounced6: len(announced6),
		tcMapSnatAddresses: len(g.SNATAddresses),
	} {
		spec.Maps[name].MaxEntries = uint32(max(n, 1))
	}
	var matrix [NumRoles][NumRoles]uint8
	for from := range g.Matrix {
		for to, may := range g.Matrix[from] {
			if may {
				matrix[from][to] = 1
			}
		}
	}
	if err := spec.Variables[tcVarMatrix].Set(matrix); err != nil {
		return fmt.Errorf("forwarding matrix: %w", err)
	}
	var strict uint8
	if len(g.Strict) > 0 {
		strict = 1
	}
	if err := spec.Variables[tcVarHasStrict].Set(strict); err != nil {
		return fmt.Errorf("whether there are strict tunnels: %w", err)
	}
	return nil
}

func splitFamilies(prefixes []netip.Prefix) (v4, v6 []netip.Prefix) {
	for _, p := range prefixes {
		if p.Addr().Is4() {
			v4 = append(v4, p.Masked())
		} else {
			v6 = append(v6, p.Masked())
		}
	}
	return v4, v6
}
