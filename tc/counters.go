package tc

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"

	"github.com/cilium/ebpf"

	"sluice/xdp/abi"
	"sluice/xdp/pin"
	"sluice/xdp/table"
)

// Count is a number of packets and of their bytes, link headers included.
type Count = table.Count

// Counters are sums over all CPUs and both directions since the interface was first attached, or the rule's id was
// first used. What is zero is left out.
type Counters struct {
	Interfaces []InterfaceCounters
	// Rules counts by stable id what matched the rules of the live generation, shadow rules included. XDP counts its
	// packets into the same map, so that a rule that both judge has one number.
	Rules map[uint32]Count
}

// InterfaceCounters are those of one interface. Name is "" for packets of interfaces that are unknown.
type InterfaceCounters struct {
	Name    string
	Reasons map[abi.Reason]Count
}

// Counters reads every counter of this subsystem.
func (s *Subsystem) Counters(ctx context.Context) (Counters, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	interfaces, err := s.observe(ctx)
	if err != nil || len(interfaces) == 0 {
		return Counters{}, err
	}
	dir := pin.At(s.dir)
	reasons, err := ebpf.LoadPinnedMap(dir.StateMapPath(reasonsPin, reasonsVersion), nil)
	if errors.Is(err, fs.ErrNotExist) {
		return Counters{}, nil
	}
	if err != nil {
		return Counters{}, fmt.Errorf("reason counters: %w", err)
	}
	defer reasons.Close()
	out := Counters{Rules: map[uint32]Count{}}
	for i, o := range append([]observed{{}}, interfaces...) { // slot 0: unknown
		if i > 0 && o.entry.Slot == 0 {
			continue // not attached, or more interfaces than slots
		}
		counts, err := table.Reasons(reasons, o.entry.Slot)
		if err != nil {
			return Counters{}, err
		}
		if i > 0 || len(counts) > 0 {
			out.Interfaces = append(out.Interfaces, InterfaceCounters{Name: o.name, Reasons: counts})
		}
	}
	return out, readRules(dir, out.Rules)
}

// readRules reads the counters of the rules that pinned generations have.
func readRules(dir *pin.Dir, out map[uint32]Count) error {
	hits, err := table.ReadShared(dir, table.RuleHits)
	if err != nil || hits == nil {
		return err
	}
	defer hits.Close()
	keys, err := dir.Generations(owner)
	if err != nil {
		return err
	}
	for _, key := range keys {
		ids, err := ruleIDs(dir, key)
		if err != nil {
			return err
		}
		counts, err := table.RuleCounts(hits, ids)
		if err != nil {
			return err
		}
		maps.Copy(out, counts)
	}
	return nil
}

func ruleIDs(dir *pin.Dir, key string) ([]uint32, error) {
	g, err := dir.LoadGeneration(owner, key)
	if err != nil {
		return nil, err
	}
	defer g.Close()
	if g.Maps[tcMapRules] == nil {
		return nil, nil
	}
	return table.RuleIDs(g.Maps[tcMapRules])
}

// Status is what `show interfaces` tells about tcx.
type Status struct {
	Interface  string
	Role       Role // RoleNone: not attached as it should be
	Judge      bool
	Generation string // digest; "": none that is known
}

// Status reports every interface that has or had roots, sorted by name.
func (s *Subsystem) Status(ctx context.Context) ([]Status, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	interfaces, err := s.observe(ctx)
	if err != nil {
		return nil, err
	}
	var out []Status
	for _, o := range interfaces {
		seen := o.seen()
		out = append(out, Status{Interface: o.name, Role: seen.Role, Judge: seen.Judge, Generation: o.digest})
	}
	return out, nil
}
