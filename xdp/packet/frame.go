package packet

import (
	"encoding/binary"
	"fmt"
	"net"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

const (
	maxFrame    = 65535
	ip6Fragment = 44
)

// Frame returns the bytes of the frame, lengths and checksums filled in, without padding. It fails where Len is too small for the
// headers or the frame would be too large.
func (s Spec) Frame() ([]byte, error) {
	head, err := serialize(s.headers(nil))
	if err != nil {
		return nil, fmt.Errorf("packet: %w", err)
	}
	size := s.Len
	if size == 0 {
		size = len(head)
		if s.Offset != 0 || protocolName(s.Protocol) == "" {
			size += 8 // something for the header that is not there
		}
	}
	if size < len(head) {
		return nil, fmt.Errorf("len=%d: its headers alone are %d bytes", size, len(head))
	}
	if int(s.Offset)+size > maxFrame {
		return nil, fmt.Errorf("offset %d and %d bytes are more than an IP packet holds", s.Offset, size)
	}
	return serialize(s.headers(make([]byte, size-len(head))))
}

func serialize(stack []gopacket.SerializableLayer) ([]byte, error) {
	buffer := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(buffer, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, stack...)
	return buffer.Bytes(), err
}

func (s Spec) headers(payload []byte) []gopacket.SerializableLayer {
	return append([]gopacket.SerializableLayer{gopacket.Payload(s.link())}, s.ip(payload)...)
}

// link is the Ethernet header with its tags. gopacket's own pads the frame to 60 bytes, which we leave to who sends it.
func (s Spec) link() []byte {
	src, dst := s.SrcMAC, s.DstMAC
	if src == nil {
		src = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	}
	if dst == nil {
		dst = net.HardwareAddr{2, 0, 0, 0, 0, 2}
	}
	header := append(append([]byte{}, dst...), src...)
	for _, id := range s.VLANs {
		header = binary.BigEndian.AppendUint16(header, uint16(layers.EthernetTypeDot1Q))
		header = binary.BigEndian.AppendUint16(header, id)
	}
	if s.Src.Is4() {
		return binary.BigEndian.AppendUint16(header, uint16(layers.EthernetTypeIPv4))
	}
	return binary.BigEndian.AppendUint16(header, uint16(layers.EthernetTypeIPv6))
}

func (s Spec) ip(payload []byte) []gopacket.SerializableLayer {
	ttl, class := s.ttl(), s.DSCP<<2
	if s.Src.Is4() {
		ip := &layers.IPv4{Version: 4, TOS: class, TTL: ttl, Protocol: layers.IPProtocol(s.Protocol), FragOffset: s.Offset / 8,
			SrcIP: s.Src.AsSlice(), DstIP: s.Dst.AsSlice()}
		if s.More {
			ip.Flags = layers.IPv4MoreFragments
		}
		return append([]gopacket.SerializableLayer{ip}, append(s.transport(ip), gopacket.Payload(payload))...)
	}
	ip := &layers.IPv6{Version: 6, TrafficClass: class, HopLimit: ttl, NextHeader: layers.IPProtocol(s.Protocol),
		SrcIP: s.Src.AsSlice(), DstIP: s.Dst.AsSlice()}
	stack := []gopacket.SerializableLayer{ip}
	if s.Fragment {
		ip.NextHeader = ip6Fragment
		header := make([]byte, 8) // next header, reserved, offset in the upper 13 bits, more, id
		header[0] = s.Protocol
		binary.BigEndian.PutUint16(header[2:], s.Offset)
		if s.More {
			header[3] |= 1
		}
		stack = append(stack, gopacket.Payload(header))
	}
	return append(stack, append(s.transport(ip), gopacket.Payload(payload))...)
}

// transport is empty for a later fragment and for a protocol that has no header here. network is for the checksum.
func (s Spec) transport(network gopacket.NetworkLayer) []gopacket.SerializableLayer {
	if s.Offset != 0 {
		return nil
	}
	var layer gopacket.SerializableLayer
	switch s.Protocol {
	case TCP:
		f := s.flags()
		tcp := &layers.TCP{SrcPort: layers.TCPPort(s.SrcPort), DstPort: layers.TCPPort(s.DstPort), Window: 65535,
			FIN: f&FIN != 0, SYN: f&SYN != 0, RST: f&RST != 0, PSH: f&PSH != 0, ACK: f&ACK != 0, URG: f&URG != 0,
			ECE: f&ECE != 0, CWR: f&CWR != 0}
		if s.MSS != 0 {
			value := binary.BigEndian.AppendUint16(nil, s.MSS)
			tcp.Options = []layers.TCPOption{{OptionType: layers.TCPOptionKindMSS, OptionLength: 4, OptionData: value}}
		}
		_ = tcp.SetNetworkLayerForChecksum(network)
		layer = tcp
	case UDP:
		udp := &layers.UDP{SrcPort: layers.UDPPort(s.SrcPort), DstPort: layers.UDPPort(s.DstPort)}
		_ = udp.SetNetworkLayerForChecksum(network)
		layer = udp
	case SCTP:
		layer = &layers.SCTP{SrcPort: layers.SCTPPort(s.SrcPort), DstPort: layers.SCTPPort(s.DstPort)}
	case UDPLite:
		layer = s.udpLite()
	case ICMP:
		layer = &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(s.ICMPType, s.ICMPCode), Id: s.ICMPID}
	case ICMPv6:
		return s.icmp6(network)
	case GRE:
		layer = &layers.GRE{Protocol: layers.EthernetTypeIPv4}
	case ESP:
		layer = gopacket.Payload{0, 0, 1, 0, 0, 0, 0, 1} // SPI 256, sequence 1
	default:
		return nil
	}
	return []gopacket.SerializableLayer{layer}
}

// udpLite covers all of itself with a checksum that is not made: nobody on this path looks at it.
func (s Spec) udpLite() gopacket.Payload {
	header := binary.BigEndian.AppendUint16(nil, s.SrcPort)
	header = binary.BigEndian.AppendUint16(header, s.DstPort)
	return append(header, 0, 0, 0, 0)
}

// icmp6 has four bytes behind the checksum in every message: id and sequence of echo, zero elsewhere.
func (s Spec) icmp6(network gopacket.NetworkLayer) []gopacket.SerializableLayer {
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(s.ICMPType, s.ICMPCode)}
	_ = icmp.SetNetworkLayerForChecksum(network)
	body := make([]byte, 4)
	binary.BigEndian.PutUint16(body, s.ICMPID)
	return []gopacket.SerializableLayer{icmp, gopacket.Payload(body)}
}
