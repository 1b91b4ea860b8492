package daemon

import (
	"context"
	"fmt"
	"slices"

	"sluice/control/api"
	"sluice/control/config"
)

// processes are those that live on when the daemon ends, tunnels' own first.
func (d *Daemon) processes() ([]api.Process, error) {
	out := []api.Process{}
	for _, p := range d.wireguard.Processes() {
		out = append(out, api.Process{Tunnels: []string{p.Tunnel}, PID: p.PID, Version: p.Program})
	}
	holders, err := d.ipsec.Holders()
	for _, h := range holders {
		out = append(out, api.Process{Tunnels: h.Tunnels, Holds: h.Local.String(), PID: h.PID, Version: h.Program})
	}
	return out, err
}

// processOf is the one of a tunnel.
func (d *Daemon) processOf(tunnel string) (api.Process, error) {
	all, err := d.processes()
	i := slices.IndexFunc(all, func(p api.Process) bool { return slices.Contains(p.Tunnels, tunnel) })
	if err != nil || i < 0 {
		return api.Process{}, err
	}
	return all[i], nil
}

// RestartTunnel exchanges the process of a tunnel for one of this version. It is never done unasked: a userspace tunnel loses
// its sessions with the process.
func (d *Daemon) RestartTunnel(ctx context.Context, r api.RestartRequest) (api.Restarted, error) {
	conf := d.liveConfig().Tunnels
	i := slices.IndexFunc(conf, func(t config.Tunnel) bool { return t.Name == r.Tunnel })
	if i < 0 {
		return api.Restarted{}, refused(fmt.Errorf("there is no tunnel %q; `sluice show tunnels` lists them", r.Tunnel))
	}
	before, err := d.processOf(r.Tunnel)
	if err != nil {
		return api.Restarted{}, err
	}
	if before.PID == 0 {
		return api.Restarted{}, refused(fmt.Errorf("tunnel %s has no process of its own: the kernel carries it, and nothing has to be exchanged", r.Tunnel))
	}
	if conf[i].Type == config.TypeIPsec {
		err = d.ipsec.RestartHolder(r.Tunnel)
	} else if err = d.wireguard.Restart(r.Tunnel); err == nil {
		err = d.engine.Reconcile(ctx)
	}
	if err != nil {
		return api.Restarted{}, err
	}
	now, err := d.processOf(r.Tunnel)
	if err == nil && (now.PID == 0 || now.PID == before.PID) {
		err = fmt.Errorf("tunnel %s: process %d has ended and no other runs yet: see the daemon's log", r.Tunnel, before.PID)
	}
	return api.Restarted{Before: before, Now: now}, err
}
