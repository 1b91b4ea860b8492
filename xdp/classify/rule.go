// Package classify turns ordered first-match policies over prefixes, protocols and ports into lookup tables
// for the XDP and tcx programs, and holds the reference model that every table is checked against.
//
// The door of the package is small so that what stands behind it can be replaced: Compile makes Tables,
// Tables.Eval judges a packet as the C code does with the same tables, and Judge judges it the slow, obvious way.
package classify

import (
	"fmt"
	"net/netip"
)

// Action is what a rule or a default does. The values equal enum action in abi.h.
type Action uint8

// The actions. Continue, as a policy's default, means that the policy does not decide.
const (
	Continue Action = iota
	Accept
	Drop
	Limit     // accepts what conforms to a rate, drops the rest
	SYNCookie // answers a SYN, accepts the rest
	Bypass    // hands the packet to an AF_XDP socket
)

// String is the word of the file.
func (a Action) String() string {
	words := [...]string{"continue", "accept", "drop", "limit", "syn_cookie", "bypass"}
	if int(a) < len(words) {
		return words[a]
	}
	return fmt.Sprintf("action-%d", uint8(a))
}

// Fragments says what happens to non-first fragments that a rule with ports could have matched.
type Fragments uint8

// FragDefault: the fate of the policy's default, with a reason of its own. FragAccept: passed there.
// FragDrop: every fragment of a packet that reaches the policy is dropped. FragTrack: the fate of the first fragment of their
// datagram, and where the program does not know that, as FragDefault. What it remembers is its own: here the two are one.
const (
	FragDefault Fragments = iota
	FragAccept
	FragDrop
	FragTrack
)

// AnyProtocol in Rule.Protocol matches every protocol.
const AnyProtocol = -1

// Rule is one rule with every name resolved. A nil address list matches every address of both families; an empty
// non-nil list (an empty set) matches nothing.
type Rule struct {
	ID          uint32 // stable id, index of the counters; 0 is never used
	Name        string // "no-bogons"; shown as policy/name
	From, To    []netip.Prefix
	NotFrom     []netip.Prefix // nil or empty: excludes nothing
	NotTo       []netip.Prefix
	Protocol    int         // IP protocol number or AnyProtocol
	Ports       []PortRange // destination; nil: any
	SourcePorts []PortRange
	TCPMask     uint8       // of byte 13 of the TCP header: which flags are compared; 0: none. Needs protocol TCP
	TCPFlags    uint8       // what they must be, within TCPMask
	ICMPTypes   []ICMPRange // nil: any. Needs protocol ICMP or ICMPv6
	Fragment    FragmentMatch
	VLANs       []Range     // of the outermost id, 0: untagged; nil: any
	Lengths     []Range     // bytes of the IP packet, headers included; 65535 stands for all above, too; nil: any
	DSCP        uint64      // a bit for each code point; 0: any
	TTL         uint8       // 0: any; else the TTL or hop limit must equal it (GTSM, RFC 5082)
	Interfaces  []Interface // where it comes in, at egress where it leaves; nil: any
	Action      Action
	Argument    uint32 // of the action: which limiter, which socket
	Sample      uint32 // one in so many packets is logged; 0: none
	Shadow      bool   // counts and continues
}

// Policy is an ordered list of rules and what happens when none acts.
type Policy struct {
	Name      string // "failsafe", "system", "ingress", "egress", "workload/web-1/ingress"
	Rules     []Rule
	Default   Action
	DefaultID uint32 // stable id of the default's counters; 0: it is not counted
	Fragments Fragments
}

// IDs returns how many counters the policies need: their highest stable id + 1.
func IDs(policies []Policy, limiters ...Limiter) uint32 {
	var highest uint32
	for i := range policies {
		p := &policies[i]
		highest = max(highest, p.DefaultID)
		for j := range p.Rules {
			highest = max(highest, p.Rules[j].ID)
		}
	}
	for _, l := range limiters {
		highest = max(highest, l.Rule, l.Beyond)
	}
	return highest + 1
}

// Packet is what a policy can see of a packet. Ports are zero where the protocol has none or the packet is a
// non-first fragment; for ICMP they carry what flow.h says, and no rule with ports matches it.
type Packet struct {
	Src, Dst         netip.Addr // of one family, without zone; an IPv4-mapped IPv6 address is an IPv6 address
	Protocol         uint8
	SrcPort, DstPort uint16 // host byte order
	HasPorts         bool
	TCPFlags         uint8 // byte 13 of the TCP header; 0 where there is none
	HasICMP          bool  // ICMP of the packet's own family, whose type and code can be seen
	ICMPType         uint8
	ICMPCode         uint8
	Fragment         bool   // any fragment of a larger packet
	NonFirst         bool   // a fragment whose offset is not 0
	VLAN             uint16 // outermost id; 0: untagged
	Length           int    // bytes of the IP packet, headers included
	DSCP             uint8  // 6 bits
	TTL              uint8
	Ifindex          uint32 // where it comes in, at egress where it leaves
}

// Decision is the outcome of one policy for one packet.
type Decision struct {
	Action  Action // Continue where the policy's default is Continue and no rule acted
	Reason  Reason
	Rule    uint32   // stable id of the acting rule; 0: none acted
	Shadows []uint32 // ids of the shadow rules that matched before, in order
}

// Reason says which of a policy's ways led to the decision. The caller maps it to its enum reason.
type Reason uint8

// The ways to a decision.
const (
	ByRule Reason = iota
	ByDefault
	ByFragment     // a non-first fragment that a rule with ports could have matched, given the default's fate
	ByFragmentRule // fragments: accept or drop decided
)
