// Package compile turns a checked configuration into what every subsystem should hold. It is pure: no kernel, no
// network, no clock, no files.
package compile

import (
	"net/netip"

	"sluice/bgp"
	"sluice/control/config"
	"sluice/control/host"
	"sluice/control/node"
	"sluice/crypto/ipsec"
	"sluice/crypto/path"
	"sluice/crypto/wireguard"
	"sluice/tc"
	"sluice/xdp"
)

// Desired is the whole wanted state of the machine.
type Desired struct {
	Host      host.State
	Path      path.State
	WireGuard wireguard.State
	IPsec     ipsec.State
	TC        tc.State
	XDP       xdp.State
	BGP       bgp.State
	Telemetry Telemetry
	Node      node.State // zero but on a node image

	// RuleIDs are the stable ids given to rules, by policy/name. They are an input of the next compilation.
	RuleIDs map[string]uint32
	// Warnings are things that an operator should know and that are no errors.
	Warnings []string
	// Notes say how this machine does what was asked for, and what of it does nothing: for who applies the file, and then no more.
	Notes []string
	// Config is what was compiled: the file's, and behind its workloads the added ones that fit.
	Config *config.Config
	// Refused are the workloads that are left out, those with an interface that is not there yet aside.
	Refused []Refused
	// Missing are the interfaces of the file that are left out until they are there, each with why.
	Missing []string
}

// Telemetry says where the daemon serves its metrics.
type Telemetry struct {
	Metrics netip.AddrPort // invalid: nowhere
}

// Runtime is what the box knows beyond its file: earlier decisions that must stay stable, and objects that were made
// through the API.
type Runtime struct {
	RuleIDs map[string]uint32 // as returned by the compilation before
	Retired map[uint32]bool   // ids that must not be given out yet: their counters are still being read
	Claims  map[string]uint32 // those of Retired that go to their rules again, by policy/name
	// Watched is what watched set files hold, by config.Set.Watched; masked, sorted and distinct. One that is missing
	// here is empty. The lists are not changed, and not copied where a set is nothing else.
	Watched map[string][]netip.Prefix
	// Workloads were made through the API, sorted by name. They claim nothing twice.
	Workloads []Added
	// Tunnels are by name; one that is missing is as the file says.
	Tunnels map[string]TunnelNow
	// Reached are the addresses that bgp.advertise waits for and that answer; nil: nobody has looked.
	Reached map[netip.Addr]bool
	Drain   Drain
	// Accepted says that the file was applied before: what became of workloads and interfaces since is no error of it.
	Accepted bool
}

// TunnelNow is what is found out about a tunnel while it runs, and changes what is wanted of it.
type TunnelNow struct {
	Underlay int                // MTU of the route to the endpoints in use, the smallest, bytes; 0: not known
	Peers    map[string]PeerNow // by name
}

// PeerNow is what is found out about a peer.
type PeerNow struct {
	Endpoint  netip.AddrPort // in use; invalid: the file's first that is an address
	PublicKey string         // WireGuard, in use, base64; "" or one that the file does not have: the file's first
	Down      bool           // its probes fail: its routes are withdrawn (blackholes and the guard stay)
}

// Facts are what the machine told, collected before compiling.
type Facts struct {
	Host       host.Facts
	PublicKeys map[string]string // private key file -> base64 public key; those that can be read
	// Secrets say of key and password files that others may replace them, or that tunnels, sessions and peers would lack them. They are
	// errors of a file that somebody is about to apply alone.
	Secrets config.Errors
	// Certificates say which of tunnels' certificates are not valid now, or not for long.
	Certificates []string
	// Image says that this is a node image, whose host name, clock and logins are the file's.
	Image bool
}

// Remains is what stays of d when the machine is given back: the addresses and routes by which it is managed, and who may log in.
func (d *Desired) Remains() *Desired { return &Desired{Host: d.Host.Kept(), Node: d.Node} }
