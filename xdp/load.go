package xdp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"

	"github.com/cilium/ebpf"

	"sluice/xdp/abi"
	"sluice/xdp/classify"
	"sluice/xdp/pin"
	"sluice/xdp/table"
	"sluice/xdp/xsk"
)

// Names of a generation's pins.
const (
	liveProgram    = "live"
	explainProgram = "explain"
	explainedMap   = ingressMapExplained
)

// load brings a generation into the kernel, whole, and only then switches slot after slot to it. The one that was live
// before stays, so that going back after an error finds it still there, and the next one is recast from it.
func (s *Subsystem) load(dir *pin.Dir, want State) error {
	maps, err := s.openState()
	if err != nil {
		return err
	}
	defer maps.Close()
	spec, err := s.object.Spec()
	if err != nil {
		return err
	}
	own, err := openProgramMaps(dir, spec)
	if err != nil {
		return err
	}
	defer own.Close()
	former, err := dir.LivePrograms(hookKind)
	if err != nil {
		return err
	}
	g, err := reuse(dir, want.Digest)
	if errors.Is(err, fs.ErrNotExist) {
		g, err = s.build(dir, spec, maps, own, former, want)
	}
	if err != nil {
		return err
	}
	defer g.Close()
	if err := s.writeFailsafe(maps, want.Generation); err != nil {
		return err
	}
	if err := own.prepare(dir, want, s.log); err != nil {
		return err
	}
	flows, err := table.TakeOver(dir) // where no tc program was loaded before
	if err != nil {
		return err
	}
	for _, i := range want.Interfaces {
		if err := dir.Switch(pin.Hook{Kind: hookKind, Interface: i.Name}, g.Programs[liveProgram]); err != nil {
			return err
		}
	}
	return errors.Join(flows.Settle(dir), generations(dir).Sweep(want.Digest, former), xsk.Sweep(dir, own.sockets, want.Generation.Sockets))
}

