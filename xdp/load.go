package xdp

import (
	"errors"
	"io/fs"

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

// load brings a generation into the kernel, whole, and only then switches slot after slot to it. The generations before
// are swept last, so that going back after an error finds the former one still there.
func (s *Subsystem) load(dir *pin.Dir, want State) error {
	maps, err := openState(s.dir)
	if err != nil {
		return err
	}
	defer maps.Close()
	own, err := openProgramMaps(dir)
	if err != nil {
		return err
	}
	defer own.Close()
	g, err := reuse(dir, want.Digest)
	if errors.Is(err, fs.ErrNotExist) {
		g, err = build(dir, maps, own, want.Generation)
		if err == nil {
			err = dir.SaveGeneration(owner, want.Digest, g)
		}
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
	for _, i := range want.Interfaces {
		if err := dir.Switch(pin.Hook{Kind: hookKind, Interface: i.Name}, g.Programs[liveProgram]); err != nil {
			return err
		}
	}
	return errors.Join(dir.SweepGenerations(owner, want.Digest), xsk.Sweep(dir, own.sockets, want.Generation.Sockets))
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
		current, err = table.UsesShared(dir, live)
	}
	if err == nil && !current {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}

// build loads the live program and its explain twin, which share every map.
func build(dir *pin.Dir, state *stateMaps, own *programMaps, g Generation) (*pin.Generation, error) {
	tables, err := g.tables()
	if err != nil {
		return nil, err
	}
	spec, err := loadIngress()
	if err != nil {
		return nil, err
	}
	if err := table.Resize(spec, tables); err != nil {
		return nil, err
	}
	spec.Maps[ingressMapSelf].MaxEntries = uint32(max(len(g.Self), 1))
	spec.Maps[ingressMapInterfaces].MaxEntries = abi.InterfaceSlots
	if err := specialise(spec, g); err != nil {
		return nil, err
	}
	if err := table.ResizeLimiters(spec, g.Limiters); err != nil {
		return nil, err
	}
	shared, err := table.OpenShared(dir, spec, table.Sizes{Flows: g.FlowSlots, Rules: max(g.RuleSlots, classify.IDs(g.Policies(), g.Limiters...))})
	if err != nil {
		return nil, err
	}
	defer table.CloseAll(shared)
	replace := map[string]*ebpf.Map{ingressMapReasons: state.reasons, ingressMapInterfaces: state.interfaces, ingressMapInterfaceSlots: state.slots,
		ingressMapSockets: own.sockets, ingressMapUplinkMacs: own.macs}
	for name, m := range shared {
		replace[name] = m
	}

	pair, err := table.LoadPair(spec, replace, func(maps map[string]*ebpf.Map) error { return fill(maps, tables, g) })
	if err != nil {
		return nil, err
	}
	defer pair.Close()
	return &pin.Generation{
		Programs: map[string]*ebpf.Program{liveProgram: pair.Live.DetachProgram(ingressProgIngress), explainProgram: pair.Twin.DetachProgram(ingressProgIngress)},
		Maps:     map[string]*ebpf.Map{explainedMap: pair.Live.DetachMap(explainedMap)},
	}, nil
}

// fill writes the tables of a generation and freezes them: from here on not even we can change them.
func fill(maps map[string]*ebpf.Map, t *classify.Tables, g Generation) error {
	if err := table.Fill(maps, t); err != nil {
		return err
	}
	if err := table.FillSelf(maps[ingressMapSelf], g.Self); err != nil {
		return err
	}
	if err := table.FillLimiters(maps[ingressMapLimiters], g.Limiters); err != nil {
		return err
	}
	return table.Freeze(maps, append(table.Names(), ingressMapSelf, ingressMapLimiters)...)
}
