package xdp

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/cilium/ebpf"

	"sluice/xdp/abi"
	"sluice/xdp/classify"
	"sluice/xdp/pin"
	"sluice/xdp/table"
)

// Names of a generation's pins.
const (
	liveProgram    = "live"
	explainProgram = "explain"
	explainedMap   = ingressMapExplained
	rulesMap       = ingressMapRules
)

// load brings a generation into the kernel, whole, and only then switches slot after slot to it. The generations before
// are swept last, so that going back after an error finds the former one still there.
func (s *Subsystem) load(dir *pin.Dir, want State) error {
	maps, err := openState(s.dir)
	if err != nil {
		return err
	}
	defer maps.Close()
	g, err := dir.LoadGeneration(owner, want.Digest)
	if errors.Is(err, fs.ErrNotExist) {
		g, err = build(dir, maps, want.Generation)
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
	for _, i := range want.Interfaces {
		if err := dir.Switch(pin.Hook{Kind: hookKind, Interface: i.Name}, g.Programs[liveProgram]); err != nil {
			return err
		}
	}
	return dir.SweepGenerations(owner, want.Digest)
}

// build loads the live program and its explain twin, which share every map.
func build(dir *pin.Dir, state *stateMaps, g Generation) (*pin.Generation, error) {
	tables, err := classify.Compile(g.Policies())
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
	shared, err := openShared(dir, spec, g.FlowSlots)
	if err != nil {
		return nil, err
	}
	defer closeAll(shared)
	replace := map[string]*ebpf.Map{ingressMapReasons: state.reasons, ingressMapInterfaces: state.interfaces}
	for name, m := range shared {
		replace[name] = m
	}

	live, err := ebpf.NewCollectionWithOptions(spec.Copy(), ebpf.CollectionOptions{MapReplacements: replace})
	if err != nil {
		return nil, loadError(err)
	}
	defer live.Close()
	if err := fill(live.Maps, tables, g); err != nil {
		return nil, err
	}
	twin, err := buildTwin(spec, live.Maps)
	if err != nil {
		return nil, err
	}
	return &pin.Generation{
		Programs: map[string]*ebpf.Program{liveProgram: live.DetachProgram(ingressProgIngress), explainProgram: twin},
		Maps:     map[string]*ebpf.Map{explainedMap: live.DetachMap(explainedMap), rulesMap: live.DetachMap(rulesMap)},
	}, nil
}

// openShared opens the state maps that tc has too.
func openShared(dir *pin.Dir, spec *ebpf.CollectionSpec, flowSlots uint32) (map[string]*ebpf.Map, error) {
	spec.Maps[ingressMapFlowsOut].MaxEntries = max(flowSlots, 1)
	spec.Maps[ingressMapFlowsIn].MaxEntries = max(flowSlots, 1)
	shared := map[string]*ebpf.Map{}
	for _, one := range []struct {
		name, pin string
		version   int
	}{
		{ingressMapRuleHits, "rule-hits", ruleHitsVersion},
		{ingressMapFlowsOut, "flows-out", flowsVersion},
		{ingressMapFlowsIn, "flows-in", flowsVersion},
	} {
		m, err := dir.StateMap(spec.Maps[one.name], one.pin, one.version)
		if err != nil {
			closeAll(shared)
			return nil, err
		}
		shared[one.name] = m
	}
	return shared, nil
}

func closeAll(maps map[string]*ebpf.Map) {
	for _, m := range maps {
		m.Close()
	}
}

// fill writes the tables of a generation and freezes them: from here on not even we can change them.
func fill(maps map[string]*ebpf.Map, t *classify.Tables, g Generation) error {
	if err := table.Fill(maps, t); err != nil {
		return err
	}
	if err := table.FillSelf(maps[ingressMapSelf], g.Self); err != nil {
		return err
	}
	frozen := []string{table.Classes, table.Rules, table.Policies, ingressMapSelf}
	for class := range abi.ClassTables {
		frozen = append(frozen, table.PrefixMap(abi.ClassTable(class)))
	}
	for _, name := range frozen {
		if err := maps[name].Freeze(); err != nil {
			return fmt.Errorf("freeze map %s: %w", name, err)
		}
	}
	return nil
}

func buildTwin(spec *ebpf.CollectionSpec, maps map[string]*ebpf.Map) (*ebpf.Program, error) {
	spec = spec.Copy()
	if err := spec.Variables[ingressVarExplain].Set(uint8(1)); err != nil {
		return nil, fmt.Errorf("explain twin: %w", err)
	}
	replace := map[string]*ebpf.Map{}
	for name, m := range maps {
		if name != ".rodata" { // the one map in which they differ
			replace[name] = m
		}
	}
	twin, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: replace})
	if err != nil {
		return nil, fmt.Errorf("explain twin: %w", loadError(err))
	}
	defer twin.Close()
	return twin.DetachProgram(ingressProgIngress), nil
}

// loadError says what a refusal by the kernel most likely means. The verifier's log is in the error's %+v form.
func loadError(err error) error {
	var verifier *ebpf.VerifierError
	if errors.As(err, &verifier) {
		return fmt.Errorf("the kernel's verifier refuses the program (is the kernel older than 6.6? `sluice doctor` tells): %w", err)
	}
	if errors.Is(err, ebpf.ErrNotSupported) {
		return fmt.Errorf("this kernel lacks a feature that XDP generations need (`sluice doctor` tells which): %w", err)
	}
	return err
}
