package flowspec

import "net/netip"

// IP protocol numbers (IANA).
const (
	protocolICMP   = 1
	protocolTCP    = 6
	protocolUDP    = 17
	protocolICMPv6 = 58
)

// The bits of a fragment component (RFC 8955 section 4.2.2.12). IPv6 has no "don't fragment".
const (
	DontFragment  uint64 = 1 << iota
	IsFragment           // a fragment other than the first
	FirstFragment        // with more to come
	LastFragment         // other than the first, with none to come
)

// Packet is what a rule can see of one.
type Packet struct {
	Src, Dst     netip.Addr // without zone
	Protocol     uint8      // IPv6: the upper layer's
	Length       uint32     // of the IP packet, headers included
	DSCP         uint8
	FlowLabel    uint32
	DontFragment bool // IPv4's flag
	Later        bool // a fragment other than the first: it has no transport header
	More         bool // fragments follow

	// Transport says that the header of TCP, UDP or ICMP was found and could be read.
	Transport          bool
	SrcPort, DstPort   uint16
	ICMPType, ICMPCode uint8
	TCPFlags           uint16 // octets 13 and 14 of the header, without the data offset
}

// Match is the reference model: component after component, as the RFCs tell it.
func (r Rule) Match(p Packet) bool {
	if p.Dst.Is4() != (r.Family == IPv4) || len(r.Components) == 0 {
		return false
	}
	for _, c := range r.Components {
		if !c.match(r.Family, p) {
			return false
		}
	}
	return true
}

func (c Component) match(f Family, p Packet) bool {
	// What asks for the transport header never matches where there is none of its kind (RFC 8955 section 4.2.2.4 on).
	transport := p.Transport && !p.Later
	ports := transport && (p.Protocol == protocolTCP || p.Protocol == protocolUDP)
	icmp := transport && p.Protocol == icmpOf(f)
	switch c.Type {
	case Destination:
		return c.contains(p.Dst)
	case Source:
		return c.contains(p.Src)
	case Protocol:
		return c.Holds(uint64(p.Protocol))
	case Port:
		return ports && (c.Holds(uint64(p.DstPort)) || c.Holds(uint64(p.SrcPort)))
	case DestinationPort:
		return ports && c.Holds(uint64(p.DstPort))
	case SourcePort:
		return ports && c.Holds(uint64(p.SrcPort))
	case ICMPType:
		return icmp && c.Holds(uint64(p.ICMPType))
	case ICMPCode:
		return icmp && c.Holds(uint64(p.ICMPCode))
	case TCPFlags:
		return transport && p.Protocol == protocolTCP && c.Holds(uint64(p.TCPFlags))
	case Length:
		return c.Holds(uint64(p.Length))
	case DSCP:
		return c.Holds(uint64(p.DSCP))
	case Fragment:
		return c.Holds(p.fragment(f))
	case FlowLabel:
		return f == IPv6 && c.Holds(uint64(p.FlowLabel))
	}
	return false
}

func icmpOf(f Family) uint8 {
	if f == IPv4 {
		return protocolICMP
	}
	return protocolICMPv6
}

func (p Packet) fragment(f Family) (bits uint64) {
	if p.DontFragment && f == IPv4 {
		bits |= DontFragment
	}
	switch {
	case p.Later && p.More:
		bits |= IsFragment
	case p.Later:
		bits |= IsFragment | LastFragment
	case p.More:
		bits |= FirstFragment
	}
	return bits
}

// contains compares the bits from the offset to the length.
func (c Component) contains(a netip.Addr) bool {
	bytes := a.AsSlice()
	for i := range bytes {
		switch skip := int(c.Offset) - 8*i; {
		case skip >= 8:
			bytes[i] = 0
		case skip > 0:
			bytes[i] &= 0xff >> skip
		}
	}
	rest, _ := netip.AddrFromSlice(bytes)
	return c.Prefix.Contains(rest)
}

// Holds reports whether a value of the packet's meets the terms of a component: alternatives of conjunctions.
func (c Component) Holds(value uint64) bool {
	all := true // of the conjunction so far
	for i, t := range c.Terms {
		if i > 0 && t.Op&And == 0 {
			if all {
				return true
			}
			all = true
		}
		all = all && t.holds(c.Type, value)
	}
	return all && len(c.Terms) > 0
}

func (t Term) holds(of Type, value uint64) bool {
	switch of {
	case TCPFlags, Fragment:
		mask := t.mask(of)
		set := value&mask != 0
		if t.Op&AllBits != 0 {
			set = value&mask == mask
		}
		return set != (t.Op&Not != 0)
	}
	want := t.mask(of)
	return t.Op&Less != 0 && value < want || t.Op&Greater != 0 && value > want || t.Op&Equal != 0 && value == want
}

// mask is the value without the bits that its type ignores: the data offset in 2 octets of TCP flags, all above 6 bits of
// a DSCP.
func (t Term) mask(of Type) uint64 {
	switch of {
	case TCPFlags:
		return t.Value & 0x0fff
	case DSCP:
		return t.Value & 0x3f
	}
	return t.Value
}
