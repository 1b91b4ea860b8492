package daemon

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"sluice/control/api"
	"sluice/control/compile"
	"sluice/control/config"
	"sluice/tc"
	"sluice/xdp"
	"sluice/xdp/classify"
)

// Show answers a noun with one of the types of package api.
func (d *Daemon) Show(ctx context.Context, noun string) (any, error) {
	switch noun {
	case "status":
		return d.showStatus(ctx)
	case "interfaces":
		return d.showInterfaces(ctx)
	case "policy":
		return d.showPolicy()
	case "drops":
		reasons, err := d.reasons(ctx)
		return slices.DeleteFunc(reasons, func(r api.Reason) bool { return r.Fate != "drop" }), err
	case "reasons":
		return d.reasons(ctx)
	case "sets":
		return d.showSets(), nil
	case "workloads":
		return d.showWorkloads(ctx)
	case "flows":
		return d.Flows(ctx, api.FlowsRequest{})
	case "bgp":
		neighbors, err := d.bgp.Status(ctx)
		return listed(neighbors), err
	case "routes":
		return d.Routes(ctx, api.RoutesRequest{})
	case "sockets":
		return d.showSockets(ctx)
	case "flowspec":
		return d.Filters(ctx, api.FiltersRequest{})
	case "bans":
		return d.Bans(ctx, api.BansRequest{})
	case "tunnels":
		return d.showTunnels(ctx)
	default:
		return nil, refused(fmt.Errorf("%w: %s", api.ErrNoSuchNoun, noun))
	}
}

// atLeast refuses a limit below none.
func atLeast(limit int, of string, such int) error {
	if limit < 0 {
		return fmt.Errorf("limit %d: say how many %s at most, such as %d", limit, of, such)
	}
	return nil
}

