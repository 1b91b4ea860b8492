package bgp

import (
	"net/netip"
	"time"

	"sluice/bgp/bfd"
)

// State is what the speaker should hold, or holds. The zero State is no speaker at all.
type State struct {
	ASN       uint32
	RouterID  netip.Addr // IPv4; invalid: no speaker
	Port      uint16     // TCP port to listen on
	Neighbors []Neighbor // sorted by name
	Paths     []Path     // sorted by prefix; what we originate
	Learn     Learn
	BFD       []bfd.Config // sessions with neighbors, sorted by peer; they change without touching the BGP sessions
}

// Neighbor is one session, known by its address. A change of any field but Name and MaxPrefixes needs a new session.
type Neighbor struct {
	Name         string
	Address      netip.Addr
	Port         uint16
	ASN          uint32
	IPv4, IPv6   bool   // unicast families
	PasswordFile string // MD5 (RFC 2385); read when the session is made, never shown
	HoldTime     time.Duration
	RestartTime  time.Duration // RFC 4724; 0: off
	MaxPrefixes  uint32
	LocalAddress netip.Addr // source of the session; invalid: the kernel chooses
	NextHop4     netip.Addr // next hop for IPv4 NLRI; invalid: the session's local address
	NextHop6     netip.Addr // next hop for IPv6 NLRI; must be set where the session runs over IPv4
}

// Path is one prefix that we announce to every neighbor of its family.
type Path struct {
	Prefix      netip.Prefix
	Communities []uint32 // RFC 1997, sorted
}

// Learn says which learned routes go to the kernel. Empty Accept: none.
type Learn struct {
	ECMP   int
	Metric int
	Accept []PrefixMatch
	// Tunnels keep learned routes from leading past a strict one, and encrypted packets from being led into one.
	Tunnels []Tunnel
}

// Tunnel is a device that encrypts what is routed into it.
type Tunnel struct {
	Device    string
	Strict    []netip.Prefix // at or inside these, sorted, only what leads into a device that has them is installed
	Endpoints []netip.Addr   // where its encrypted packets go, sorted
}

// PrefixMatch matches prefixes inside Prefix whose length is between GE and LE, both inclusive.
type PrefixMatch struct {
	Prefix netip.Prefix
	GE, LE int
}
