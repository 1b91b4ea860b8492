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
