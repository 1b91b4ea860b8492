package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"

	"sluice/control/api"
	"sluice/tc"
	"sluice/xdp/packet"
)

// Flows lists tracked flows.
func (d *Daemon) Flows(ctx context.Context, r api.FlowsRequest) (api.Flows, error) {
	q, err := d.flowQuery(r.FlowFilter)
	if err = errors.Join(err, atLeast(r.Limit, "flows", api.DefaultFlows)); err != nil {
		return api.Flows{}, refused(err)
	}
	q.Limit = cmp.Or(r.Limit, api.DefaultFlows)
	list, err := d.tc.SelectFlows(ctx, q)
	if err != nil {
		return api.Flows{}, err
	}
	delete(list.Workloads, "")
	out := api.Flows{Total: list.Total, States: list.States, Workloads: list.Workloads, Flows: []api.Flow{}}
	if r.Count {
		return out, nil
	}
	names := d.newNames()
	for _, f := range list.Flows {
		out.Flows = append(out.Flows, names.flow(f))
	}
	return out, nil
}

// ClearFlows forgets tracked flows.
func (d *Daemon) ClearFlows(ctx context.Context, r api.ClearFlowsRequest) (api.FlowsCleared, error) {
	if r.All != (r.FlowFilter == api.FlowFilter{}) {
		return api.FlowsCleared{}, refused(errors.New("say which flows to forget, or that it is all of them"))
	}
	q, err := d.flowQuery(r.FlowFilter)
	if err != nil {
		return api.FlowsCleared{}, refused(err)
	}
	n, err := d.tc.ClearFlows(ctx, q)
	if n > 0 {
		d.opts.Log.Info("flows were cleared", "flows", n, "filter", fmt.Sprintf("%+v", r.FlowFilter))
	}
	return api.FlowsCleared{Flows: n}, err
}

// flowQuery turns names into what the flow tables know. All that is wrong is said at once.
func (d *Daemon) flowQuery(f api.FlowFilter) (tc.FlowQuery, error) {
	q := tc.FlowQuery{Port: f.Port, State: f.State, Workload: f.Workload, Translated: f.Translated, Workloads: d.flowWorkloads()}
	var errs []error
	var err error
	if q.Prefix, err = captureHost(f.Address); err != nil {
		errs = append(errs, err)
	}
	if f.Protocol != "" {
		if q.Protocol, err = packet.ParseProtocol(f.Protocol); err != nil {
			errs = append(errs, err)
		}
	}
	if f.State != "" && !slices.Contains(tc.FlowStates, f.State) {
		errs = append(errs, fmt.Errorf("there is no state %q: say one of %s", f.State, strings.Join(tc.FlowStates, ", ")))
	}
	if f.Workload != "" && !slices.ContainsFunc(q.Workloads, func(w tc.FlowWorkload) bool { return w.Name == f.Workload }) {
		errs = append(errs, fmt.Errorf("there is no workload %q; `sluice show workloads` lists them", f.Workload))
	}
	if f.Rule != "" {
		if q.Rule, err = d.ruleID(f.Rule); err != nil {
			errs = append(errs, err)
		}
	}
	return q, errors.Join(errs...)
}

// flowWorkloads are the workloads of the live revision.
func (d *Daemon) flowWorkloads() []tc.FlowWorkload {
	var out []tc.FlowWorkload
	for _, w := range d.liveDesired().TC.Generation.Workloads {
		one := tc.FlowWorkload{Name: w.Name, Addresses: w.Addresses}
		if device, err := net.InterfaceByName(w.Interface); err == nil {
			one.Ifindex = device.Index
		}
		out = append(out, one)
	}
	return out
}

// ruleID is the stable id of policy/rule, or of policy/default.
func (d *Daemon) ruleID(name string) (uint32, error) {
	ids := map[string]uint32{}
	for _, p := range d.policies() {
		if p.DefaultID != 0 {
			ids[p.Name+"/"+defaultRule] = p.DefaultID
		}
	}
	for name, r := range d.rulesByName() {
		ids[name] = r.ID
	}
	if id, ok := ids[name]; ok {
		return id, nil
	}
	return 0, unknown("rule", name, slices.Sorted(maps.Keys(ids)), "`sluice show policy` lists them, as policy and name")
}

// flow says in words what the tables know of one.
func (n *names) flow(f tc.Flow) api.Flow {
	out := api.Flow{
		Origin: f.Origin, Protocol: f.ProtocolName(), Source: f.Source(), Destination: f.Destination(), TranslatedTo: f.Wire(),
		State: f.State, AgeSeconds: f.Age.Seconds(), IdleSeconds: f.Idle.Seconds(), Workload: f.Workload,
		Packets: f.Sent.Packets, Bytes: f.Sent.Bytes, AnsweredPackets: f.Answered.Packets, AnsweredBytes: f.Answered.Bytes,
	}
	if f.Workload == "" && f.Owner != 0 {
		out.LAN = n.iface(f.Owner)
	}
	for _, id := range f.Rules {
		if name := n.rule(id).name; name != "" {
			out.Rules = append(out.Rules, name)
		}
	}
	return out
}

// flowWriter turns events of flows into those of the hub.
type flowWriter struct {
	d     *Daemon
	names *names
	unseenStream
}

func (w *flowWriter) event(e tc.FlowEvent) {
	e.Flow.Workload = w.names.workload(e.Flow)
	shown := api.FlowEvent{Change: e.Change, Flow: w.names.flow(e.Flow)}
	w.d.hub.publish(api.Event{Time: w.d.wallClock(e.Time), Type: api.EventFlow, Flow: &shown})
}
