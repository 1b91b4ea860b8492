package progrun_test

import (
	"testing"

	"sluice/xdp/classify"
	"sluice/xdp/packet"
)

// field is a byte that a frame made by hand has elsewhere.
func field(offset int, value byte, frame []byte) []byte {
	frame[offset] = value
	return frame
}

// TestConditionsReadTheHeadersThatTheyAreAbout: each rule counts on its own, in shadow mode, what it matches
// of frames made byte by byte.
func TestConditionsReadTheHeadersThatTheyAreAbout(t *testing.T) {
	s := newSite(t, generation(classify.Accept))
	type header = classify.Rule
	tcp4 := func() []byte { return frame4(6, tcp(1, 443)) } // SYN, 40 bytes
	tcp6 := func() []byte { return ether(typeIP6, ip6(6, 64, src6, tcp(1, 443))) }
	vlans := func(ids ...int) []byte { return ether(typeIP4, ip4(6, nil, tcp(1, 443)), ids...) }
	v4 := func(first, last uint16) []classify.Range { return []classify.Range{{First: first, Last: last}} }
	one := func(kind, code uint8) []classify.ICMPRange {
		return []classify.ICMPRange{{TypeFirst: kind, TypeLast: kind, CodeFirst: code, CodeLast: code}}
	}
	const toTOS, toClass, toFlow = 14 + 1, 14, 14 + 1
	cases := []struct {
		name           string
		rule           header
		matches, fails [][]byte
	}{
		{"TCP flags", header{Protocol: 6, TCPMask: packet.SYN | packet.ACK, TCPFlags: packet.SYN}, [][]byte{tcp4(), tcp6(), field(47, 0xc2, tcp4())},
			[][]byte{field(47, 0x12, tcp4()), field(67, 0x10, tcp6()), field(47, 0, tcp4())}},
		{"the upper TCP flags", header{Protocol: 6, TCPMask: packet.ECE | packet.CWR, TCPFlags: packet.CWR}, [][]byte{field(47, 0x80, tcp4())},
			[][]byte{tcp4(), field(47, 0xc0, tcp4())}},
		{"ICMP type and code", header{Protocol: 1, ICMPTypes: one(3, 4)}, [][]byte{frame4(1, icmp(3, 4, 0))},
			[][]byte{frame4(1, icmp(3, 3, 0)), frame4(1, icmp(4, 4, 0)), ether(typeIP6, ip6(1, 64, src6, icmp(3, 4, 0)))}},
		{"ICMPv6 type and code", header{Protocol: 58, ICMPTypes: one(1, 4)}, [][]byte{ether(typeIP6, ip6(58, 64, src6, icmp(1, 4, 0)))},
			[][]byte{ether(typeIP6, ip6(58, 64, src6, icmp(1, 3, 0))), frame4(58, icmp(1, 4, 0))}},
		{"ICMPv6 behind an extension header", header{Protocol: 58, ICMPTypes: one(128, 0)},
			[][]byte{ether(typeIP6, ip6(60, 64, src6, extension(58, 0, icmp(128, 0, 7))))}, [][]byte{ether(typeIP6, ip6(60, 64, src6, extension(58, 0, icmp(129, 0, 7))))}},
		{"DSCP, whatever the ECN bits", header{Protocol: -1, DSCP: 1 << 46}, [][]byte{field(toTOS, 46<<2, tcp4()), field(toTOS, 46<<2|3, tcp4()),
			field(toFlow, 0x8f, field(toClass, 0x6b, tcp6())), field(toFlow, 0xb0, field(toClass, 0x6b, tcp6()))},
			[][]byte{tcp4(), tcp6(), field(toTOS, 47<<2, tcp4()), field(toFlow, 0xc0, field(toClass, 0x6b, tcp6()))}},
		{"the outermost VLAN", header{Protocol: -1, VLANs: v4(100, 199)}, [][]byte{vlans(100), vlans(199), vlans(150, 7)}, [][]byte{vlans(), vlans(99), vlans(200), vlans(7, 150)}},
		{"no VLAN", header{Protocol: -1, VLANs: v4(0, 0)}, [][]byte{vlans(), vlans(0)}, [][]byte{vlans(1), vlans(4094)}},
		{"the length of the IP packet", header{Protocol: -1, Lengths: v4(40, 60)}, [][]byte{tcp4(), vlans(5), tcp6(), append(tcp4(), make([]byte, 100)...)},
			[][]byte{frame4(17, udp(1, 2)), frame4(17, udp(1, 2, make([]byte, 33)...)), ether(typeIP6, ip6(17, 64, src6, udp(1, 2, make([]byte, 13)...)))}},
		{"any length from one on", header{Protocol: -1, Lengths: v4(41, 65535)}, [][]byte{tcp6()}, [][]byte{tcp4()}},
		{"whole packets", header{Protocol: -1, Fragment: classify.FragmentNo}, [][]byte{tcp4(), ether(typeIP6, ip6(44, 64, src6, ip6Frag(6, 0, tcp(1, 2))))},
			[][]byte{ether(typeIP4, ip4Fragment(17, 0x2000, nil, udp(1, 2))), ether(typeIP4, ip4Fragment(17, 1, nil, udp(1, 2)))}},
		{"first fragments", header{Protocol: -1, Fragment: classify.FragmentInitial},
			[][]byte{ether(typeIP4, ip4Fragment(17, 0x2000, nil, udp(1, 2))), ether(typeIP6, ip6(44, 64, src6, ip6Frag(17, 1, udp(1, 2))))},
			[][]byte{tcp4(), ether(typeIP4, ip4Fragment(17, 0x2001, nil, udp(1, 2))), ether(typeIP6, ip6(44, 64, src6, ip6Frag(17, 9, udp(1, 2))))}},
		{"later fragments", header{Protocol: 17, Fragment: classify.FragmentLater},
			[][]byte{ether(typeIP4, ip4Fragment(17, 0x2001, nil, udp(1, 2))), ether(typeIP6, ip6(44, 64, src6, ip6Frag(17, 8, udp(1, 2))))},
			[][]byte{frame4(17, udp(1, 2)), ether(typeIP4, ip4Fragment(17, 0x2000, nil, udp(1, 2)))}},
		{"the interface", header{Protocol: -1, Interfaces: []classify.Interface{{Name: "uplink", Index: uint32(s.uplink)}}}, [][]byte{tcp4(), tcp6()}, nil},
		{"another interface", header{Protocol: -1, Interfaces: []classify.Interface{{Name: "tor", Index: uint32(s.uplink + 1000)}}}, nil, [][]byte{tcp4(), tcp6()}},
		{"ports of UDP-Lite", header{Protocol: 136, Ports: v4(2, 2)}, [][]byte{frame4(136, udp(1, 2))}, [][]byte{frame4(136, udp(2, 1)), frame4(17, udp(1, 2))}},
	}
	var rules []classify.Rule
	for i, c := range cases {
		c.rule.ID, c.rule.Action, c.rule.Shadow = uint32(i+1), classify.Drop, true
		rules = append(rules, c.rule)
	}
	s.load(t, generation(classify.Accept, rules...))
	for i, c := range cases {
		id := uint32(i + 1)
		for hits, frames := range [][][]byte{c.fails, c.matches} {
			for _, frame := range frames {
				before := s.tally(t, id)
				run(t, s.live, s.uplink, frame)
				if got := s.tally(t, id).minus(before).Rules[id].Packets; got != uint64(hits) {
					t.Errorf("%s: %x: counted %d times, want %d", c.name, frame, got, hits)
				}
			}
		}
	}
}
