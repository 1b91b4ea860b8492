// Package flowspec holds traffic filtering rules as BGP carries them (RFC 8955, RFC 8956): their wire form, text, order,
// meaning and validity. It is pure and imports nothing of ours.
package flowspec

import (
	"fmt"
	"net/netip"
)

// Family is the address family of a rule.
type Family uint8

// The families, SAFI 133 each.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// String is the name of the family in the configuration.
func (f Family) String() string { return fmt.Sprintf("ipv%d-flowspec", uint8(f)) }

func (f Family) bits() int {
	if f == IPv4 {
		return 32
	}
	return 128
}

// Type is the type of a component (IANA "Flow Spec Component Types").
type Type uint8

// The types of RFC 8955 section 4.2.2 and RFC 8956 section 3. Of ICMP, each family has its own protocol.
const (
	Destination     Type = 1
	Source          Type = 2
	Protocol        Type = 3 // IPv6: the upper layer's, behind all extension headers
	Port            Type = 4 // of the destination or of the source
	DestinationPort Type = 5
	SourcePort      Type = 6
	ICMPType        Type = 7
	ICMPCode        Type = 8
	TCPFlags        Type = 9
	Length          Type = 10 // of the IP packet, headers included
	DSCP            Type = 11
	Fragment        Type = 12
	FlowLabel       Type = 13 // IPv6 alone
)

// kind says how the values of a type are written.
type kind uint8

const (
	unknown kind = iota
	prefix
	numeric
	bitmask
)

func (t Type) kind(f Family) kind {
	switch {
	case t == Destination || t == Source:
		return prefix
	case t == TCPFlags || t == Fragment:
		return bitmask
	case t >= Protocol && t < FlowLabel, t == FlowLabel && f == IPv6:
		return numeric
	}
	return unknown
}

// octets is the widest value that a type may have: where RFC 8955 says MUST, and else what an operator can say.
func (t Type) octets() int {
	switch t {
	case DSCP, Fragment:
		return 1
	case TCPFlags:
		return 2
	}
	return 8
}

// The bits of an operator (RFC 8955 sections 4.2.1.1 and 4.2.1.2). That of the end of the list is Marshal's business.
const (
	And       uint8 = 0x40 // with the term before; it binds tighter than "or". Meaningless in the first term
	Less      uint8 = 0x04
	Greater   uint8 = 0x02
	Equal     uint8 = 0x01
	Not       uint8 = 0x02 // of a bitmask
	AllBits   uint8 = 0x01 // of a bitmask: every bit is set; otherwise any
	endOfList uint8 = 0x80
	widthBits uint8 = 0x30 // the width of the value, as a power of two
)

// Term is an operator and its value. Op is as on the wire but for the end of the list: the width of the value and reserved
// bits are kept, since rules are told apart and ordered by their octets.
type Term struct {
	Op    uint8
	Value uint64
}

// NewTerm is a term in the narrowest width that holds the value.
func NewTerm(op uint8, value uint64) Term {
	op &^= endOfList | widthBits
	for width := uint8(0); ; width++ {
		if t := (Term{op | width<<4, value}); t.fits() {
			return t
		}
	}
}

func (t Term) octets() int { return 1 << (t.Op & widthBits >> 4) }

func (t Term) fits() bool { return t.octets() == 8 || t.Value>>(8*t.octets()) == 0 }

// Component is one condition. A prefix component has Prefix and Offset, all others Terms.
type Component struct {
	Type   Type
	Prefix netip.Prefix // masked, with no bit set in front of Offset
	Offset uint8        // IPv6: so many leading bits are not compared (RFC 8956 section 3.1)
	Terms  []Term       // at least one
}

// Rule matches the packets of its family that meet all components. They are in ascending order of type, each type once.
type Rule struct {
	Family     Family
	Components []Component
}

// Component returns the one of a type.
func (r Rule) Component(t Type) (Component, bool) {
	for _, c := range r.Components {
		if c.Type == t {
			return c, true
		}
	}
	return Component{}, false
}
