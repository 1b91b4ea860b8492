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

func (s Spec) ttl() uint8 {
	if s.TTL == 0 {
		return 64
	}
	return s.TTL
}
