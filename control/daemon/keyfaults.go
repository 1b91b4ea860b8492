package daemon

import (
	"slices"
	"strings"

	"sluice/control/compile"
	"sluice/control/config"
	"sluice/control/host"
)

// keyFaults are why the key files of tunnels on this machine, which may not be that which the file is for, are none that apply
// takes: as errors of the file are.
func keyFaults(cfg *config.Config) []string {
	public, faults := readKeys(cfg)
	var out []string
	for _, f := range slices.Concat(faults, compile.OwnKeys(cfg, public)) {
		out = append(out, f.Error())
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
