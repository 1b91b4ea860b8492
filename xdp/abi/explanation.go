package abi

import "slices"

// Matched are the slots of the FlowSpec filters that held for the packet, in their order, each once; more says that others came
// behind them for which there was no room.
func (e *Explanation) Matched() (slots []uint32, more bool) {
	n := min(e.Filters, ExplainedFilters)
	for _, slot := range e.Filter[:n] {
		if !slices.Contains(slots, slot) {
			slots = append(slots, slot)
		}
	}
	return slots, e.Filters > n
}
