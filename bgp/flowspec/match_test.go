package flowspec_test

import (
	"fmt"
	"net/netip"
	"testing"

	"sluice/bgp/flowspec"
)

func web() flowspec.Packet {
	return flowspec.Packet{
		Src: netip.MustParseAddr("198.51.100.7"), Dst: netip.MustParseAddr("203.0.113.53"), Protocol: 6,
		Length: 60, DSCP: 46, Transport: true, SrcPort: 40000, DstPort: 443, TCPFlags: 0x02,
	}
}

func web6() flowspec.Packet {
	p := web()
	p.Src, p.Dst = netip.MustParseAddr("2001:db8::7"), netip.MustParseAddr("2001:db8:1::53")
	p.FlowLabel = 0xabcde
	return p
}

func ping() flowspec.Packet {
	p := web()
	p.Protocol, p.SrcPort, p.DstPort, p.TCPFlags, p.ICMPType, p.ICMPCode = 1, 0, 0, 0, 8, 3
	return p
}

// Every numeric component against every operator, with a packet's value below, at and above the rule's.
func TestEveryNumericComponentWithEveryOperator(t *testing.T) {
	for _, c := range []struct {
		name string
		of   flowspec.Type
		set  func(*flowspec.Packet, uint64)
	}{
		{"protocol", flowspec.Protocol, func(p *flowspec.Packet, v uint64) { p.Protocol = uint8(v) }},
		{"destination port", flowspec.DestinationPort, func(p *flowspec.Packet, v uint64) { p.DstPort = uint16(v) }},
		{"source port", flowspec.SourcePort, func(p *flowspec.Packet, v uint64) { p.SrcPort = uint16(v) }},
		{"port", flowspec.Port, func(p *flowspec.Packet, v uint64) { p.SrcPort, p.DstPort = uint16(v), uint16(v) }},
		{"ICMP type", flowspec.ICMPType, func(p *flowspec.Packet, v uint64) { p.Protocol, p.ICMPType = 1, uint8(v) }},
		{"ICMP code", flowspec.ICMPCode, func(p *flowspec.Packet, v uint64) { p.Protocol, p.ICMPCode = 1, uint8(v) }},
		{"length", flowspec.Length, func(p *flowspec.Packet, v uint64) { p.Length = uint32(v) }},
		{"DSCP", flowspec.DSCP, func(p *flowspec.Packet, v uint64) { p.DSCP = uint8(v) }},
		{"flow label", flowspec.FlowLabel, func(p *flowspec.Packet, v uint64) {
			p.Src, p.Dst, p.FlowLabel = netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2"), uint32(v)
		}},
	} {
		for op, want := range map[uint8][3]bool{ // below, at, above
			0:                                     {false, false, false},
			flowspec.Equal:                        {false, true, false},
			flowspec.Greater:                      {false, false, true},
			flowspec.Greater | flowspec.Equal:     {false, true, true},
			flowspec.Less:                         {true, false, false},
			flowspec.Less | flowspec.Equal:        {true, true, false},
			flowspec.Less | flowspec.Greater:      {true, false, true},
			flowspec.Less | flowspec.Greater | 1:  {true, true, true},
			flowspec.Equal | 0x08 /* reserved */ : {false, true, false},
		} {
			f := flowspec.IPv4
			if c.of == flowspec.FlowLabel {
				f = flowspec.IPv6
			}
			r := flowspec.Rule{Family: f, Components: []flowspec.Component{{Type: c.of, Terms: []flowspec.Term{flowspec.NewTerm(op, 32)}}}}
			for i, v := range []uint64{31, 32, 33} {
				p := web()
				c.set(&p, v)
				if got := r.Match(p); got != want[i] {
					t.Errorf("%s: %s matches %d: %v", c.name, r, v, got)
				}
			}
		}
	}
}

// The four operators of a bitmask against no bit, one of them, all of them, and others besides.
func TestEveryBitmaskWithEveryOperator(t *testing.T) {
	for op, want := range map[uint8][4]bool{
		0:                               {false, true, true, true},
		flowspec.AllBits:                {false, false, true, true},
		flowspec.Not:                    {true, false, false, false},
		flowspec.Not | flowspec.AllBits: {true, true, false, false},
	} {
		r := flowspec.Rule{Family: flowspec.IPv4, Components: []flowspec.Component{
			{Type: flowspec.TCPFlags, Terms: []flowspec.Term{flowspec.NewTerm(op, 0x12)}}}}
		for i, flags := range []uint16{0x20, 0x02, 0x12, 0x33} {
			p := web()
			p.TCPFlags = flags
			if got := r.Match(p); got != want[i] {
				t.Errorf("%s matches %#x: %v", r, flags, got)
			}
		}
	}
}

