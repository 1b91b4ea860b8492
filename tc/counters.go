package tc

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/cilium/ebpf"

	"sluice/xdp/abi"
	"sluice/xdp/pin"
	"sluice/xdp/table"
)

// Count is a number of packets and of their bytes, link headers included.
type Count = table.Count

// Counters are sums over all CPUs and both directions since the interface was first attached. What is zero is left out.
// Those of rules are one map of both hooks: xdp.RuleHits.
type Counters struct{ Interfaces []InterfaceCounters }

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
	var out Counters
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
	return out, nil
}

// dropped is what Dropped keeps from one call to the next.
type dropped struct {
	reasons pin.Kept
	slots   map[string]uint32 // of counters, by interface; nil: to be asked for
}

func (d *dropped) close() error {
	d.slots = nil
	return d.reasons.Close()
}

// Dropped are the packets of a reason by interface, as in Counters. For who asks every few seconds: it asks the kernel again
// which interfaces there are only after an Apply.
func (s *Subsystem) Dropped(ctx context.Context, reason abi.Reason) (map[string]uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dropped.slots == nil {
		interfaces, err := s.observe(ctx)
		if err != nil {
			return nil, err
		}
		s.dropped.slots = map[string]uint32{"": 0} // unknown
		for _, o := range interfaces {
			if o.entry.Slot != 0 {
				s.dropped.slots[o.name] = o.entry.Slot
			}
		}
	}
	path := pin.At(s.dir).StateMapPath(reasonsPin, reasonsVersion)
	if _, err := s.dropped.reasons.Renew(path); err != nil {
		return nil, fmt.Errorf("reason counters: %w", err)
	}
	out := map[string]uint64{}
	if s.dropped.reasons.Map(path) == nil {
		return out, nil
	}
	for name, slot := range s.dropped.slots {
		count, err := table.Sum(s.dropped.reasons.Map(path), slot*abi.ReasonSlots+uint32(reason))
		if err != nil {
			return nil, err
		}
		out[name] = count.Packets
	}
	return out, nil
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
