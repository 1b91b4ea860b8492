package tc

import (
	"context"
	"fmt"
	"time"
	"unsafe"

	"sluice/xdp/abi"
	"sluice/xdp/table"
)

// FlowEvent is what became of a flow.
type FlowEvent struct {
	Time   time.Duration // CLOCK_BOOTTIME
	Change string        // one of FlowChanges
	Flow   Flow          // as it was then; without Workload
}

// FlowChanges are the words for enum flow_change.
var FlowChanges = [...]string{
	abi.FlowEventNew: "new", abi.FlowEventProven: "proven", abi.FlowEventClosed: "closed", abi.FlowEventRevoked: "revoked",
}

// WatchFlows makes the programs tell what becomes of flows, at most rate events a second in all, until ctx ends. It calls
// event for each; and unseen before it begins, when it has begun, and then about once a second. Both must be quick, or
// events are lost (and counted). No generation is loaded for it. Only one may run at a time.
func (s *Subsystem) WatchFlows(ctx context.Context, rate int, event func(FlowEvent), unseen func(table.Unseen)) error {
	spec, err := s.object.Spec()
	if err != nil {
		return err
	}
	w, err := table.OpenWatch(s.dir, spec, abi.WatchFlows, "flow events", table.FlowEvents, rate)
	if err != nil {
		return err
	}
	defer w.Close()
	return w.Follow(ctx, func(raw []byte, begin time.Duration) error {
		if size := int(unsafe.Sizeof(abi.FlowEvent{})); len(raw) < size {
			return fmt.Errorf("ring of flow events: an event of %d bytes, not %d", len(raw), size)
		}
		e := table.Read[abi.FlowEvent](raw)
		if time.Duration(e.TimeNs) < begin {
			return nil
		}
		now, err := monotonic()
		if err != nil {
			return err
		}
		event(FlowEvent{
			Time: time.Duration(e.TimeNs), Change: FlowChanges[min(int(e.Change), len(FlowChanges)-1)], Flow: decodeFlow(e.Key, e.Flow, now),
		})
		return nil
	}, unseen)
}
