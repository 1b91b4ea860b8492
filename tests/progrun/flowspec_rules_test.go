package progrun_test

import (
	"net/netip"
	"slices"
	"testing"

	"sluice/bgp/flowspec"
	"sluice/control/compile"
	"sluice/xdp"
	"sluice/xdp/classify"
	"sluice/xdp/packet"
)

// values are those that the packets below have, and what stands beside them.
var flowspecValues = map[flowspec.Type][]uint64{
	flowspec.Protocol:        {1, 6, 17, 47},
	flowspec.Port:            {53, 1024, 65535},
	flowspec.DestinationPort: {0, 53, 1024},
	flowspec.SourcePort:      {53, 1023, 65535},
	flowspec.ICMPType:        {0, 3, 8, 255},
	flowspec.ICMPCode:        {0, 1, 13},
	flowspec.TCPFlags:        {0, packet.SYN, packet.SYN | packet.ACK, packet.RST, 0x100},
	flowspec.Length:          {100, 101, 1400, 65535},
	flowspec.DSCP:            {0, 10, 46, 63},
	flowspec.Fragment:        {0, 1, 2, 4, 8, 6, 10},
	flowspec.FlowLabel:       {0, 7},
}

// components are all of a type: every operator with every value, and terms that are joined.
func components(f flowspec.Family, t flowspec.Type) (out []flowspec.Component) {
	if t == flowspec.Destination || t == flowspec.Source {
		texts := []string{"0.0.0.0/0", "203.0.113.0/24", "203.0.113.53/32", "203.0.112.0/23", "198.51.100.7/32"}
		if f == flowspec.IPv6 {
			texts = []string{"::/0", "2001:db8::/32", "2001:db8::53/128", "2001:db8::52/127", "fd00::/8"}
		}
		for _, p := range prefixes(texts...) {
			out = append(out, flowspec.Component{Type: t, Prefix: p})
		}
		return out
	}
	values := flowspecValues[t]
	for op := range uint8(8) {
		for i, v := range values {
			w := values[(i+1)%len(values)]
			out = append(out,
				flowspec.Component{Type: t, Terms: []flowspec.Term{flowspec.NewTerm(op, v)}},
				flowspec.Component{Type: t, Terms: []flowspec.Term{flowspec.NewTerm(op, v), flowspec.NewTerm(flowspec.Equal, w)}},
				flowspec.Component{Type: t, Terms: []flowspec.Term{flowspec.NewTerm(op, v), flowspec.NewTerm(flowspec.And|flowspec.Less|flowspec.Greater, w)}})
		}
	}
	return out
}

// flowspecPackets differ in every field that a component can name.
func flowspecPackets(f flowspec.Family) (out []packet.Spec) {
	src, dst, icmp := netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("203.0.113.53"), uint8(packet.ICMP)
	others := []string{"203.0.113.54", "203.0.112.53", "10.0.1.10"}
	if f == flowspec.IPv6 {
		src, dst, icmp = netip.MustParseAddr("2001:db8:1::1"), netip.MustParseAddr("2001:db8::53"), packet.ICMPv6
		others = []string{"2001:db8::52", "2001:db8::54", "fd00:1::10"}
	}
	add := func(change func(*packet.Spec)) {
		s := packet.Spec{Src: src, Dst: dst, Protocol: packet.UDP, SrcPort: 5353, DstPort: 9}
		change(&s)
		out = append(out, s)
	}
	for _, text := range others {
		add(func(s *packet.Spec) { s.Dst = netip.MustParseAddr(text) })
		add(func(s *packet.Spec) { s.Src = netip.MustParseAddr(text) })
	}
	for _, protocol := range []uint8{packet.TCP, packet.UDP, packet.SCTP, packet.GRE, 46, 48} {
		add(func(s *packet.Spec) { s.Protocol = protocol })
	}
	for _, port := range []uint16{0, 52, 53, 54, 1023, 1024, 1025, 65534, 65535} {
		for _, protocol := range []uint8{packet.TCP, packet.UDP, packet.SCTP} {
			add(func(s *packet.Spec) { s.Protocol, s.SrcPort = protocol, port })
			add(func(s *packet.Spec) { s.Protocol, s.DstPort = protocol, port })
		}
	}
	for _, kind := range []uint8{0, 3, 8, 255} {
		for _, code := range []uint8{0, 1, 13} {
			add(func(s *packet.Spec) { s.Protocol, s.ICMPType, s.ICMPCode = icmp, kind, code })
		}
	}
	for _, flags := range []uint8{0, packet.SYN, packet.ACK, packet.SYN | packet.ACK, packet.RST, 0xff} {
		add(func(s *packet.Spec) { s.Protocol, s.TCPFlags, s.NoTCPFlags = packet.TCP, flags, flags == 0 })
	}
	for _, length := range []int{99, 100, 101, 102, 1399, 1400, 1401} {
		add(func(s *packet.Spec) { s.Len = 14 + length })
	}
	for _, dscp := range []uint8{0, 9, 10, 11, 46, 63} {
		add(func(s *packet.Spec) { s.DSCP = dscp })
	}
	for _, protocol := range []uint8{packet.TCP, packet.UDP, packet.GRE} {
		add(func(s *packet.Spec) { s.Protocol, s.Fragment, s.More, s.Len = protocol, true, true, 14+200 })
		add(func(s *packet.Spec) {
			s.Protocol, s.Fragment, s.More, s.Offset, s.Len = protocol, true, true, 1480, 14+200
		})
		add(func(s *packet.Spec) { s.Protocol, s.Fragment, s.Offset, s.Len = protocol, true, 1480, 14+200 })
	}
	return out
}

