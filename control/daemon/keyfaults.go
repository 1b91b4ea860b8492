package daemon

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"sluice/control/config"
	"sluice/control/host"
	"sluice/crypto/keys"
)

// keyFaults are why the key files of tunnels on this machine, which may not be that which the file is for, are none that apply
// takes: as errors of the file are.
func keyFaults(cfg *config.Config) []string {
	public, faults, err := readKeys(cfg)
	if err != nil && !errors.As(err, &faults) {
		return []string{err.Error()}
	}
	var out []string
	for _, f := range faults {
		out = append(out, f.Error())
	}
	for n, t := range cfg.Tunnels {
		own, known := public[t.PrivateKeyFile]
		for i, p := range t.Peers {
			if known && slices.Contains(p.PublicKeys, own) {
				out = append(out, fmt.Sprintf("tunnels[%d].peers[%d].public_keys: the public key of private_key_file %s itself; `sluice key show` on the peer prints its own", n, i, t.PrivateKeyFile))
			}
			if t.Type != config.TypeWireGuard || p.PresharedKeyFile == "" {
				continue
			}
			if _, err := keys.Load(p.PresharedKeyFile); err != nil {
				out = append(out, fmt.Sprintf("tunnels[%d].peers[%d].preshared_key_file: %v", n, i, err))
			}
		}
	}
	return out
}

// keyFinding is what the doctor says of them.
func keyFinding(cfg *config.Config) host.Finding {
	faults := keyFaults(cfg)
	if len(faults) == 0 {
		return fine("tunnel-keys", "all key files are there, whole, and nobody else's to read")
	}
	return host.Finding{Name: "tunnel-keys", Status: host.StatusMissing, Detail: strings.Join(faults, "; "),
		Cost: "apply refuses the file, or the tunnel's peer is never reached", Fix: "see there; `sluice key` makes key files"}
}
