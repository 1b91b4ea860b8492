package daemon

import (
	"context"
	"fmt"

	"sluice/control/compile"
	"sluice/control/config"
	"sluice/control/host"
	"sluice/crypto/keys"
)

// facts are what the compiler wants to know of the machine: its links, and the public halves of the tunnels' keys.
func (d *Daemon) facts(ctx context.Context, cfg *config.Config) (compile.Facts, error) {
	h, err := d.host.GatherFacts(ctx)
	if err != nil {
		return compile.Facts{}, err
	}
	if h.Behind, err = host.WorkloadsBehind(ctx, compile.LooksBehind(cfg, d.workloads.Added(cfg))); err != nil {
		return compile.Facts{}, err
	}
	if h.Receivers, err = host.ReceiversOf(ctx, compile.LooksAtTags(cfg)); err != nil {
		return compile.Facts{}, err
	}
	if h.Queues, err = host.QueuesOf(ctx, compile.LooksAtQueues(cfg, d.workloads.Added(cfg))); err != nil {
		return compile.Facts{}, err
	}
	public, err := publicKeys(cfg)
	return compile.Facts{Host: h, PublicKeys: public}, err
}

// publicKeys reads every key file that cfg names. Errors are config.Errors: they stand at the tunnel that names it.
func publicKeys(cfg *config.Config) (map[string]string, error) {
	public := map[string]string{}
	var errs config.Errors
	for n, t := range cfg.Tunnels {
		key, err := keys.PublicKey(t.PrivateKeyFile)
		if err != nil {
			errs = append(errs, config.Error{
				Pos: t.Pos, Path: fmt.Sprintf("tunnels[%d].wireguard.private_key_file", n), Msg: err.Error(),
			})
			continue
		}
		public[t.PrivateKeyFile] = key
	}
	if len(errs) > 0 {
		return nil, errs
	}
	return public, nil
}
