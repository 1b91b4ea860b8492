package progrun_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/xdp/abi"
	"sluice/xdp/classify"
)

// good is one packet of a kind that passes under default accept.
type good struct {
	name   string
	frame  []byte
	reason abi.Reason
	l3     int // offset of what follows the Ethernet header and its tags
	ip     int // bytes of the fixed IP header and IPv4 options; 0: not IP
	// Where the IP packet itself ends before these offsets (counted from the end of the IP header), the first that is
	// not reached gives the reason.
	needs []need
}

type need struct {
	bytes  int
	reason abi.Reason
}

func l4(bytes int) []need { return []need{{bytes, abi.ReasonL4Truncated}} }

func goods() []good {
	accept, link := abi.ReasonDefaultAccept, abi.ReasonLinkControl
	options := []byte{7, 3, 4, 0, 1, 1, 1, 0} // record route, no-operation, end
	ext := func(headers int, more ...need) []need {
		return append([]need{{headers, abi.ReasonIP6ExtTruncated}}, more...)
	}
	list := []good{
		{name: "TCP over IPv4", frame: ether(typeIP4, ip4(6, nil, tcp(1234, 443))), ip: 20, needs: l4(20)},
		{name: "TCP with options", frame: ether(typeIP4, ip4(6, nil, tcp(1, 2, 2, 4, 5, 180, 1, 1, 1, 0))), ip: 20,
			needs: append(l4(20), need{28, abi.ReasonL4Malformed})},
		{name: "IPv4 options", frame: ether(typeIP4, ip4(17, options, udp(1, 2))), ip: 28, needs: l4(8)},
		{name: "UDP over IPv4", frame: ether(typeIP4, ip4(17, nil, udp(53, 1024, 1, 2, 3))), ip: 20,
			needs: append(l4(8), need{11, abi.ReasonL4Malformed})},
		{name: "SCTP over IPv4", frame: ether(typeIP4, ip4(132, nil, sctp(1, 2))), ip: 20, needs: l4(12)},
		{name: "ICMP echo", frame: ether(typeIP4, ip4(1, nil, icmp(8, 0, 7, 1, 2))), ip: 20, needs: l4(8)},
		{name: "GRE over IPv4", frame: ether(typeIP4, ip4(47, nil, []byte{0, 0, 8, 0})), ip: 20, needs: l4(4)},
		{name: "ESP over IPv4", frame: ether(typeIP4, ip4(50, nil, make([]byte, 20))), ip: 20, needs: l4(8)},
		{name: "OSPF over IPv4", frame: ether(typeIP4, ip4(89, nil, make([]byte, 4))), ip: 20},
		{name: "first fragment", frame: ether(typeIP4, ip4Fragment(17, 0x2000, nil, udp(1, 2))), ip: 20,
			needs: []need{{8, abi.ReasonFragmentTiny}}},
		{name: "later fragment", frame: ether(typeIP4, ip4Fragment(6, 0x2001, nil, []byte{1, 2, 3})), ip: 20},
		{name: "last fragment", frame: ether(typeIP4, ip4Fragment(6, 0x0100, nil, []byte{1})), ip: 20},

		{name: "TCP over IPv6", frame: ether(typeIP6, ip6(6, 64, src6, tcp(1234, 443))), ip: 40, needs: l4(20)},
		{name: "UDP over IPv6", frame: ether(typeIP6, ip6(17, 64, src6, udp(1, 2))), ip: 40, needs: l4(8)},
		{name: "SCTP over IPv6", frame: ether(typeIP6, ip6(132, 64, src6, sctp(1, 2))), ip: 40, needs: l4(12)},
		{name: "ICMPv6 echo", frame: ether(typeIP6, ip6(58, 64, src6, icmp(128, 0, 7))), ip: 40, needs: l4(8)},
		{name: "GRE over IPv6", frame: ether(typeIP6, ip6(47, 64, src6, []byte{0, 0, 8, 0})), ip: 40, needs: l4(4)},
		{name: "ESP over IPv6", frame: ether(typeIP6, ip6(50, 64, src6, make([]byte, 16))), ip: 40, needs: l4(8)},
		{name: "no next header", frame: ether(typeIP6, ip6(59, 64, src6, nil)), ip: 40},
		{name: "hop-by-hop, routing, destination options",
			frame: ether(typeIP6, ip6(0, 64, src6, extension(43, 0, extension(60, 2, extension(6, 1, tcp(1, 2)))))), ip: 40,
			needs: ext(8+24+16, need{68, abi.ReasonL4Truncated})},
		{name: "authentication header", frame: ether(typeIP6, ip6(51, 64, src6, authentication(17, udp(1, 2)))), ip: 40,
			needs: ext(24, need{32, abi.ReasonL4Truncated})},
		{name: "IPv6 first fragment", frame: ether(typeIP6, ip6(44, 64, src6, ip6Frag(6, 1, tcp(1, 2)))), ip: 40,
			needs: ext(8, need{28, abi.ReasonFragmentTiny})},
		{name: "IPv6 later fragment", frame: ether(typeIP6, ip6(44, 64, src6, ip6Frag(6, 0x0208, []byte{1}))), ip: 40, needs: ext(8)},
		{name: "IPv6 atomic fragment", frame: ether(typeIP6, ip6(44, 64, src6, ip6Frag(17, 0, udp(1, 2)))), ip: 40,
			needs: ext(8, need{16, abi.ReasonL4Truncated})},

		{name: "one VLAN tag", frame: ether(typeIP4, ip4(6, nil, tcp(1, 2)), 100), l3: 18, ip: 20, needs: l4(20)},
		{name: "two VLAN tags", frame: ether(typeIP6, ip6(17, 64, src6, udp(1, 2)), 100, 7), l3: 22, ip: 40, needs: l4(8)},

		{name: "ARP", frame: ether(0x0806, make([]byte, 28)), reason: link},
		{name: "ARP in a VLAN", frame: ether(0x0806, make([]byte, 28), 5), reason: link, l3: 18},
		{name: "LLDP", frame: ether(0x88cc, make([]byte, 46)), reason: link},
		{name: "LACP", frame: ether(0x8809, make([]byte, 110)), reason: link},
		{name: "STP", frame: ether(38, join([]byte{0x42, 0x42, 3}, make([]byte, 35))), reason: link},
		{name: "MPLS", frame: ether(0x8847, make([]byte, 50)), reason: abi.ReasonUnknownEthertype},
	}
	for kind := 133; kind <= 137; kind++ {
		list = append(list, good{name: "ND", frame: ether(typeIP6, ip6(58, 255, src6, icmp(kind, 0, 0, make([]byte, 16)...))),
			reason: link, ip: 40, needs: l4(8)})
	}
	for _, kind := range []int{130, 131, 132, 143} { // behind the router alert option, as RFC 3810 has it
		list = append(list, good{name: "MLD", frame: ether(typeIP6, ip6(0, 1, ll6, extension(58, 0, icmp(kind, 0, 0)))),
			reason: link, ip: 40, needs: ext(8, need{16, abi.ReasonL4Truncated})})
	}
	for i := range list {
		if list[i].reason == 0 {
			list[i].reason = accept
		}
		list[i].l3 = max(list[i].l3, 14)
	}
	return list
}

