package flowmodel

import (
	"encoding/binary"

	"sluice/xdp/packet"
)

// Frame is the packet in an Ethernet frame to mac, every length and checksum made anew. A fragment's transport checksum
// is that of what it carries: whoever rewrites it changes it by the difference alone, so this is as good as any.
func (p Packet) Frame(mac []byte) []byte {
	frame := append(append([]byte{}, mac...), 2, 0, 0, 0, 0, 1)
	ethertype := uint16(0x0800)
	if p.Src.Is6() {
		ethertype = 0x86dd
	}
	return append(binary.BigEndian.AppendUint16(frame, ethertype), p.ip()...)
}

const fragmentHeader = 44 // IPv6's protocol number

// ip is the packet from its IP header on.
func (p Packet) ip() []byte {
	body := p.transport()
	if p.Src.Is4() {
		h := make([]byte, 20)
		h[0], h[8], h[9] = 0x45, p.TTL, p.Protocol
		binary.BigEndian.PutUint16(h[2:], uint16(20+len(body)))
		binary.BigEndian.PutUint16(h[4:], p.Datagram)
		switch p.Part {
		case FirstFragment:
			h[6] = 0x20 // more fragments
		case LaterFragment:
			h[7] = 1480 / 8
		}
		copy(h[12:], p.Src.AsSlice())
		copy(h[16:], p.Dst.AsSlice())
		binary.BigEndian.PutUint16(h[10:], ^sum(0, h))
		return append(h, body...)
	}
	h := make([]byte, 40)
	h[0], h[6], h[7] = 0x60, p.Protocol, p.TTL
	copy(h[8:], p.Src.AsSlice())
	copy(h[24:], p.Dst.AsSlice())
	if p.Part != Whole {
		h[6] = fragmentHeader
		f := []byte{p.Protocol, 0, 0, 1, 0, 0, 0, 0} // more fragments
		if p.Part == LaterFragment {
			binary.BigEndian.PutUint16(f[2:], 1480)
		}
		binary.BigEndian.PutUint16(f[6:], p.Datagram)
		body = append(f, body...)
	}
	binary.BigEndian.PutUint16(h[4:], uint16(len(body)))
	return append(h, body...)
}

// transport is what follows the IP header, with its checksum.
func (p Packet) transport() []byte {
	if p.Part == LaterFragment {
		return make([]byte, 64)
	}
	payload := make([]byte, p.Payload)
	for i := range payload {
		payload[i] = byte(i)
	}
	var b []byte
	at := -1 // of the checksum
	switch {
	case p.Protocol == packet.TCP:
		b = make([]byte, 20)
		binary.BigEndian.PutUint32(b[4:], p.Seq)
		binary.BigEndian.PutUint32(b[8:], p.Ack)
		b[12], b[13], b[14] = 5<<4, p.Flags, 0xff
		at = 16
	case p.Protocol == packet.UDP || p.Protocol == packet.UDPLite:
		b = make([]byte, 8)
		binary.BigEndian.PutUint16(b[4:], uint16(8+p.Payload))
		if at = 6; p.NoSum {
			at = -1
		}
	case p.Protocol == packet.SCTP:
		b = make([]byte, 12) // its CRC knows no addresses, so any will do
	case p.IsICMP():
		b = make([]byte, 8)
		b[0], b[1], at = p.Type, p.Code, 2
		if p.Quote != nil {
			payload = p.Quote.ip()
			if p.Short {
				payload = payload[:p.Quote.headerLen()+8]
			}
			binary.BigEndian.PutUint16(b[6:], 1280) // MTU, where the type has one
		} else {
			binary.BigEndian.PutUint16(b[4:], p.ID)
		}
	default:
		b = make([]byte, 8)
		b[3] = 1 // GRE: no options; ESP: an SPI
	}
	if p.HasPorts() {
		binary.BigEndian.PutUint16(b, p.Sport)
		binary.BigEndian.PutUint16(b[2:], p.Dport)
	}
	b = append(b, payload...)
	if at >= 0 {
		binary.BigEndian.PutUint16(b[at:], p.checksum(b))
	}
	return b
}

func (p Packet) headerLen() int {
	switch {
	case p.Src.Is4():
		return 20
	case p.Part != Whole:
		return 48
	}
	return 40
}

// checksum is that of RFC 1071 over a transport header and what follows, with the pseudo header where the protocol has one.
func (p Packet) checksum(b []byte) uint16 {
	start := uint32(0)
	if p.Protocol != packet.ICMP {
		pseudo := append(p.Src.AsSlice(), p.Dst.AsSlice()...)
		start = uint32(sum(0, pseudo)) + uint32(p.Protocol) + uint32(len(b))
	}
	c := ^sum(start, b)
	if c == 0 && (p.Protocol == packet.UDP || p.Protocol == packet.UDPLite) {
		return 0xffff // 0 says that there is none (RFC 768)
	}
	return c
}

func sum(start uint32, b []byte) uint16 {
	for i := 0; i+1 < len(b); i += 2 {
		start += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		start += uint32(b[len(b)-1]) << 8
	}
	for start > 0xffff {
		start = start>>16 + start&0xffff
	}
	return uint16(start)
}
