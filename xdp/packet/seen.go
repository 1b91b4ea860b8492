package packet

import "sluice/xdp/classify"

// Seen is the packet as policies see it, for the reference model.
func (s Spec) Seen() classify.Packet {
	p := classify.Packet{
		Src: s.Src, Dst: s.Dst, Protocol: s.Protocol, TTL: s.ttl(),
		Fragment: s.Fragment, NonFirst: s.Fragment && s.Offset > 0, HasPorts: s.HasPorts(),
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
