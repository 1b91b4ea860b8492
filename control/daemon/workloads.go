package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"sluice/control/api"
	"sluice/control/compile"
	"sluice/control/config"
	"sluice/control/engine"
	"sluice/control/host"
	"sluice/control/workload"
	"sluice/tc"
	"sluice/xdp/abi"
)

// maxPolicy bounds the policy of one workload: it is kept with each of many.
const maxPolicy = 1 << 20

// AddWorkloads adds workloads beside those of the file.
func (d *Daemon) AddWorkloads(ctx context.Context, r api.WorkloadAdd) ([]api.WorkloadChange, error) {
	var c workload.Change
	for _, w := range r.Workloads {
		if len(w.Policy) > maxPolicy {
			return nil, refused(fmt.Errorf("workload %s: its policy is larger than %d KiB", w.Name, maxPolicy>>10))
		}
		c.Add = append(c.Add, workload.Spec(w))
	}
	if len(c.Add) == 0 {
		return nil, refused(errors.New("no workload is named"))
	}
	return d.changeWorkloads(ctx, c)
}

// DeleteWorkloads takes back what AddWorkloads did.
func (d *Daemon) DeleteWorkloads(ctx context.Context, r api.WorkloadDelete) ([]api.WorkloadChange, error) {
	if len(r.Names) == 0 {
		return nil, refused(errors.New("no workload is named"))
	}
	return d.changeWorkloads(ctx, workload.Change{Remove: r.Names})
}

func (d *Daemon) changeWorkloads(ctx context.Context, c workload.Change) ([]api.WorkloadChange, error) {
	done, err := d.workloads.Change(ctx, c)
	if err != nil {
		return nil, refused(err)
	}
	out := []api.WorkloadChange{}
	desired := d.liveDesired()
	for _, o := range done {
		change := api.WorkloadChange{Name: o.Name, Change: o.Change}
		if o.Change != workload.Removed {
			change.State, change.Why = workloadState(desired, o.Name)
		}
		out = append(out, change)
	}
	return out, nil
}

// alter is Engine.Alter, for the list of workloads.
func (d *Daemon) alter(ctx context.Context, a engine.Alteration) error {
	err := d.engine.Alter(ctx, a)
	d.works()
	d.forgetGone(ctx)
	d.rulesChanged()
	return err
}

// fileConfig is what the live file says; nil: none is live.
func (d *Daemon) fileConfig() *config.Config {
	_, live, _ := d.engine.Current()
	return live.Config
}

// workloadState says whether the live generation holds a workload.
func workloadState(desired *compile.Desired, name string) (state, why string) {
	for _, r := range desired.Refused {
		if r.Workload == name {
			return api.WorkloadRefused, r.Why
		}
	}
	if slices.ContainsFunc(desired.TC.Generation.Workloads, func(w tc.Workload) bool { return w.Name == name }) {
		return api.WorkloadAttached, ""
	}
	return api.WorkloadWaiting, ""
}

// showWorkloads lists those of the file, then those that were added, be they refused.
func (d *Daemon) showWorkloads(ctx context.Context) ([]api.Workload, error) {
	links, err := d.host.Status(ctx)
	if err != nil {
		return nil, err
	}
	counts, err := d.tc.Counters(ctx)
	if err != nil {
		return nil, err
	}
	desired := d.liveDesired()
	list := slices.Clone(d.liveConfig().Workloads)
	if file := d.fileConfig(); file != nil {
		for _, a := range d.workloads.Added(file) {
			if !slices.ContainsFunc(list, func(w config.Workload) bool { return w.Added && w.Name == a.Name }) {
				a.Workload.Added = true
				list = append(list, a.Workload)
			}
		}
	}
	q, err := d.flowQuery(api.FlowFilter{})
	if err != nil {
		return nil, err
	}
	q.Limit = 1
	flows, err := d.tc.SelectFlows(ctx, q)
	if err != nil {
		return nil, err
	}
	out := []api.Workload{}
	for _, w := range list {
		shown := shownWorkload(w, desired, links, counts)
		shown.Flows = flows.Workloads[w.Name]
		out = append(out, shown)
	}
	return out, nil
}

func shownWorkload(w config.Workload, desired *compile.Desired, links []host.InterfaceStatus, counts tc.Counters) api.Workload {
	shown := api.Workload{
		Name: w.Name, Origin: "file", Interface: w.Interface, Addresses: listed(w.Addresses), Path: string(w.Path),
		Ingress: string(w.Ingress.Default), Egress: string(w.Egress.Default),
		IngressRules: len(w.Ingress.Rules), EgressRules: len(w.Egress.Rules),
	}
	if w.Added {
		shown.Origin = "api"
	}
	shown.SNAT, shown.Bandwidth = w.SNAT.String(), w.Bandwidth
	for _, a := range w.Addresses {
		if w.SNAT.Auto && desired.Announced(a).IsValid() {
			shown.Announced = append(shown.Announced, a)
		}
	}
	shown.State, shown.Why = workloadState(desired, w.Name)
	for _, l := range links {
		if l.Name == w.Interface {
			shown.Present, shown.Index = true, l.Index
			shown.Out = api.Traffic{Packets: l.RX.Packets, Bytes: l.RX.Bytes}
			shown.In = api.Traffic{Packets: l.TX.Packets, Bytes: l.TX.Bytes}
		}
	}
	for _, c := range counts.Interfaces {
		for reason, n := range c.Reasons {
			if c.Name == w.Interface && reason.Fate() == abi.FateDrop {
				shown.Drops.Packets += n.Packets
				shown.Drops.Bytes += n.Bytes
			}
		}
	}
	return shown
}

// forgetGone clears the flows of addresses that no workload has any more, or another one: who gets such an address next must
// not find doors open that the one before opened.
func (d *Daemon) forgetGone(ctx context.Context) {
	now := map[netip.Addr]string{}
	for _, w := range d.liveDesired().TC.Generation.Workloads {
		for _, a := range w.Addresses {
			now[a] = w.Name
		}
	}
	d.endsMu.Lock()
	defer d.endsMu.Unlock()
	gone := map[netip.Addr]bool{}
	for a, name := range d.ends {
		if now[a] != name {
			gone[a] = true
		}
	}
	d.ends = now
	if len(gone) == 0 {
		return
	}
	n, err := d.tc.ClearFlows(ctx, tc.FlowQuery{Ends: gone})
	if err != nil {
		d.opts.Log.Warn("flows of workloads that went are left to time out", "error", err)
	} else if n > 0 {
		d.opts.Log.Info("flows of workloads that went are forgotten", "flows", n)
	}
}
