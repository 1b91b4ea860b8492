package table

import (
	"errors"
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

// RuleCounts adds up the counters of rules over all CPUs. What is zero is left out. ids may be in any order, and repeat.
func RuleCounts(hits *ebpf.Map, ids []uint32) (map[uint32]Count, error) {
	wanted := map[uint32][]uint32{} // by page
	for _, id := range ids {
		page := id / abi.RulePageIDs
		wanted[page] = append(wanted[page], id)
	}
	counts := map[uint32]Count{}
	var perCPU []abi.RulePage
	for page, ids := range wanted {
		if err := hits.Lookup(page, &perCPU); err != nil {
			return nil, fmt.Errorf("rule counters from %d on: %w", page*abi.RulePageIDs, err)
		}
		for _, id := range ids {
			var total Count
			for i := range perCPU {
				c := perCPU[i].Rule[id%abi.RulePageIDs]
				total.Packets += c.Packets
				total.Bytes += c.Bytes
			}
			if total != (Count{}) {
				counts[id] = total
			}
		}
	}
	return counts, nil
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

// RuleIDs reads the ids from a rule table itself: after a restart nobody else knows them. An id may repeat.
func RuleIDs(rules *ebpf.Map) ([]uint32, error) {
	keys, entries := make([]uint32, rules.MaxEntries()), make([]abi.Rule, rules.MaxEntries())
	var cursor ebpf.MapBatchCursor
	n, err := rules.BatchLookup(&cursor, keys, entries, nil)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) { // which says that these were all
		return nil, fmt.Errorf("rule table: %w", err)
	}
	var ids []uint32
	for _, r := range entries[:n] {
		if r.ID != 0 {
			ids = append(ids, r.ID)
		}
	}
	return ids, nil
}
