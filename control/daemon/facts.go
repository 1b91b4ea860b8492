package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"sluice/bgp"
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
	if h.OnLink, err = host.OnLink(ctx, compile.LooksAtHops(cfg)); err != nil {
		return compile.Facts{}, err
	}
	h.NoDevices = host.DevicesLacking(compile.LooksAtDevices(cfg))
	if err = hardwareFacts(ctx, cfg, &h); err != nil {
		return compile.Facts{}, err
	}
	d.tunnels.Measure(ctx, cfg)
	public, faults := readKeys(cfg)
	return compile.Facts{Host: h, PublicKeys: public, Secrets: faults, Certificates: certificateWarnings(cfg, time.Now()), Image: d.opts.Image != ""}, nil
}

// hardwareFacts are those of NICs and CPUs.
func hardwareFacts(ctx context.Context, cfg *config.Config, h *host.Facts) (err error) {
	if h.NICs, err = host.NICsOf(ctx, compile.LooksAtNICs(cfg)); err == nil && compile.LooksAtProcessors(cfg) {
		h.Processors, err = host.ProcessorsHere()
	}
	return err
}

// readKeys reads the key files that tunnels cannot be without, and returns the public halves of WireGuard's. The errors stand where a
// file is named; of a file that was accepted before they are none: the steps of a tunnel whose key cannot be read fail, and no others.
func readKeys(cfg *config.Config) (public map[string]string, errs config.Errors) {
	public = map[string]string{}
	fail := func(pos config.Pos, err error, path string, at ...any) {
		errs = append(errs, config.Error{Pos: pos, Path: fmt.Sprintf(path, at...), Msg: err.Error()})
	}
	for n, t := range cfg.Tunnels {
		switch {
		case t.Type == config.TypeIPsec && t.IPsec.Auth != nil:
			for _, f := range readCertificates(t).faults {
				fail(f.pos, f.err, "tunnels[%d].ipsec.%s", n, f.key)
			}
		case t.Type == config.TypeIPsec:
			for i, p := range t.Peers {
				if key, pos, err := readSecret(t, p); err != nil {
					fail(pos, err, "tunnels[%d].peers[%d].%s", n, i, key)
				}
			}
		default:
			key, err := keys.PublicKey(t.PrivateKeyFile)
			if err != nil {
				fail(t.PrivateKeyPos, err, "tunnels[%d].wireguard.private_key_file", n)
				continue
			}
			public[t.PrivateKeyFile] = key
		}
	}
	clean := len(errs) == 0
	errs = append(errs, unreadSecrets(cfg)...)
	if clean { // else what is wrong with a file would be told twice
		errs = append(errs, exposedKeys(cfg)...)
	}
	return public, errs
}

// unreadSecrets are the files that one peer or one neighbor cannot do without: their steps would fail.
func unreadSecrets(cfg *config.Config) config.Errors {
	var out config.Errors
	for n, t := range cfg.Tunnels {
		for i, p := range t.Peers {
			if t.Type != config.TypeWireGuard || p.PresharedKeyFile == "" {
				continue
			}
			if _, err := keys.Load(p.PresharedKeyFile); err != nil {
				out = append(out, config.Error{Pos: p.PresharedKeyPos, Path: fmt.Sprintf("tunnels[%d].peers[%d].preshared_key_file", n, i), Msg: err.Error()})
			}
		}
	}
	if cfg.BGP == nil {
		return out
	}
	for i, n := range cfg.BGP.Neighbors {
		if err := bgp.CheckPassword(n.PasswordFile); err != nil {
			out = append(out, config.Error{Pos: n.Pos, Path: fmt.Sprintf("bgp.neighbors[%d].password_file", i), Msg: err.Error()})
		}
	}
	return out
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
			look(t.PrivateKeyPos, t.PrivateKeyFile, "tunnels[%d].wireguard.private_key_file", n)
		}
		if t.IPsec != nil && t.IPsec.Auth != nil {
			// Who exchanges a CA is let in by anybody whom that one names.
			a := t.IPsec.Auth
			look(a.PrivateKeyPos, a.PrivateKeyFile, "tunnels[%d].ipsec.auth.private_key_file", n)
			for i, file := range a.CAFiles {
				look(a.CAPos[i], file, "tunnels[%d].ipsec.auth.ca_files[%d]", n, i)
			}
		}
		for i, p := range t.Peers {
			if p.MasterKeyFile != "" {
				look(p.MasterKeyPos, p.MasterKeyFile, "tunnels[%d].peers[%d].master_key_file", n, i)
			}
			if p.PresharedKeyFile != "" {
				look(p.PresharedKeyPos, p.PresharedKeyFile, "tunnels[%d].peers[%d].preshared_key_file", n, i)
			}
		}
	}
	return out
}

// readSecret reads what a peer of IPsec shares with this node; key is the file's, and pos is where it is named.
func readSecret(t config.Tunnel, p config.Peer) (key string, pos config.Pos, err error) {
	key, pos, file, verb := "master_key_file", p.MasterKeyPos, p.MasterKeyFile, "master"
	if t.IPsec.Keying == config.KeyingIKE {
		key, pos, file, verb = "preshared_key_file", p.PresharedKeyPos, p.PresharedKeyFile, "psk"
	}
	_, err = keys.Load(file)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("key file %s does not exist; copy it from the other end, or make one for both: sluice key %s %s", file, verb, file)
	}
	return key, pos, err
}
