package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"sluice/control/api"
	"sluice/control/config"
	"sluice/crypto/wireguard"
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
// its sessions with the process. Where the process has died, another is started at once.
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
	switch {
	case d.engine.Status().Down:
		return api.Restarted{}, refused(fmt.Errorf("tunnel %s is taken down with the rest: apply a file first", r.Tunnel))
	case before.PID == 0 && d.inKernel(ctx, conf[i]):
		return api.Restarted{}, refused(fmt.Errorf("tunnel %s has no process of its own: the kernel carries it, and nothing has to be exchanged", r.Tunnel))
	case conf[i].Type == config.TypeIPsec:
		err = d.ipsec.RestartHolder(r.Tunnel)
	case before.PID != 0:
		if err = d.wireguard.Restart(r.Tunnel); errors.Is(err, wireguard.ErrNoProcess) {
			err = nil // it has died meanwhile
		}
	}
	if err == nil && conf[i].Type == config.TypeWireGuard {
		err = d.engine.Reconcile(ctx, "the process of tunnel "+r.Tunnel+" was exchanged")
	}
	if err != nil {
		return api.Restarted{}, err
	}
	now, err := d.processOf(r.Tunnel)
	if err == nil {
		err = exchanged(r.Tunnel, before, now)
	}
	return api.Restarted{Before: before, Now: now}, err
}

// inKernel says that no process carries a tunnel, nor should one.
func (d *Daemon) inKernel(ctx context.Context, t config.Tunnel) bool {
	if t.Type == config.TypeIPsec {
		return t.IPsec.Keying != config.KeyingStatic || t.IPsec.Encapsulation != config.EncapsulationUDP
	}
	links, _ := d.wireguard.Status(ctx) // that one's process is gone is an error there
	i := slices.IndexFunc(links, func(s wireguard.TunnelStatus) bool { return s.Name == t.Name })
	return i >= 0 && links[i].Backend == wireguard.Kernel
}

// exchanged says why what runs now is not what was asked for.
func exchanged(tunnel string, before, now api.Process) error {
	switch {
	case now.PID != 0 && now.PID != before.PID:
		return nil
	case now.PID != 0:
		return fmt.Errorf("tunnel %s: process %d still runs: see the daemon's log", tunnel, now.PID)
	case before.PID != 0:
		return fmt.Errorf("tunnel %s: process %d has ended and no other runs yet: see the daemon's log", tunnel, before.PID)
	}
	return fmt.Errorf("tunnel %s has no process now, and none was started: see `sluice show tunnels` and the daemon's log", tunnel)
}
