package table

import (
	"fmt"

	"github.com/cilium/ebpf"

	"sluice/xdp/abi"
)

// Count is a number of packets and of their bytes, link headers included.
type Count struct{ Packets, Bytes uint64 }

// Sum adds up one counter over all CPUs.
func Sum(m *ebpf.Map, index uint32) (Count, error) {
	var (
		perCPU []abi.Counter
		total  Count
	)
	if err := m.Lookup(index, &perCPU); err != nil {
		return total, fmt.Errorf("counter %d: %w", index, err)
	}
	for _, c := range perCPU {
		total.Packets += c.Packets
		total.Bytes += c.Bytes
	}
	return total, nil
}

// Reasons reads the reason counters of one interface slot. What is zero is left out.
func Reasons(m *ebpf.Map, slot uint32) (map[abi.Reason]Count, error) {
	reasons := map[abi.Reason]Count{}
	for reason := range abi.ReasonMax {
		c, err := Sum(m, slot*abi.ReasonSlots+uint32(reason))
		if err != nil {
			return nil, err
		}
		if c != (Count{}) {
			reasons[reason] = c
		}
	}
	return reasons, nil
}

// ClearSlot sets the reason counters of an interface slot to zero, before another interface gets it.
func ClearSlot(m *ebpf.Map, slot uint32) error {
	zero := make([]abi.Counter, ebpf.MustPossibleCPU())
	for reason := range uint32(abi.ReasonSlots) {
		if err := m.Put(slot*abi.ReasonSlots+reason, zero); err != nil {
			return fmt.Errorf("clear the counters of slot %d: %w", slot, err)
		}
	}
	return nil
}