// cut is what a frame that was cut to n bytes on its way must meet.
func (g good) cut(n int) abi.Reason {
	switch {
	case n < g.l3:
		return abi.ReasonVLANTruncated
	case n == len(g.frame) || g.ip == 0:
		return g.reason
	case g.is6():
		return abi.ReasonIP6Truncated
	}
	return abi.ReasonIP4Truncated
}

func (g good) is6() bool { return g.ip != 0 && g.frame[g.l3]>>4 == 6 }

// short returns the frame with its IP packet ending payload bytes behind the IP header, and what that must meet.
func (g good) short(payload int) ([]byte, abi.Reason) {
	frame := append([]byte{}, g.frame[:g.l3+g.ip+payload]...)
	if g.is6() {
		binary.BigEndian.PutUint16(frame[g.l3+4:], uint16(payload))
	} else {
		binary.BigEndian.PutUint16(frame[g.l3+2:], uint16(g.ip+payload))
	}
	for _, n := range g.needs {
		if payload < n.bytes {
			return frame, n.reason
		}
	}
	return frame, g.reason
}

// check runs a frame and compares everything that it may leave behind.
func (s *site) check(t *testing.T, what string, frame []byte, want abi.Reason) {
	t.Helper()
	for _, wrong := range s.tried(t, frame, want) {
		t.Errorf("%s, %d bytes: %s", what, len(frame), wrong)
	}
}

// tried is check for who has yet to see whether it came in time: it returns what differs.
func (s *site) tried(t *testing.T, frame []byte, want abi.Reason) (wrong []string) {
	t.Helper()
	before := s.lastTally(t)
	if got := run(t, s.live, s.uplink, frame); got != verdictOf(want) {
		wrong = append(wrong, fmt.Sprintf("verdict %d, want %s", got, want))
	}
	counted := s.tally(t)
	if diff := cmp.Diff(judged(want, len(frame)), counted.minus(before)); diff != "" {
		wrong = append(wrong, "counters:\n"+diff)
	}
	if said := s.explain(t, s.uplink, frame); abi.Reason(said.Reason) != want {
		wrong = append(wrong, fmt.Sprintf("the twin says %s, want %s", abi.Reason(said.Reason), want))
	}
	s.last = s.tally(t)
	if diff := cmp.Diff(counted, s.last); diff != "" {
		wrong = append(wrong, "the twin counted:\n"+diff)
	}
	return wrong
}