// seenByFlowSpec is a packet as the RFC's own model sees it.
func seenByFlowSpec(s packet.Spec, frame []byte) flowspec.Packet {
	p := flowspec.Packet{Src: s.Src, Dst: s.Dst, Protocol: s.Protocol, Length: uint32(len(frame) - s.LinkLen()), DSCP: s.DSCP,
		Later: s.Offset > 0, More: s.More, SrcPort: s.SrcPort, DstPort: s.DstPort, ICMPType: s.ICMPType, ICMPCode: s.ICMPCode,
		Transport: s.Offset == 0}
	if p.TCPFlags = uint16(s.TCPFlags); s.TCPFlags == 0 && !s.NoTCPFlags {
		p.TCPFlags = packet.SYN
	}
	return p
}

// TestFiltersMatchWhatTheRFCSays: each component with each operator, translated and loaded. All rules of a component stand beside each
// other and go on, so that each packet is counted by all that it meets.
func TestFiltersMatchWhatTheRFCSays(t *testing.T) {
	s := newSite(t, generation(classify.Accept))
	f := s.flowspec(t)
	for _, family := range []flowspec.Family{flowspec.IPv4, flowspec.IPv6} {
		for kind := flowspec.Destination; kind <= flowspec.FlowLabel; kind++ {
			if kind == flowspec.FlowLabel && family == flowspec.IPv4 {
				continue
			}
			var rules []flowspec.Rule
			var filters []xdp.FlowSpecFilter
			for _, c := range components(family, kind) {
				rule := flowspec.Rule{Family: family, Components: []flowspec.Component{c}}
				filter, err := compile.TranslateFlowSpec(rule, []flowspec.Action{{Kind: flowspec.GoOn}}, nil)
				if err != nil {
					continue // named, as control/compile tests
				}
				filter.Key = rule.String()
				if !slices.ContainsFunc(filters, func(f xdp.FlowSpecFilter) bool { return f.Key == filter.Key }) {
					rules, filters = append(rules, rule), append(filters, filter)
				}
			}
			if len(rules) < 5 {
				t.Errorf("%s %s: only %d rules can be said", family, kind, len(rules))
			}
			apply(t, f, filters...)
			s.comparesFilters(t, f, family, rules)
			if t.Failed() {
				return
			}
		}
	}
}

func (s *site) comparesFilters(t *testing.T, f *xdp.FlowSpec, family flowspec.Family, rules []flowspec.Rule) {
	t.Helper()
	counts := map[string]uint64{}
	matched := 0
	for _, spec := range flowspecPackets(family) {
		frame, err := spec.Frame()
		if err != nil {
			t.Fatalf("%+v: %v", spec, err)
		}
		seen := seenByFlowSpec(spec, frame)
		if got := run(t, s.live, s.uplink, frame); got != xdpPass {
			t.Errorf("%s: verdict %d", spec, got)
		}
		for _, rule := range rules {
			hits, err := f.Hits(rule.String())
			if err != nil {
				t.Fatal(err)
			}
			met := hits.Packets != counts[rule.String()]
			counts[rule.String()] = hits.Packets
			if met != rule.Match(seen) {
				t.Errorf("%s and %s: the program says %v, the RFC %v", rule, spec, met, !met)
			}
			if met {
				matched++
			}
		}
	}
	if matched == 0 {
		t.Errorf("no packet met any of %d rules, the first %s", len(rules), rules[0])
	}
}
