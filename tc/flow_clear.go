package tc

import (
	"context"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"sluice/xdp/abi"
	"sluice/xdp/pin"
	"sluice/xdp/table"
)

// ClearFlows forgets the flows that q chooses, with their translations, and returns how many there were. What a packet of
// one enters again is another flow: judged, and translated, anew.
func (s *Subsystem) ClearFlows(ctx context.Context, q FlowQuery) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var chosen []Flow
	if err := s.eachFlow(ctx, q, func(f Flow) { chosen = append(chosen, f) }); err != nil {
		return 0, err
	}
	maps := map[string]*ebpf.Map{}
	defer func() { _ = table.CloseAll(maps) }()
	for _, name := range append([]string{table.Translations}, flowTables...) {
		m, err := table.ReadShared(pin.At(s.dir), name)
		if err != nil {
			return 0, err
		}
		if m != nil {
			maps[name] = m
		}
	}
	cleared := 0
	for _, f := range chosen {
		found, err := f.clear(maps)
		if err != nil {
			return cleared, fmt.Errorf("clear the flow %s > %s: %w", f.Source(), f.Destination(), err)
		}
		if found {
			cleared++
		}
	}
	return cleared, nil
}

// clear deletes the flow first: a translation holds only while its flow is there.
func (f Flow) clear(maps map[string]*ebpf.Map) (found bool, err error) {
	for _, name := range flowTables {
		if m := maps[name]; m != nil {
			err := m.Delete(f.key)
			found = found || err == nil
			if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				return found, err
			}
		}
	}
	m := maps[table.Translations]
	if m == nil || !f.Translated.IsValid() {
		return found, nil
	}
	var have abi.Translation
	wire := f.wireKey()
	err = m.Lookup(wire, &have)
	if err == nil && have.Inner == f.key {
		err = m.Delete(wire)
	}
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		err = nil
	}
	return found, err
}

// wireKey is the key of its translation: the flow as the uplink sees it.
func (f Flow) wireKey() abi.FlowKey {
	key, _ := abi.KeyOf(f.Translated.Addr(), f.Dst, f.Translated.Port(), f.DstPort, f.Protocol)
	return key
}
