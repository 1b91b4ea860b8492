package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

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
	h.NoDevices = host.DevicesLacking(compile.LooksAtDevices(cfg))
	d.tunnels.Measure(ctx, cfg)
	public, exposed, err := readKeys(cfg)
	return compile.Facts{Host: h, PublicKeys: public, ExposedKeys: exposed}, err
}

// readKeys reads the key files that tunnels cannot be without, and returns the public halves of WireGuard's. Errors are
// config.Errors: they stand where a file is named. Those in exposed are none for a file that was accepted before.
func readKeys(cfg *config.Config) (public map[string]string, exposed config.Errors, _ error) {
	public = map[string]string{}
	var errs config.Errors
	fail := func(pos config.Pos, err error, path string, at ...any) {
		errs = append(errs, config.Error{Pos: pos, Path: fmt.Sprintf(path, at...), Msg: err.Error()})
	}
	for n, t := range cfg.Tunnels {
		if t.Type == config.TypeIPsec {
			for i, p := range t.Peers {
				if key, err := readSecret(t, p); err != nil {
					fail(p.Pos, err, "tunnels[%d].peers[%d].%s", n, i, key)
				}
			}
			continue
		}
		key, err := keys.PublicKey(t.PrivateKeyFile)
		if err != nil {
			fail(t.Pos, err, "tunnels[%d].wireguard.private_key_file", n)
			continue
		}
		public[t.PrivateKeyFile] = key
	}
	if len(errs) > 0 {
		return public, nil, errs
	}
	return public, exposedKeys(cfg), nil
}

// exposedKeys are the key files that others may replace.
func exposedKeys(cfg *config.Config) config.Errors {
	var out config.Errors
	look := func(pos config.Pos, file, path string, at ...any) {
		if err := keys.CheckPlace(file); errors.Is(err, keys.ErrExposed) {
			out = append(out, config.Error{Pos: pos, Path: fmt.Sprintf(path, at...), Msg: err.Error()})
		}
	}
	for n, t := range cfg.Tunnels {
		if t.PrivateKeyFile != "" {
			look(t.Pos, t.PrivateKeyFile, "tunnels[%d].wireguard.private_key_file", n)
		}
		for i, p := range t.Peers {
			for key, file := range map[string]string{"master_key_file": p.MasterKeyFile, "preshared_key_file": p.PresharedKeyFile} {
				if file != "" {
					look(p.Pos, file, "tunnels[%d].peers[%d].%s", n, i, key)
				}
			}
		}
	}
	return out
}

// readSecret reads what a peer of IPsec shares with this node; key is the file's.
func readSecret(t config.Tunnel, p config.Peer) (key string, err error) {
	key, file, verb := "master_key_file", p.MasterKeyFile, "master"
	if t.IPsec.Keying == config.KeyingIKE {
		key, file, verb = "preshared_key_file", p.PresharedKeyFile, "psk"
	}
	_, err = keys.Load(file)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("key file %s does not exist; copy it from the other end, or make one for both: sluice key %s %s", file, verb, file)
	}
	return key, err
}