func TestFragmentBits(t *testing.T) {
	for _, c := range []struct {
		name            string
		df, later, more bool
		bits            uint64
	}{
		{"whole", false, false, false, 0},
		{"whole, not to be fragmented", true, false, false, flowspec.DontFragment},
		{"first", false, false, true, flowspec.FirstFragment},
		{"middle", false, true, true, flowspec.IsFragment},
		{"last", false, true, false, flowspec.IsFragment | flowspec.LastFragment},
	} {
		for bit := flowspec.DontFragment; bit <= flowspec.LastFragment; bit <<= 1 {
			for _, f := range []flowspec.Family{flowspec.IPv4, flowspec.IPv6} {
				p := map[flowspec.Family]flowspec.Packet{4: web(), 6: web6()}[f]
				p.DontFragment, p.Later, p.More = c.df, c.later, c.more
				r := flowspec.Rule{Family: f, Components: []flowspec.Component{
					{Type: flowspec.Fragment, Terms: []flowspec.Term{flowspec.NewTerm(0, bit)}}}}
				want := c.bits&bit != 0 && (f == flowspec.IPv4 || bit != flowspec.DontFragment)
				if got := r.Match(p); got != want {
					t.Errorf("%s: %s: %v", c.name, r, got)
				}
			}
		}
	}
}

func TestWhatMatches(t *testing.T) {
	change := func(p flowspec.Packet, how func(*flowspec.Packet)) flowspec.Packet { how(&p); return p }
	later := func(p *flowspec.Packet) { p.Later, p.Transport = true, false }
	for _, c := range []struct {
		family flowspec.Family
		wire   string
		packet flowspec.Packet
		want   bool
	}{
		{4, "01 18 cb 00 71", web(), true},
		{4, "01 18 cb 00 72", web(), false},
		{4, "02 19 c6 33 64 00", web(), true},
		{4, "02 19 c6 33 64 80", web(), false},
		{4, "01 00", web(), true},
		{4, "01 00", web6(), false}, // the other family
		{6, "01 00 00", web(), false},
		{6, "01 30 00 20 01 0d b8 00 01", web6(), true},
		{6, "01 80 40 00 00 00 00 00 00 00 53", web6(), true}, // the last 64 bits alone
		{6, "01 80 40 00 00 00 00 00 00 00 54", web6(), false},
		{6, "01 30 2c 10", web6(), true}, // the 4 bits from 44 on
		{6, "01 30 2c 20", web6(), false},
		// Or binds looser than and; the first term's and means nothing.
		{4, "05 03 50 44 52 91 01 bb", web(), true},
		{4, "05 11 01 bb c1 00", web(), false},
		{4, "05 51 01 bb 81 50", web(), true},
		{4, "05 01 50 91 01 bb", change(web(), func(p *flowspec.Packet) { p.DstPort = 81 }), false},
		// Port is either.
		{4, "04 91 01 bb", web(), true},
		{4, "04 91 9c 40", web(), true},
		{4, "04 81 50", web(), false},
		// Ports are those of TCP and UDP, in a packet that shows them.
		{4, "05 91 01 bb", change(web(), func(p *flowspec.Packet) { p.Protocol = 132 }), false},
		{4, "05 87 00", change(web(), later), false},
		{4, "06 87 00", change(web(), func(p *flowspec.Packet) { p.Transport = false }), false},
		{4, "09 82 02", change(web(), later), false},
		{4, "09 82 02", change(web(), func(p *flowspec.Packet) { p.Protocol = 17 }), false},
		{4, "09 91 f0 02", web(), true}, // the data offset is not looked at
		{4, "03 81 06", change(web(), later), true},
		{4, "07 81 08 08 81 03", ping(), true},
		{4, "07 81 00", ping(), false},
		{4, "07 87 00", web(), false},
		{4, "08 87 00", change(ping(), later), false},
		{6, "07 87 00", change(web6(), func(p *flowspec.Packet) { p.Protocol = 1 }), false},
		{6, "07 87 00", change(web6(), func(p *flowspec.Packet) { p.Protocol = 58 }), true},
		{4, "0b 81 ee", web(), true}, // 0xee is 46 in 6 bits
		{6, "0d a1 00 0a bc de", web6(), true},
		{4, "03 81 06 0a 81 3d", web(), false}, // all components hold, or none does
	} {
		r := parse(t, c.family, c.wire)
		if got := r.Match(c.packet); got != c.want {
			t.Errorf("%s: %v for %s", r, got, fmt.Sprintf("%+v", c.packet))
		}
	}
}