func TestEveryKindOfPacketIsParsedAtEveryLength(t *testing.T) {
	s := newSite(t, generation(classify.Accept))
	for _, g := range goods() {
		// Shorter than an Ethernet header, nothing reaches XDP: the kernel refuses to run it, and drivers to receive it.
		for n := 14; n <= len(g.frame); n++ {
			s.check(t, g.name+", cut", g.frame[:n], g.cut(n))
		}
		if g.ip == 0 {
			continue
		}
		for payload := 0; g.l3+g.ip+payload <= len(g.frame); payload++ {
			frame, want := g.short(payload)
			s.check(t, g.name+", short", frame, want)
			// The rest of the good packet as padding: it must not stand in for what is missing.
			s.check(t, g.name+", short and padded", append(frame, g.frame[len(frame):]...), want)
		}
	}
}

func TestMalformedPacketsNeverPass(t *testing.T) {
	s := newSite(t, generation(classify.Accept))
	poke := func(frame []byte, at int, value byte) []byte {
		frame = append([]byte{}, frame...)
		frame[at] = value
		return frame
	}
	tcp4, udp4 := ether(typeIP4, ip4(6, nil, tcp(1, 2))), ether(typeIP4, ip4(17, nil, udp(1, 2, 3)))
	tcp6 := ether(typeIP6, ip6(6, 64, src6, tcp(1, 2)))
	chain := tcp(1, 2)
	for i := range 7 {
		next := 60
		if i == 0 {
			next = 6
		}
		chain = extension(next, 0, chain)
	}
	tests := []struct {
		name  string
		frame []byte
		want  abi.Reason
	}{
		{"IPv4 with version 5", poke(tcp4, 14, 0x55), abi.ReasonIP4Malformed},
		{"IPv4 with version 6", poke(tcp4, 14, 0x65), abi.ReasonIP4Malformed},
		{"IPv4 header of 16 bytes", poke(tcp4, 14, 0x44), abi.ReasonIP4Malformed},
		{"IPv4 header of 60 bytes in 40", poke(tcp4, 14, 0x4f), abi.ReasonIP4Malformed},
		{"IPv4 total length 19", poke(tcp4, 17, 19), abi.ReasonIP4Malformed},
		{"IPv4 total length beyond the frame", poke(tcp4, 17, 41), abi.ReasonIP4Truncated},
		{"IPv6 with version 4", poke(tcp6, 14, 0x40), abi.ReasonIP6Malformed},
		{"IPv6 from an IPv4-mapped address", ether(typeIP6, ip6(17, 64, netip.AddrFrom16(src4.As16()), udp(1, 2))), abi.ReasonIP6Mapped},
		{"IPv6 to an IPv4-mapped address", to6("::ffff:198.51.100.1", ether(typeIP6, ip6(17, 64, src6, udp(1, 2)))), abi.ReasonIP6Mapped},
		{"IPv6 payload length that wraps 16 bits", poke(poke(tcp6, 18, 0xff), 19, 0xff), abi.ReasonIP6Truncated},
		{"three VLAN tags", ether(typeIP4, ip4(6, nil, tcp(1, 2)), 1, 2, 3), abi.ReasonVLANTooDeep},
		{"seven extension headers", ether(typeIP6, ip6(60, 64, src6, chain)), abi.ReasonIP6ExtTooMany},
		{"extension header beyond the packet", ether(typeIP6, ip6(60, 64, src6, poke(extension(6, 0, tcp(1, 2)), 1, 200))),
			abi.ReasonIP6ExtTruncated},
		{"TCP data offset 4", poke(tcp4, 14+20+12, 0x40), abi.ReasonL4Malformed},
		{"TCP data offset beyond the packet", poke(tcp4, 14+20+12, 0x60), abi.ReasonL4Malformed},
		{"UDP length 7", poke(udp4, 14+20+5, 7), abi.ReasonL4Malformed},
		{"UDP length beyond the packet", poke(udp4, 14+20+5, 10), abi.ReasonL4Malformed},
	}
	for _, test := range tests {
		s.check(t, test.name, test.frame, test.want)
	}
	// Six headers are followed; the seventh was one too many.
	s.check(t, "six extension headers", ether(typeIP6, ip6(60, 64, src6, chain[8:])), abi.ReasonDefaultAccept)
}
