package tc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/cilium/ebpf"

	"sluice/xdp/abi"
	"sluice/xdp/pin"
	"sluice/xdp/table"
)

// Swept is what a sweep of the flow tables found.
type Swept struct {
	Flows, FreshOut, FreshIn TableFill
	Translations             int
	States                   map[string]int // flows by FlowStates
	Expired, Orphans         int            // flows, and translations without their flow, that it deleted
	Pressure                 FlowPressure
	Took                     time.Duration
}

// TableFill is how full a table is.
type TableFill struct{ Entries, Max int }

// FlowPressure counts, since the machine booted, how flows ran out of room.
type FlowPressure struct {
	Full    uint64 // proven ones for which the table had no room: tried again once a second
	Crowded uint64 // proven ones whose owner has its share: the same
	Unmade  uint64 // new ones that could not be entered at all
}

// sweeper is the program, loaded for the tables of a time, which stay open: a look every few seconds at what does not change.
type sweeper struct {
	tables  pin.Kept
	program *ebpf.Program // nil: not loaded for these tables
	swept   *ebpf.Variable
}

func (w *sweeper) close() error {
	err := w.tables.Close()
	if w.program != nil {
		err = errors.Join(err, w.program.Close())
	}
	*w = sweeper{}
	return err
}

// open has it hold the tables as they are pinned, and the program for them. nil: a table is missing, as before the first
// generation.
func (w *sweeper) open(dir *pin.Dir) (map[string]*ebpf.Map, error) {
	names := append([]string{table.FlowPressure}, sweptTables...)
	paths := make([]string, len(names))
	for i, name := range names {
		paths[i] = table.SharedPath(dir, name)
	}
	others, err := w.tables.Renew(paths...)
	if err == nil && w.tables.Map(paths[0]) == nil {
		return nil, w.close()
	}
	if others && w.program != nil {
		err = errors.Join(err, w.program.Close())
		w.program = nil
	}
	if err != nil {
		return nil, err
	}
	open := map[string]*ebpf.Map{}
	for i, name := range names {
		open[name] = w.tables.Map(paths[i])
	}
	if w.program == nil {
		err = w.load(open)
	}
	return open, err
}

// sweptTables are the pinned maps that the program works on.
var sweptTables = []string{table.Flows, table.FreshOut, table.FreshIn, table.Translations, table.FlowShares}

// Sweep deletes the flows that have expired and the translations that have lost their flow, and counts what is left. It first
// ends a hand-over of flow tables that a crash cut short. Without tables there is nothing to do, and nil is returned.
func (s *Subsystem) Sweep(ctx context.Context) (*Swept, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	dir := pin.At(s.dir)
	if err := (table.Handover{}).Settle(dir); err != nil {
		return nil, fmt.Errorf("flow tables: %w", err)
	}
	open, err := s.sweeper.open(dir)
	if err != nil {
		return nil, fmt.Errorf("sweep of the flow tables: %w", err)
	}
	if open == nil {
		return nil, nil
	}
	begin := time.Now()
	if _, err := s.sweeper.program.Run(&ebpf.RunOptions{}); err != nil {
		return nil, fmt.Errorf("sweep of the flow tables: %w", err)
	}
	took := time.Since(begin)
	var found abi.Swept
	if err := s.sweeper.swept.Get(&found); err != nil {
		return nil, fmt.Errorf("sweep of the flow tables: %w", err)
	}
	pressure, err := flowPressure(open[table.FlowPressure])
	if err != nil {
		return nil, err
	}
	return report(found, pressure, open, took), nil
}

func report(found abi.Swept, pressure FlowPressure, open map[string]*ebpf.Map, took time.Duration) *Swept {
	fill := func(at abi.SweptTable, name string) TableFill {
		return TableFill{int(found.Entries[at]), int(open[name].MaxEntries())}
	}
	out := &Swept{
		Flows: fill(abi.SweptFlows, table.Flows), FreshOut: fill(abi.SweptFreshOut, table.FreshOut), FreshIn: fill(abi.SweptFreshIn, table.FreshIn),
		Translations: int(found.Translations), States: map[string]int{}, Expired: int(found.Expired), Orphans: int(found.Orphans),
		Pressure: pressure, Took: took,
	}
	for i, state := range FlowStates {
		out.States[state] = int(found.States[i])
	}
	return out
}

// load loads the program for these tables.
func (w *sweeper) load(open map[string]*ebpf.Map) error {
	spec, err := loadSweep()
	if err != nil {
		return err
	}
	replace := map[string]*ebpf.Map{}
	for _, name := range sweptTables {
		replace[name], spec.Maps[name].MaxEntries = open[name], open[name].MaxEntries()
	}
	// The headers bring maps of generations along, which the program has no use for.
	maps.DeleteFunc(spec.Maps, func(name string, _ *ebpf.MapSpec) bool {
		return replace[name] == nil && name != sweepMapOwners && !slices.Contains([]string{".bss", ".rodata"}, name)
	})
	loaded, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: replace})
	if err != nil {
		return table.LoadError(err)
	}
	defer loaded.Close()
	w.program, w.swept = loaded.DetachProgram(sweepProgSweep), loaded.Variables[sweepVarSwept]
	return nil
}

func flowPressure(m *ebpf.Map) (sum FlowPressure, err error) {
	var perCPU []abi.FlowPressure
	if err := m.Lookup(uint32(0), &perCPU); err != nil {
		return sum, fmt.Errorf("pressure on the flow tables: %w", err)
	}
	for _, one := range perCPU {
		sum.Full += one.Full
		sum.Crowded += one.Crowded
		sum.Unmade += one.Unmade
	}
	return sum, nil
}
