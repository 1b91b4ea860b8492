package packet

import "sluice/xdp/classify"

// Seen is the packet as policies see it, for the reference model, but for the interface.
func (s Spec) Seen() classify.Packet {
	p := classify.Packet{
		Src: s.Src, Dst: s.Dst, Protocol: s.Protocol, TTL: s.ttl(), DSCP: s.DSCP,
		Fragment: s.Fragment, NonFirst: s.Fragment && s.Offset > 0, HasPorts: s.HasPorts(),
	}
	if frame, err := s.Frame(); err == nil {
		p.Length = len(frame) - s.LinkLen()
	}
	if len(s.VLANs) > 0 {
		p.VLAN = s.VLANs[0]
	}
	if s.Protocol == TCP && p.HasPorts {
		p.TCPFlags = s.flags()
	}
	if s.isICMP() && s.Offset == 0 && (s.Protocol == ICMP) == s.Src.Is4() {
		p.HasICMP, p.ICMPType, p.ICMPCode = true, s.ICMPType, s.ICMPCode
	}
	if p.HasPorts {
		p.SrcPort, p.DstPort = s.SrcPort, s.DstPort
	}
	return p
}

// Of is a packet that policies see as p, but for its interface. Where p has no Length it is as short as it can be.
func Of(p classify.Packet) Spec {
	s := Spec{Src: p.Src, Dst: p.Dst, Protocol: p.Protocol, TTL: p.TTL, DSCP: p.DSCP, SrcPort: p.SrcPort, DstPort: p.DstPort,
		TCPFlags: p.TCPFlags, NoTCPFlags: p.TCPFlags == 0, ICMPType: p.ICMPType, ICMPCode: p.ICMPCode,
		Fragment: p.Fragment, More: p.Fragment}
	if p.NonFirst {
		s.Offset = 1480
	}
	if p.VLAN != 0 {
		s.VLANs = []uint16{p.VLAN}
	}
	if p.Length != 0 {
		s.Len = s.LinkLen() + p.Length
	}
	return s
}

func (s Spec) ttl() uint8 {
	if s.TTL == 0 {
		return 64
	}
	return s.TTL
}
