// Package wireguard owns WireGuard devices: their keys in the kernel, peers, addresses and routes.
package wireguard

import (
	"net/netip"
	"time"

	"sluice/crypto/path"
)

// State is what the subsystem should hold, or holds.
type State struct {
	Tunnels []Tunnel // sorted by name
}

// Backend says who runs the protocol.
type Backend string

// The backends. Auto is only wanted, never observed: the kernel's module where it is there, else userspace.
const (
	Auto      Backend = "auto"
	Kernel    Backend = "kernel"
	Userspace Backend = "userspace"
)

// Tunnel is one device. Secrets are never part of State: PrivateKeyFile is a path, and the key in use is known by its
// PublicKey.
type Tunnel struct {
	Name           string // the interface's
	Down           bool   // only observed: the link is there, but is set down or has nothing that runs it; never wanted
	Backend        Backend
	PrivateKeyFile string
	PublicKey      string         // base64, of the key in PrivateKeyFile; wanted "": that could not be read, and a device keeps the key it has
	ListenPort     uint16         // 0: any
	Local          netip.Addr     // where packets come from that answer none, of userspace alone; invalid: as routed
	Addresses      []netip.Prefix // sorted
	MTU            int            // bytes
	FirewallMark   uint32         // set on the encrypted packets
	Peers          []Peer         // sorted by public key
	Routes         []path.Route   // sorted by prefix
}

// Peer is one peer of a device.
type Peer struct {
	Name             string         // not known to the device: an observed Peer has it from the subsystem's own notes, or ""
	PublicKey        string         // base64
	Endpoint         netip.AddrPort // invalid: learned by roaming
	PresharedKeyFile string         // observed: UnknownKey where the device's key is not the one in a file that we know
	Keepalive        time.Duration  // whole seconds count
	AllowedIPs       []netip.Prefix // sorted
}

// UnknownKey stands for a preshared key that is in the device and whose file is not known. No file has this name.
const UnknownKey = "\x00unknown"
