// Package packet makes frames from one line of text, for `sluice explain` and for tests:
//
//	tcp 192.0.2.7:1234 > 203.0.113.9:443 flags=S
//	udp [2001:db8::7]:53 > [2001:db8::9]:1024 vlan=100 ttl=64
//	icmp 192.0.2.7 > 203.0.113.9 type=8 id=77
//	udp 192.0.2.7:5060 > 203.0.113.9:5060 dscp=46 length=200
//	47 192.0.2.7 > 203.0.113.9 len=200 frag=1480+
package packet

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// IP protocol numbers that have a name here.
const (
	ICMP    = 1
	TCP     = 6
	UDP     = 17
	GRE     = 47
	ESP     = 50
	ICMPv6  = 58
	SCTP    = 132
	UDPLite = 136
)

// TCP flags, as in byte 13 of the header.
const (
	FIN = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
	ECE
	CWR
)

// Spec describes one Ethernet frame with an IP packet. Zero values are filled in by Frame.
type Spec struct {
	SrcMAC, DstMAC net.HardwareAddr // default: locally administered ones
	VLANs          []uint16         // ids, outermost first
	Src, Dst       netip.Addr       // of one family
	SrcPort        uint16           // TCP, UDP, SCTP, UDP-Lite
	DstPort        uint16
	Protocol       uint8
	DSCP           uint8 // 6 bits
	TTL            uint8 // or hop limit; 0: 64
	TCPFlags       uint8 // 0: SYN alone, unless NoTCPFlags
	NoTCPFlags     bool
	MSS            uint16 // of a TCP SYN; 0: it has no such option
	ICMPType       uint8
	ICMPCode       uint8
	ICMPID         uint16 // of echo
	Len            int    // bytes of the whole frame without FCS; 0: as long as its headers ask for
	Fragment       bool
	Offset         uint16 // of the fragment, in bytes, a multiple of 8
	More           bool   // more fragments follow
}

// HasPorts says whether the protocol has ports and this packet shows them.
func (s Spec) HasPorts() bool {
	return s.Offset == 0 && (s.Protocol == TCP || s.Protocol == UDP || s.Protocol == SCTP || s.Protocol == UDPLite)
}

// LinkLen is the length of the Ethernet header with its tags, in bytes.
func (s Spec) LinkLen() int { return 14 + 4*len(s.VLANs) }

var protocols = []struct {
	name   string
	number uint8
}{{"tcp", TCP}, {"udp", UDP}, {"sctp", SCTP}, {"icmp", ICMP}, {"icmpv6", ICMPv6}, {"gre", GRE}, {"esp", ESP}, {"udplite", UDPLite}}

// FlagLetters are those of flags=, bit 0 first, as tcpdump has them.
const FlagLetters = "FSRPAUEW"

// String is the line that Parse reads.
func (s Spec) String() string {
	protocol := protocolName(s.Protocol)
	if protocol == "" {
		protocol = strconv.Itoa(int(s.Protocol))
	}
	words := []string{protocol, s.endpoint(s.Src, s.SrcPort), ">", s.endpoint(s.Dst, s.DstPort)}
	add := func(key string, value any) { words = append(words, fmt.Sprintf("%s=%v", key, value)) }
	if s.Protocol == TCP && s.Offset == 0 {
		add("flags", flagText(s.flags()))
		if s.MSS != 0 {
			add("mss", s.MSS)
		}
	}
	if s.isICMP() && s.Offset == 0 {
		add("type", s.ICMPType)
		if s.ICMPCode != 0 {
			add("code", s.ICMPCode)
		}
		if s.ICMPID != 0 {
			add("id", s.ICMPID)
		}
	}
	if s.DSCP != 0 {
		add("dscp", s.DSCP)
	}
	if s.TTL != 0 {
		add("ttl", s.TTL)
	}
	for _, id := range s.VLANs {
		add("vlan", id)
	}
	if s.Fragment && s.More {
		add("frag", fmt.Sprintf("%d+", s.Offset))
	} else if s.Fragment {
		add("frag", s.Offset)
	}
	if s.Len != 0 {
		add("len", s.Len)
	}
	if s.SrcMAC != nil {
		add("src-mac", s.SrcMAC)
	}
	if s.DstMAC != nil {
		add("dst-mac", s.DstMAC)
	}
	return strings.Join(words, " ")
}

func (s Spec) endpoint(a netip.Addr, port uint16) string {
	if s.HasPorts() {
		return netip.AddrPortFrom(a, port).String()
	}
	return a.String()
}

func (s Spec) isICMP() bool { return s.Protocol == ICMP || s.Protocol == ICMPv6 }

func (s Spec) flags() uint8 {
	if s.TCPFlags == 0 && !s.NoTCPFlags {
		return SYN
	}
	return s.TCPFlags
}

// protocolName is "" for a protocol whose header is not known here.
func protocolName(number uint8) string {
	for _, p := range protocols {
		if p.number == number {
			return p.name
		}
	}
	return ""
}

func flagText(flags uint8) string {
	var b strings.Builder
	for i, letter := range FlagLetters {
		if flags&(1<<i) != 0 {
			b.WriteRune(letter)
		}
	}
	if b.Len() == 0 {
		return "none"
	}
	return b.String()
}
