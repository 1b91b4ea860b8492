package tc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"sluice/xdp/abi"
	"sluice/xdp/pin"
	"sluice/xdp/table"
)

// FlowWorkload is a workload as flows know it.
type FlowWorkload struct {
	Name      string
	Ifindex   int // 0: its interface is not there
	Addresses []netip.Addr
}

// FlowQuery chooses flows: a flow must be all that is asked for. The zero value chooses all.
type FlowQuery struct {
	Prefix     netip.Prefix // holds either end, or the address it is translated to; invalid: any
	Port       uint16       // of either end, or that it is translated to; 0: any
	Protocol   uint8        // 0: any
	State      string       // of FlowStates; "": any
	Rule       uint32       // stable id of a rule or default that let it in; 0: any
	Workload   string       // opened it or is its end; "": any
	Translated bool

	Workloads []FlowWorkload // give Flow.Workload its name
	Limit     int            // the first so many; 0: all
}

// FlowList are flows that a query chose, and numbers of all that it did, beyond the limit too.
type FlowList struct {
	Flows     []Flow // sorted by origin, protocol, addresses and ports
	Total     int
	States    map[string]int
	Workloads map[string]int // by name; "": of none
}

// Flows lists all that is live.
func (s *Subsystem) Flows(ctx context.Context) ([]Flow, error) {
	list, err := s.SelectFlows(ctx, FlowQuery{})
	return list.Flows, err
}

// SelectFlows reads the flow tables, and holds up nobody who changes them. What packets enter or close meanwhile may be missing.
func (s *Subsystem) SelectFlows(ctx context.Context, q FlowQuery) (FlowList, error) {
	out := FlowList{States: map[string]int{}, Workloads: map[string]int{}}
	trimmed := false // out.Flows begins with as many as are asked for, sorted
	err := s.eachFlow(ctx, q, func(f Flow) {
		out.Total++
		out.States[f.State]++
		out.Workloads[f.Workload]++
		if trimmed && compareFlows(f, out.Flows[q.Limit-1]) > 0 {
			return // behind all that were kept, and half a million are not to be held and sorted for the sake of a hundred
		}
		out.Flows = append(out.Flows, f)
		if q.Limit > 0 && len(out.Flows) >= 2*q.Limit+walkRoom {
			out.trim(q.Limit)
			trimmed = len(out.Flows) == q.Limit
		}
	})
	out.trim(q.Limit)
	return out, err
}

const walkRoom = 1024

func (l *FlowList) trim(limit int) {
	slices.SortFunc(l.Flows, compareFlows)
	// One that was proven during the walk was met in both of its tables.
	l.Flows = slices.CompactFunc(l.Flows, func(a, b Flow) bool {
		if compareFlows(a, b) != 0 {
			return false
		}
		l.Total--
		l.States[b.State]--
		l.Workloads[b.Workload]--
		return true
	})
	if limit > 0 && len(l.Flows) > limit {
		l.Flows = slices.Delete(l.Flows, limit, len(l.Flows))
	}
}

// flowTables are in the order in which a walk misses none: a flow that is proven leaves a fresh one for flows.
var flowTables = []string{table.FreshOut, table.FreshIn, table.Flows}

// eachFlow calls each for every live flow that q chooses.
func (s *Subsystem) eachFlow(ctx context.Context, q FlowQuery, each func(Flow)) error {
	now, err := monotonic()
	if err != nil {
		return err
	}
	names := NewFlowNames(q.Workloads)
	for _, name := range flowTables {
		m, err := table.ReadShared(pin.At(s.dir), name)
		if err != nil {
			return err
		}
		if m == nil {
			continue
		}
		err = table.Walk(m, func(key, value []byte) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			k, v := table.Read[abi.FlowKey](key), table.Read[abi.Flow](value)
			f := decodeFlow(k, v, now)
			if f.Idle > flowTimeout(k, v) {
				return nil
			}
			f.Workload = names.Of(f)
			if q.chooses(f) {
				each(f)
			}
			return nil
		})
		if err = errors.Join(err, m.Close()); err != nil {
			return err
		}
	}
	return nil
}

func monotonic() (int64, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return 0, fmt.Errorf("clock: %w", err)
	}
	return now.Nano(), nil
}

// FlowNames finds the workload of a flow by what the tables know of it.
type FlowNames struct {
	owners map[int]string
	ends   map[netip.Addr]string
}

// NewFlowNames indexes workloads.
func NewFlowNames(workloads []FlowWorkload) FlowNames {
	n := FlowNames{map[int]string{}, map[netip.Addr]string{}}
	for _, w := range workloads {
		if w.Ifindex != 0 {
			n.owners[w.Ifindex] = w.Name
		}
		for _, a := range w.Addresses {
			n.ends[a] = w.Name
		}
	}
	return n
}

// Of names the workload that opened a flow, or that it leads to; "": none.
func (n FlowNames) Of(f Flow) string { return cmp.Or(n.owners[f.Owner], n.ends[f.Dst], n.ends[f.Src]) }

func (q FlowQuery) chooses(f Flow) bool {
	switch {
	case q.Protocol != 0 && f.Protocol != q.Protocol,
		q.State != "" && f.State != q.State,
		q.Workload != "" && f.Workload != q.Workload && !q.isEnd(f),
		q.Translated && !f.Translated.IsValid(),
		q.Rule != 0 && !slices.Contains(f.Rules[:], q.Rule),
		q.Port != 0 && f.SrcPort != q.Port && f.DstPort != q.Port && f.Translated.Port() != q.Port,
		q.Prefix.IsValid() && !q.Prefix.Contains(f.Src) && !q.Prefix.Contains(f.Dst) && !q.Prefix.Contains(f.Translated.Addr()):
		return false
	}
	return true
}

// isEnd says whether the workload that is asked for is an end of the flow, where another one opened it.
func (q FlowQuery) isEnd(f Flow) bool {
	return slices.ContainsFunc(q.Workloads, func(w FlowWorkload) bool {
		return w.Name == q.Workload && (slices.Contains(w.Addresses, f.Src) || slices.Contains(w.Addresses, f.Dst))
	})
}
