// Package ipsec owns ESP tunnels: one xfrm interface each, and towards every peer the kernel's states (security
// associations) and policies, with addresses and routes. Keys are derived from a master secret and an epoch (keying
// "static"); the epochs are the Driver's own, kept in the state directory, and no part of State.
package ipsec

import (
	"net/netip"
	"time"

	"sluice/crypto/ike"
	"sluice/crypto/path"
)

// State is what the subsystem should hold, or holds.
type State struct {
	Tunnels []Tunnel // sorted by name
}

// Keying says where the keys of a tunnel come from.
type Keying string

// The keyings.
const (
	Static Keying = "static" // derived from a master secret that both ends have
	IKE    Keying = "ike"    // negotiated by strongSwan's charon
)

// Encapsulation says what ESP is carried in.
type Encapsulation string

// The encapsulations. Static keying cannot detect a NAT, so for it Auto is None.
const (
	Auto Encapsulation = "auto"
	None Encapsulation = "none"
	UDP  Encapsulation = "udp" // RFC 3948
)

// DefaultPort is UDP encapsulation's where Local or an Endpoint has port 0.
const DefaultPort = 4500

// Tunnel is one xfrm interface with its peers. Secrets are never part of State: only paths of their files are.
type Tunnel struct {
	// Name is the interface's. An observed Name that begins with "#" is an if_id of ours that belongs to no tunnel known here.
	Name          string
	Down          bool           // only observed: the link is missing or down, or nobody holds the UDP port; never wanted
	Local         netip.AddrPort // the address is required; the port is UDP encapsulation's
	Addresses     []netip.Prefix // sorted
	MTU           int            // bytes; 0: 1400 for a new link, and what is there
	FirewallMark  uint32         // set on the encrypted packets
	Keying        Keying
	ID            string // the local identity that keys are derived for
	Encapsulation Encapsulation
	ReplayWindow  int           // packets, 1 to 4096
	Rekey         time.Duration // how long an epoch is sent in; 0: until 2^31 packets

	// IKE only.
	Charon                     string // path of charon's VICI socket
	IKEProposals, ESPProposals []string
	// Certificates prove who is who; nil: the peers' secrets do. What their files hold is no part of State: package ike follows it.
	Certificates *Certificates

	Peers  []Peer       // sorted by name
	Routes []path.Route // sorted by prefix
}

// Certificates are the files by which ends prove to charon who they are.
type Certificates = ike.Certificates

// Peer is one peer of a tunnel.
type Peer struct {
	// Name identifies the peer. An observed Name that begins with "#" is a reqid of ours that belongs to no peer known here.
	Name       string
	Down       bool           // only observed: states or policies are missing or are not as they should be; never wanted
	ID         string         // the identity of the other end
	Endpoint   netip.AddrPort // of the same family as the tunnel's Local
	SecretFile string         // the master secret, as crypto/keys reads it; "" where the tunnel has Certificates
	Prefixes   []netip.Prefix // what may be sent to the peer and come from it, sorted
}

// port is p's, or the default.
func port(p netip.AddrPort) uint16 {
	if p.Port() == 0 {
		return DefaultPort
	}
	return p.Port()
}

// udp says whether this driver carries the tunnel's ESP in UDP; for keying IKE charon does, and holds the port.
func (t Tunnel) udp() bool { return t.Encapsulation == UDP && t.Keying != IKE }
