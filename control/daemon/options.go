// Package daemon is the composition root: it builds the subsystems, binds them to the engine, adapts their events, and
// serves the API. It alone knows every room of the house by name.
package daemon

import (
	"log/slog"
)

// The defaults of the process settings.
const (
	DefaultFile     = "/etc/sluice/sluice.yaml"
	DefaultStateDir = "/var/lib/sluice"
	DefaultBPFDir   = "/sys/fs/bpf/sluice"
	DefaultSocket   = "/run/sluice/sluice.sock"

	DefaultResolvConf = "/etc/resolv.conf"
)

// Options are the process settings. They make instances independent of each other.
type Options struct {
	File     string // the candidate on first start; see engine.Start
	StateDir string
	BPFDir   string // on a bpffs
	Socket   string
	Version  string
	Log      *slog.Logger

	// Maintenance has the daemon go on where no revision can be brought about: see maintain.
	Maintenance bool
	// Image is the version of the node image that this machine is; "": it is none.
	Image string

	// TunnelCommand runs one userspace WireGuard device: a program and its first words, see wireguard.Options.
	TunnelCommand []string
	// BFDCommand runs the process that holds BFD sessions, see bfd.NewKeeper.
	BFDCommand []string
	// ResolvConf names the DNS servers where the configuration does not, in the form of resolv.conf(5).
	ResolvConf string
}
