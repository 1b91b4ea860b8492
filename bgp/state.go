package bgp

import (
	"fmt"
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
	FlowSpec  FlowSpec
	BFD       []bfd.Config // sessions with neighbors, sorted by peer; they change without touching the BGP sessions
}

// Neighbor is one session, known by its address. A change of one never touches another. What a change of a field does:
//
//	Name                        nothing: it is a label
//	Limit                       an update; a session that was over it is tried again
//	NextHop4, NextHop6          our prefixes are sent again (no refresh to ask for: what changes is ours)
//	FirstAS                     what it sent is judged again
//	FallOver                    from now on
//	Keepalive, ConnectRetry     an update; the next session keeps alive by it, the next dial waits by it
//	Shutdown, Reason            the session ends with Cease and the reason, or begins; of a session that is down the next Cease says it
//	all others                  a new session: they are in the OPEN (RFC 4271 section 4.2) or of the TCP connection
type Neighbor struct {
	Name       string
	Address    netip.Addr
	Port       uint16 // to dial; 0: 179
	ASN        uint32 // ours: iBGP
	IPv4, IPv6 bool   // unicast families
	FlowSpec4  bool   // ipv4-flowspec: rules are received, never sent
	FlowSpec6  bool   // ipv6-flowspec
	// Blackhole are communities (RFC 1997) that make a route of the neighbor a blackhole; 0: none.
	Blackhole    [4]uint32
	PasswordFile string // MD5 (RFC 2385); read when the session is made, never shown
	HoldTime     time.Duration
	Keepalive    time.Duration // 0: a third of HoldTime
	ConnectRetry time.Duration // 0: 2 s
	RestartTime  time.Duration // RFC 4724; 0: off
	Limit        PrefixLimit
	LocalAddress netip.Addr // source of the session; invalid: the kernel chooses
	Passive      bool       // never dials
	FirstAS      bool       // of eBGP: what does not begin with ASN is not believed (RFC 4271 section 6.3)
	Multihop     uint8      // TTL of what we send to an eBGP neighbor; 0: 1, so it must be on the link
	TTLSecurity  uint8      // packets must have come at most so many hops (RFC 5082); 0: off
	FallOver     bool       // the session ends with the link that the neighbor is on
	Shutdown     bool
	Reason       string     // of a shutdown, in the Cease (RFC 9003)
	NextHop4     netip.Addr // next hop for IPv4 NLRI; invalid: the session's local address
	NextHop6     netip.Addr // next hop for IPv6 NLRI; must be set where the session runs over IPv4

	Doubtful bool // of what is held: a step failed, so it may be anything. Never of what is wanted
}

// PrefixLimit bounds the prefixes of each family. Beyond it the session is shut down, unless Warn.
type PrefixLimit struct {
	Max          uint32 // 0: none
	WarnAt       int    // an event at this percentage of Max; 0: none
	Warn         bool   // an event is all
	RestartAfter time.Duration
}

// Path is a prefix as some neighbors of its family hear it. A prefix may have several, to different neighbors; where two
// name one neighbor, the first in the order of the list counts.
type Path struct {
	Prefix           netip.Prefix
	To               []netip.Addr     // neighbors, sorted; nil: all
	Communities      []uint32         // RFC 1997, sorted
	LargeCommunities []LargeCommunity // RFC 8092, sorted
	LocalPreference  uint32           // in sessions with our own AS; 0: 100. GoBGP's policies cannot set 0
	MED              *uint32          // nil: none
	Prepend          int              // our AS so many times more, in sessions with other ASes
	NextHop          netip.Addr       // of the prefix's family; invalid: as Neighbor says
}

// LargeCommunity is global administrator and two parts of local data.
type LargeCommunity [3]uint32

// String is as RFC 8092 section 5 writes it.
func (l LargeCommunity) String() string { return fmt.Sprintf("%d:%d:%d", l[0], l[1], l[2]) }

// GracefulShutdown asks whoever hears it to use every other path first (RFC 8326); LeastPreference is that in numbers,
// where RFC 8326 says 0.
const (
	GracefulShutdown uint32 = 0xffff0000
	LeastPreference  uint32 = 1
)

// Learn says which routes of neighbors are believed, and which of these go to the kernel. Nothing is believed that no Accept
// matches. GracefulShutdown from a neighbor makes it LeastPreference, whatever the filter sets.
type Learn struct {
	ECMP   int
	Metric int
	Table  int      // of the kernel; 0: main
	Reject []Filter // judged first
	Accept []Filter // the first that matches
	// Tunnels keep learned routes from leading past a strict one, and encrypted packets from being led into one.
	Tunnels []Tunnel
}

// FlowSpec says which rules count, and which blackholes.
type FlowSpec struct {
	AcceptFrom []netip.Addr  // neighbors whose rules need not be valid by the unicast routes, sorted
	MaxRules   int           // 0: none counts
	Keep       time.Duration // how long rules outlive their session
	Blackholes Blackholes
}

// Blackholes says which destinations neighbors may have dropped (RFC 7999), by unicast routes with a community that Neighbor names.
type Blackholes struct {
	AcceptFrom []netip.Addr // sorted
	Max        int
	Keep       time.Duration
	Within     []netip.Prefix // sorted; what is ours
}

// Filter matches what fits all that it says.
type Filter struct {
	PrefixMatch                       // no Prefix: any
	From             []netip.Addr     // neighbors, sorted; nil: any
	ASPath           string           // regular expression, _ is a boundary of an AS number; "": any
	Communities      []uint32         // all of them
	LargeCommunities []LargeCommunity // all of them
	LocalPreference  uint32           // of Accept: what it becomes; 0: left as it is
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
