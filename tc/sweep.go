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

// sweeper is the program, loaded for the tables of a time.
type sweeper struct {
	program *ebpf.Program
	swept   *ebpf.Variable
	on      []ebpf.MapID // the tables that it was loaded for, sorted
}

func (w *sweeper) close() {
	if w.program != nil {
		_ = w.program.Close()
	}
	*w = sweeper{}
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
	open, err := openTables(dir, append([]string{table.FlowPressure}, sweptTables...))
	if err != nil || open == nil {
		return nil, err
	}
	defer func() { _ = table.CloseAll(open) }()
	if err := s.sweeper.load(open); err != nil {
		return nil, fmt.Errorf("sweep of the flow tables: %w", err)
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

// openTables opens pinned maps; nil where one is missing, as before the first generation.
func openTables(dir *pin.Dir, names []string) (map[string]*ebpf.Map, error) {
	open := map[string]*ebpf.Map{}
	for _, name := range names {
		m, err := table.ReadShared(dir, name)
		if err != nil || m == nil {
			return nil, errors.Join(err, table.CloseAll(open))
		}
		open[name] = m
	}
	return open, nil
}

// load loads the program, unless it is there for these very tables.
func (w *sweeper) load(open map[string]*ebpf.Map) error {
	var on []ebpf.MapID
	for _, name := range sweptTables {
		info, err := open[name].Info()
		if err != nil {
			return err
		}
		id, _ := info.ID()
		on = append(on, id)
	}
	if w.program != nil && slices.Equal(w.on, on) {
		return nil
	}
	w.close()
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
	*w = sweeper{loaded.DetachProgram(sweepProgSweep), loaded.Variables[sweepVarSwept], on}
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
