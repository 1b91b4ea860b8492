package daemon

import (
	"cmp"
	"context"
	"slices"

	"sluice/control/api"
	"sluice/xdp/abi"
)

// count is packets and bytes.
type count struct{ Packets, Bytes uint64 }

// ruleHits are the counters of every rule by its stable id. Both subsystems read the same map, each for the rules that
// its own generation holds.
func (d *Daemon) ruleHits(ctx context.Context) (map[uint32]count, error) {
	hits := map[uint32]count{}
	x, err := d.xdp.Counters(ctx)
	if err != nil {
		return nil, err
	}
	for id, c := range x.Rules {
		hits[id] = count(c)
	}
	t, err := d.tc.Counters(ctx)
	if err != nil {
		return nil, err
	}
	for id, c := range t.Rules {
		hits[id] = count(c)
	}
	return hits, nil
}

// limitDrops are what each rule with a limit has dropped beyond it, by the rule's stable id. Both hooks count into the same
// counter, and each subsystem knows the limits of its own generation.
func (d *Daemon) limitDrops(ctx context.Context) (map[uint32]count, error) {
	drops := map[uint32]count{}
	x, err := d.xdp.LimitDrops(ctx)
	if err != nil {
		return nil, err
	}
	for id, c := range x {
		drops[id] = count(c)
	}
	t, err := d.tc.LimitDrops(ctx)
	if err != nil {
		return nil, err
	}
	for id, c := range t {
		drops[id] = count(c)
	}
	return drops, nil
}

// reasons are the counters by interface, hook and reason, without those at zero; most packets first within a hook.
func (d *Daemon) reasons(ctx context.Context) ([]api.Reason, error) {
	out := []api.Reason{}
	add := func(hook, name string, reason abi.Reason, c count) {
		if c.Packets > 0 {
			out = append(out, api.Reason{
				Hook: hook, Interface: name, Reason: reason.String(), Fate: reason.Fate().String(), Text: reason.Text(),
				Packets: c.Packets, Bytes: c.Bytes,
			})
		}
	}
	x, err := d.xdp.Counters(ctx)
	if err != nil {
		return nil, err
	}
	for _, i := range x.Interfaces {
		for reason, c := range i.Reasons {
			add("xdp", i.Name, reason, count(c))
		}
	}
	t, err := d.tc.Counters(ctx)
	if err != nil {
		return nil, err
	}
	for _, i := range t.Interfaces {
		for reason, c := range i.Reasons {
			add("tc", i.Name, reason, count(c))
		}
	}
	slices.SortFunc(out, func(a, b api.Reason) int {
		return cmp.Or(cmp.Compare(a.Interface, b.Interface), cmp.Compare(b.Hook, a.Hook), cmp.Compare(b.Packets, a.Packets),
			cmp.Compare(a.Reason, b.Reason))
	})
	return out, nil
}
