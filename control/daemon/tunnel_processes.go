package daemon

import (
	"context"

	"sluice/control/tunnel"
	"sluice/crypto/wireguard"
)

// followTunnels repairs tunnels whose process has ended.
func (d *Daemon) followTunnels(ctx context.Context) error {
	for {
		var e wireguard.Event
		select {
		case <-ctx.Done():
			return nil
		case e = <-d.wireguard.Events():
			d.tunnelNotice(tunnel.Event{Kind: tunnel.ProcessLost, Tunnel: e.Tunnel, Text: "its process has ended and is started again" + e.Why})
		}
		if err := d.engine.Reconcile(ctx, "the process of tunnel "+e.Tunnel+" has ended"); err != nil && ctx.Err() == nil {
			d.opts.Log.Error("repair of a tunnel", "error", err)
		}
	}
}
