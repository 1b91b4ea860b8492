package flowmodel

import (
	"fmt"
	"net/netip"
	"strings"

	"sluice/xdp/classify"
	"sluice/xdp/packet"
)

// Part says which piece of a datagram a packet is.
type Part uint8

// The parts. A later one shows no transport header.
const (
	Whole Part = iota
	FirstFragment
	LaterFragment
)

// Packet is one IP packet with what flows depend on. Ports are zero where the protocol has none.
type Packet struct {
	Protocol     uint8
	Src, Dst     netip.Addr // of one family
	Sport, Dport uint16
	Flags        uint8  // of TCP, as in package packet
	Seq, Ack     uint32 // of TCP
	Type, Code   uint8  // of ICMP
	ID           uint16 // of an ICMP echo
	Quote        *Packet
	Short        bool // the quote ends eight bytes into its transport header (RFC 792)
	Part         Part
	Datagram     uint16 // identification of a fragment
	NoSum        bool   // UDP over IPv4 without a checksum
	TTL          uint8
	Payload      int // bytes behind the transport header
}

// ICMP types, of both families.
const (
	echoRequest4, echoReply4, unreachable4, exceeded4 = 8, 0, 3, 11
	echoRequest6, echoReply6, unreachable6, tooBig6   = 128, 129, 1, 2
)

// IsICMP says whether the packet's protocol is that of its own family's ICMP.
func (p Packet) IsICMP() bool {
	return p.Protocol == packet.ICMP && p.Src.Is4() || p.Protocol == packet.ICMPv6 && p.Src.Is6()
}

// IsEcho says whether it is an echo request or reply that shows its header.
func (p Packet) IsEcho() bool {
	if !p.IsICMP() || p.Part == LaterFragment {
		return false
	}
	return p.isEchoRequest() || p.Type == echoReply4 && p.Src.Is4() || p.Type == echoReply6 && p.Src.Is6()
}

func (p Packet) isEchoRequest() bool {
	return p.Type == echoRequest4 && p.Src.Is4() || p.Type == echoRequest6 && p.Src.Is6()
}

// IsError says whether it is an ICMP error that quotes a packet.
func (p Packet) IsError() bool { return p.IsICMP() && p.Quote != nil && p.Part != LaterFragment }

// HasPorts says whether its protocol has ports.
func (p Packet) HasPorts() bool {
	return p.Protocol == packet.TCP || p.Protocol == packet.UDP || p.Protocol == packet.SCTP || p.Protocol == packet.UDPLite
}

// Has says whether a TCP packet has any of the flags.
func (p Packet) Has(flags uint8) bool { return p.Protocol == packet.TCP && p.Flags&flags != 0 }

// Ends are its source and destination as flows know them: of an echo, who asked has the id for a port and the other 0.
func (p Packet) Ends() (from, to netip.AddrPort) {
	sport, dport := p.Sport, p.Dport
	switch {
	case !p.HasPorts() && !p.IsEcho():
		sport, dport = 0, 0
	case p.IsEcho() && p.isEchoRequest():
		sport, dport = p.ID, 0
	case p.IsEcho():
		sport, dport = 0, p.ID
	}
	return netip.AddrPortFrom(p.Src, sport), netip.AddrPortFrom(p.Dst, dport)
}

// withSource and withDestination give it another end, in the form of Ends.
func (p Packet) withSource(end netip.AddrPort) Packet {
	p.Src = end.Addr()
	switch {
	case p.IsEcho() && p.isEchoRequest():
		p.ID = end.Port()
	case p.HasPorts() && p.Part != LaterFragment:
		p.Sport = end.Port()
	}
	return p
}

func (p Packet) withDestination(end netip.AddrPort) Packet {
	p.Dst = end.Addr()
	switch {
	case p.IsEcho() && !p.isEchoRequest():
		p.ID = end.Port()
	case p.HasPorts() && p.Part != LaterFragment:
		p.Dport = end.Port()
	}
	return p
}

// Reply is a packet that the other end could send, of the same kind.
func (p Packet) Reply() Packet {
	r := p
	r.Src, r.Dst, r.Sport, r.Dport = p.Dst, p.Src, p.Dport, p.Sport
	r.Seq, r.Ack = p.Ack, p.Seq
	if p.IsEcho() {
		switch p.Type {
		case echoRequest4:
			r.Type = echoReply4
		case echoReply4:
			r.Type = echoRequest4
		case echoRequest6:
			r.Type = echoReply6
		case echoReply6:
			r.Type = echoRequest6
		}
	}
	return r
}

// seen is the packet as policies see it.
func (p Packet) seen() classify.Packet {
	from, to := p.Ends()
	c := classify.Packet{Src: p.Src, Dst: p.Dst, Protocol: p.Protocol, TTL: p.TTL, Fragment: p.Part != Whole,
		NonFirst: p.Part == LaterFragment, Length: len(p.ip())}
	if p.Part == LaterFragment {
		return c
	}
	if c.HasPorts = p.HasPorts(); c.HasPorts {
		c.SrcPort, c.DstPort = from.Port(), to.Port()
	}
	if p.Protocol == packet.TCP {
		c.TCPFlags = p.Flags
	}
	if p.IsICMP() {
		c.HasICMP, c.ICMPType, c.ICMPCode = true, p.Type, p.Code
	}
	return c
}

// String is one readable line.
func (p Packet) String() string {
	var b strings.Builder
	end := func(a netip.Addr, port uint16) string {
		if p.HasPorts() && p.Part != LaterFragment {
			return netip.AddrPortFrom(a, port).String()
		}
		return a.String()
	}
	fmt.Fprintf(&b, "%s %s > %s", packet.ProtocolName(p.Protocol), end(p.Src, p.Sport), end(p.Dst, p.Dport))
	switch {
	case p.Part == LaterFragment:
	case p.Protocol == packet.TCP:
		fmt.Fprintf(&b, " %s seq=%d ack=%d", packet.FlagText(p.Flags), p.Seq, p.Ack)
	case p.IsICMP():
		fmt.Fprintf(&b, " type=%d id=%d", p.Type, p.ID)
	}
	switch p.Part {
	case FirstFragment:
		fmt.Fprintf(&b, " first fragment of %d", p.Datagram)
	case LaterFragment:
		fmt.Fprintf(&b, " later fragment of %d", p.Datagram)
	}
	if p.NoSum {
		b.WriteString(" without checksum")
	}
	if p.TTL != 64 {
		fmt.Fprintf(&b, " ttl=%d", p.TTL)
	}
	if p.Quote != nil {
		short := ""
		if p.Short {
			short = ", 8 bytes of it"
		}
		fmt.Fprintf(&b, " quotes {%s%s}", p.Quote, short)
	}
	return b.String()
}
