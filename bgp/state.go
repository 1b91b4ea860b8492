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

// Neighbor is one session, known by its address. A change of one never touches another. What a change of a field does:
//
//	Name                        nothing: it is a label
//	Limit                       an update; a session that was over it is tried again
//	NextHop4, NextHop6          our prefixes are sent again (no refresh to ask for: what changes is ours)
//	Keepalive, ConnectRetry     an update; the next session keeps alive by it, the next dial waits by it
//	Shutdown, Reason            the session ends with Cease and the reason, or begins; of a session that is down the next Cease says it
//	all others                  a new session: they are in the OPEN (RFC 4271 section 4.2) or of the TCP connection
type Neighbor struct {
	Name         string
	Address      netip.Addr
	Port         uint16 // to dial; 0: 179
	ASN          uint32 // ours: iBGP
	IPv4, IPv6   bool   // unicast families
	PasswordFile string // MD5 (RFC 2385); read when the session is made, never shown
	HoldTime     time.Duration
	Keepalive    time.Duration // 0: a third of HoldTime
	ConnectRetry time.Duration // 0: 2 s
	RestartTime  time.Duration // RFC 4724; 0: off
	Limit        PrefixLimit
	LocalAddress netip.Addr // source of the session; invalid: the kernel chooses
	Passive      bool       // never dials
	Multihop     uint8      // TTL of what we send to an eBGP neighbor; 0: 1, so it must be on the link
	TTLSecurity  uint8      // packets must have come at most so many hops (RFC 5082); 0: off
	Shutdown     bool
	Reason       string     // of a shutdown, in the Cease (RFC 9003)
	NextHop4     netip.Addr // next hop for IPv4 NLRI; invalid: the session's local address
	NextHop6     netip.Addr // next hop for IPv6 NLRI; must be set where the session runs over IPv4
}

// PrefixLimit bounds the prefixes of each family. Beyond it the session is shut down, unless Warn.
type PrefixLimit struct {
	Max          uint32 // 0: none
	WarnAt       int    // an event at this percentage of Max; 0: none
	Warn         bool   // an event is all
	RestartAfter time.Duration
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
