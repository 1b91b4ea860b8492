package progruntc_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"sluice/xdp/abi"
)

// errorAbout is an ICMP error that quotes as many bytes of an IP packet as cut says, or all of it.
func errorAbout(t *testing.T, from, to string, kind, code byte, quoted []byte, cut int) []byte {
	t.Helper()
	src, dst := netip.MustParseAddr(from), netip.MustParseAddr(to)
	if cut > 0 && cut < len(quoted) {
		quoted = quoted[:cut]
	}
	if src.Is4() {
		ip := binary.BigEndian.AppendUint16([]byte{0x45, 0}, uint16(28+len(quoted)))
		ip = append(append(append(ip, 0, 1, 0, 0, 64, 1, 0, 0), src.AsSlice()...), dst.AsSlice()...)
		return fixOuter(append(append(append(ethernet(0x0800), ip...), kind, code, 0, 0, 0, 0, 5, 0), quoted...))
	}
	ip := binary.BigEndian.AppendUint16([]byte{0x60, 0, 0, 0}, uint16(8+len(quoted)))
	ip = append(append(append(ip, 58, 64), src.AsSlice()...), dst.AsSlice()...)
	return fixOuter(append(append(append(ethernet(0x86dd), ip...), kind, code, 0, 0, 0, 0, 5, 0), quoted...))
}

// fixOuter writes the checksums of an ICMP error, but none of what it quotes.
func fixOuter(frame []byte) []byte {
	p := parseFrame(frame)
	quote := append([]byte(nil), frame[p.l4+8:]...)
	out := fix(frame)
	copy(out[p.l4+8:], quote)
	binary.BigEndian.PutUint16(out[p.l4+2:], 0)
	binary.BigEndian.PutUint16(out[p.l4+2:], parseFrame(out).sum(parseFrame(out).payload()))
	return out
}

// quoted parses what an ICMP error quotes.
func quoted(p parsed) parsed { return parseIP(p.frame, p.l4+8) }

// outerSum is the checksum of an ICMP error over all that it holds: 0 where it is right.
func outerSum(p parsed) uint16 { return p.sum(p.payload()) }

// TestICMPErrorsAboutTranslatedFlowsReachWhoSent, and those of workloads and of the node itself show nobody a private address.
func TestICMPErrorsAboutTranslatedFlows(t *testing.T) {
	h := newHidden(t, judged)
	for _, test := range []struct {
		name, line         string
		router, self, peer string
		unreach            byte
	}{
		{"TCP", "tcp 10.0.1.10:4000 > 198.51.100.7:443 flags=S", "203.0.113.1", self4, client4, 3},
		{"UDP", "udp 10.0.1.10:4000 > 198.51.100.7:53", "203.0.113.1", self4, client4, 3},
		{"an echo", "icmp 10.0.1.10 > 198.51.100.7 type=8 id=77", "203.0.113.1", self4, client4, 11},
		{"SCTP", "sctp 10.0.1.10:4000 > 198.51.100.7:9899", "203.0.113.1", self4, client4, 3},
		{"TCP over IPv6", "tcp [fd00:1::10]:4000 > [2001:db8:7::7]:443 flags=S", "2001:db8:99::1", self6, client6, 2},
		{"UDP over IPv6", "udp [fd00:1::10]:4000 > [2001:db8:7::7]:53", "2001:db8:99::1", self6, client6, 3},
		{"an echo over IPv6", "icmpv6 fd00:1::10 > 2001:db8:7::7 type=128 id=77", "2001:db8:99::1", self6, client6, 1},
	} {
		h.sub(t, test.name, func(t *testing.T) {
			h.clearFlows(t)
			h.clearTranslations(t)
			asked := payload(t, test.line, 31)
			was := parseFrame(asked)
			sent := h.out(t, asked)
			header := 20
			if was.src.Is6() {
				header = 40
			}
			for _, cut := range []int{0, header + 8} {
				// A router on the way about what was sent: the quote becomes what the workload sent.
				frame := errorAbout(t, test.router, test.self, test.unreach, 0, sent.frame[14:], cut)
				got := h.pass(t, "uplink ingress", "", frame, abi.ReasonDelivered)
				if q := quoted(got); got.dst != was.src || q.String() != was.String() || outerSum(got) != 0 {
					t.Errorf("cut to %d bytes the error came to %s, about %s, its checksum off by %#x", cut, got.dst, q, outerSum(got))
				}
				// The workload, and then the node, about the answer: the quote becomes what the peer sent.
				wire, inner := parseFrame(answer(sent)), parseFrame(answer(was))
				workload := errorAbout(t, was.src.String(), test.peer, test.unreach, 3, inner.frame[14:], cut)
				node := errorAbout(t, test.self, test.peer, test.unreach, 3, inner.frame[14:], cut)
				for _, left := range []parsed{
					h.pass(t, "wl1 ingress", "", workload, abi.ReasonForwarded),
					h.pass(t, "uplink egress", "wl1", workload, abi.ReasonForwarded),
					h.pass(t, "uplink egress", "", node, abi.ReasonICMPError),
				} {
					if q := quoted(left); left.src.String() != test.self || q.String() != wire.String() || outerSum(left) != 0 {
						t.Errorf("cut to %d bytes the error left from %s about %s, want %s; its checksum is off by %#x", cut, left.src, q, wire, outerSum(left))
					}
				}
			}
		})
	}
	h.sub(t, "a forged one reaches nobody", func(t *testing.T) {
		frame := errorAbout(t, "203.0.113.1", self4, 3, 1, frameOf(t, "udp 198.18.0.2:2000 > 198.51.100.7:54")[14:], 28)
		h.pass(t, "uplink ingress", "", frame, abi.ReasonDefaultDrop)
	})
}