// reuse opens a generation that is pinned already: fs.ErrNotExist where there is none that is whole and works on the
// flow tables of today.
func reuse(dir *pin.Dir, digest string) (*pin.Generation, error) {
	g, err := dir.LoadGeneration(owner, digest)
	if err != nil {
		return nil, err
	}
	current := false
	if live := g.Programs[liveProgram]; live != nil {
		var shared table.SharedMaps
		if shared, err = table.PinnedShared(dir); err == nil {
			current, err = shared.UsedBy(live)
		}
	}
	if err == nil && !current {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}

// build makes a generation, from one that no slot holds or anew, and pins it.
func (s *Subsystem) build(dir *pin.Dir, spec *ebpf.CollectionSpec, state *stateMaps, own *programMaps, live map[ebpf.ProgramID]bool,
	want State) (*pin.Generation, error) {
	g := want.Generation
	tables, err := g.tables()
	if err != nil {
		return nil, err
	}
	if err := table.Resize(spec, tables); err != nil {
		return nil, err
	}
	spec.Maps[ingressMapSelf].MaxEntries = uint32(max(len(g.Self), 1))
	spec.Maps[ingressMapWorkloadAddrs].MaxEntries = uint32(max(len(g.Workloads), 1))
	spec.Maps[ingressMapVlanChildren].MaxEntries = uint32(max(len(g.Children), 1))
	spec.Maps[ingressMapInterfaces].MaxEntries = abi.InterfaceSlots
	if err := specialise(spec, g); err != nil {
		return nil, err
	}
	if err := table.ResizeLimiters(spec, g.Limiters); err != nil {
		return nil, err
	}
	shared, err := table.OpenShared(dir, spec, table.Sizes{Flows: g.FlowSlots, Rules: max(g.RuleSlots, classify.IDs(g.Policies(), g.Limiters...)),
		Limited: max(g.LimitSlots, classify.Limited(g.Limiters))})
	if err != nil {
		return nil, err
	}
	defer table.CloseAll(shared)
	loader := s.newLoader(spec, shared, state, own)
	fill := func(maps map[string]*ebpf.Map) error { return s.fill(maps, tables, g) }
	recast, err := loader.Recast(generations(dir), want.Digest, live, fill)
	if err != nil || recast != nil {
		return recast, err
	}
	fresh, err := loader.Load(fill)
	if err != nil {
		return nil, err
	}
	if err := dir.SaveGeneration(owner, want.Digest, fresh); err != nil {
		return nil, errors.Join(err, fresh.Close())
	}
	return fresh, nil
}

func generations(dir *pin.Dir) table.Site {
	return table.Site{Dir: dir, Owner: owner, Kinds: []string{hookKind}}
}

func (s *Subsystem) newLoader(spec *ebpf.CollectionSpec, shared map[string]*ebpf.Map, state *stateMaps, own *programMaps) table.Loader {
	spec.Programs = map[string]*ebpf.ProgramSpec{liveProgram: spec.Programs[ingressProgIngress]}
	all := maps.Clone(shared)
	maps.Copy(all, map[string]*ebpf.Map{ingressMapReasons: state.reasons, ingressMapInterfaces: state.interfaces,
		ingressMapInterfaceSlots: state.slots,
		ingressMapSockets:        own.sockets, ingressMapUplinkMacs: own.macs})
	return table.Loader{Spec: spec, State: all, Object: s.object, Log: s.log}
}

// fill writes the tables of a generation that no packet has seen yet, or that none is in any more.
func (s *Subsystem) fill(maps map[string]*ebpf.Map, t *classify.Tables, g Generation) error {
	if err := s.written.Fill(maps, t); err != nil {
		return err
	}
	if err := table.Wipe(maps, ingressMapRecent); err != nil { // what was decided by the tables of before
		return err
	}
	if err := table.Clear(maps, ingressMapSelf, ingressMapWorkloadAddrs, ingressMapVlanChildren); err != nil {
		return err
	}
	if err := table.FillSelf(maps[ingressMapSelf], g.Self); err != nil {
		return err
	}
	if err := table.FillSelf(maps[ingressMapWorkloadAddrs], g.Workloads); err != nil {
		return err
	}
	for _, c := range g.Children {
		if err := maps[ingressMapVlanChildren].Put(abi.VLANChild{Ifindex: c.Ifindex, VLAN: uint32(c.VLAN)}, uint8(1)); err != nil {
			return fmt.Errorf("VLAN %d of interface %d: %w", c.VLAN, c.Ifindex, err)
		}
	}
	return table.FillLimiters(maps[ingressMapLimiters], g.Limiters)
}

// beside opens what works beside live generations: the loader of twins and spares.
func (s *Subsystem) beside(dir *pin.Dir) (loader table.Loader, done func() error, err error) {
	state, err := s.openState()
	if err != nil {
		return loader, nil, err
	}
	spec, err := s.object.Spec()
	if err != nil {
		state.Close()
		return loader, nil, err
	}
	own, err := openProgramMaps(dir, spec)
	if err != nil {
		state.Close()
		return loader, nil, err
	}
	shared, err := table.Reopen(dir, spec)
	done = func() error {
		state.Close()
		return errors.Join(own.Close(), table.CloseAll(shared))
	}
	if err != nil {
		return loader, nil, errors.Join(err, done())
	}
	return s.newLoader(spec, shared, state, own), done, nil
}

// KeepSpares makes a generation that the next one is recast from, so that a change does not wait for the verifier, whenever
// WantSpare asks for it. It ends with ctx. What fails is logged: the next change takes longer then.
func (s *Subsystem) KeepSpares(ctx context.Context) error {
	return s.spares.Keep(ctx, s.log, func() error { return generations(pin.At(s.dir)).MakeSpare(&s.mu, s.beside) })
}

// WantSpare has KeepSpares look whether a change would find something to be recast. It takes the place of the generation that
// was live before, where that is of no use for it: so it is for when nobody may want to go back to that at once.
func (s *Subsystem) WantSpare() { s.spares.Wanted() }
