package daemon

import (
	"context"

	"sluice/control/tunnel"
)

// followTunnels repairs tunnels whose process has ended.
func (d *Daemon) followTunnels(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-d.wireguard.Events():
			d.tunnelNotice(tunnel.Event{Kind: tunnel.ProcessLost, Tunnel: e.Tunnel, Text: "its process has ended and is started again" + e.Why})
		}
		if err := d.engine.Reconcile(ctx); err != nil && ctx.Err() == nil {
			d.opts.Log.Error("repair of a tunnel", "error", err)
		}
	}
}