// listed makes a JSON list of nothing: [] rather than null.
func listed[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func (d *Daemon) showStatus(ctx context.Context) (api.Status, error) {
	_, live, _ := d.engine.Current()
	s := api.Status{Version: d.opts.Version, Image: d.opts.Image, PID: os.Getpid(), Started: d.started, StateDir: d.opts.StateDir, BPFDir: d.opts.BPFDir, Engine: d.engine.Status()}
	s.Engine.Conditions = listed(s.Engine.Conditions)
	if live.Config != nil {
		s.Node = live.Config.Node.Name
	}
	x, err := d.xdp.Observe(ctx)
	if err != nil {
		return s, err
	}
	t, err := d.tc.Observe(ctx)
	if err != nil {
		return s, err
	}
	if drain := d.shownDrain(d.drain.State()); drain.State != api.DrainNone {
		s.Drain = &drain
	}
	s.XDPGeneration, s.TCGeneration = x.Digest, t.Digest
	s.Boot = d.boot()
	s.Conntrack = shownConntrack(d.conntrack.last())
	if s.Processes, err = d.processes(); err != nil {
		return s, err
	}
	// The rest of the status is no worse for what cannot be told now.
	untold := func(what string, err error) {
		if err != nil {
			s.Engine.Warnings = append(slices.Clone(s.Engine.Warnings), what+": "+err.Error())
		}
	}
	neighbors, err := d.bgp.Status(ctx)
	untold("which BGP neighbors are established is not known now", err)
	if err != nil && live.Config != nil && live.Config.BGP != nil {
		s.Neighbors = len(live.Config.BGP.Neighbors)
	}
	for _, n := range neighbors {
		s.Neighbors++
		if n.State == established {
			s.Established++
		}
	}
	tunnels, err := d.tunnelFacts(ctx)
	untold("tunnels", err)
	s.Tunnels = api.CountTunnels(tunnels.shown())
	return s, nil
}

// showInterfaces lists what the file names: interfaces, workloads' veths and tunnels. In the maintenance state, what there is to be named.
func (d *Daemon) showInterfaces(ctx context.Context) ([]api.Interface, error) {
	links, err := d.host.Status(ctx)
	if err != nil {
		return nil, err
	}
	roots, err := d.xdp.Status(ctx)
	if err != nil {
		return nil, err
	}
	hooks, err := d.tc.Observe(ctx)
	if err != nil {
		return nil, err
	}
	named := namedInterfaces(d.liveConfig())
	if d.maintained.Load() && len(named) == 0 {
		for _, l := range links {
			named = append(named, api.Interface{Name: l.Name})
		}
	}
	out := []api.Interface{}
	for _, i := range named {
		for _, l := range links {
			if l.Name != i.Name {
				continue
			}
			i.Index, i.Up, i.Carrier, i.MTU, i.Driver = l.Index, l.Up, l.Carrier, l.MTU, l.Driver
			i.Addresses = listed(l.Addresses)
			i.RxQueues, i.RxRing, i.TxRing = l.RxQueues, l.RxRing, l.TxRing
			i.RxPackets, i.RxBytes, i.TxPackets, i.TxBytes = l.RX.Packets, l.RX.Bytes, l.TX.Packets, l.TX.Bytes
		}
		for _, r := range roots {
			if r.Interface == i.Name {
				i.XDPMode, i.XDPWhy = string(cmp.Or(r.Mode, xdp.Mode(config.XDPNone))), r.Why
			}
		}
		for _, h := range hooks.Interfaces {
			i.TCX = i.TCX || h.Name == i.Name && h.Role != tc.RoleNone
		}
		out = append(out, i)
	}
	return out, nil
}

// liveConfig is the file's, with the workloads that were added. It is never nil.
func (d *Daemon) liveConfig() *config.Config {
	_, live, desired := d.engine.Current()
	if desired != nil && desired.Config != nil {
		return desired.Config
	}
	if live.Config != nil {
		return live.Config
	}
	return &config.Config{}
}

// liveDesired is never nil.
func (d *Daemon) liveDesired() *compile.Desired {
	if _, _, desired := d.engine.Current(); desired != nil {
		return desired
	}
	return &compile.Desired{}
}

func namedInterfaces(cfg *config.Config) []api.Interface {
	var out []api.Interface
	add := func(name string, role config.Role, mode config.XDPMode) {
		if !slices.ContainsFunc(out, func(i api.Interface) bool { return i.Name == name }) {
			out = append(out, api.Interface{Name: name, Role: string(role), XDPWanted: string(mode), Addresses: []netip.Prefix{}})
		}
	}
	for _, i := range cfg.Interfaces {
		add(i.Name, i.Role, i.XDP)
	}
	for _, w := range cfg.Workloads {
		add(w.Interface, config.RoleWorkload, config.XDPNone)
	}
	for _, t := range cfg.Tunnels {
		add(t.Name, config.RoleTunnel, config.XDPNone)
	}
	return out
}

// policies are those of the live revision, each once, in the order in which packets meet them.
func (d *Daemon) policies() []classify.Policy {
	g := d.liveDesired().TC.Generation // holds all that XDP's does, and the rest
	return g.Policies()
}

func (d *Daemon) showPolicy() ([]api.Policy, error) {
	hits, err := xdp.RuleHits(d.opts.BPFDir)
	if err != nil {
		return nil, err
	}
	beyond := map[uint32]uint64{} // of a limit, by its rule
	for _, l := range d.liveDesired().TC.Generation.Limiters {
		beyond[l.Rule] = hits[l.Beyond].Packets
	}
	out := []api.Policy{}
	for _, p := range d.policies() {
		if p.Name == "" {
			continue
		}
		shown := api.Policy{Name: p.Name, Default: p.Default.String(), Rules: []api.Rule{}}
		if p.DefaultID != 0 {
			shown.DefaultHits = new(shownHits(hits[p.DefaultID]))
		}
		for i := range p.Rules {
			r := &p.Rules[i]
			one := api.Rule{Position: i + 1, ID: r.ID, Name: r.Name, Action: r.Action.String(), Shadow: r.Shadow,
				Match: r.Match(), Hits: shownHits(hits[r.ID])}
			if r.Shadow {
				one.ShadowDrops = beyond[r.ID]
			} else {
				one.LimitDrops = beyond[r.ID]
			}
			shown.Rules = append(shown.Rules, one)
		}
		out = append(out, shown)
	}
	return out, nil
}

func shownHits(h xdp.RuleHit) api.Hits {
	out := api.Hits{Packets: h.Packets, Bytes: h.Bytes}
	if !h.Last.IsZero() {
		out.LastHit = &h.Last
	}
	return out
}
