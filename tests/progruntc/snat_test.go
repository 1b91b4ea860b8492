package progruntc_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"sluice/tc"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
	"sluice/xdp/pin"
)

// The range of translated ports of the tests.
const snatFirst, snatLast = 2000, 2063

// translating lets workload 1 and the LAN hide behind the uplink's addresses. Every policy of theirs accepts.
func translating(s *tc.State) {
	g := &s.Generation
	g.SNATAddresses = []tc.SNATAddress{{IPv4: netip.MustParseAddr(self4), IPv6: netip.MustParseAddr(self6)}}
	g.SNATPorts = classify.PortRange{First: snatFirst, Last: snatLast}
	for i := range s.Interfaces {
		switch s.Interfaces[i].Name {
		case "wl1", "down":
			s.Interfaces[i].SNAT = tc.SNAT{IPv4: true, IPv6: true}
		case "uplink":
			s.Interfaces[i].SNAT = tc.SNAT{Address: 1}
		}
	}
}

// hidden is a site with translating, its first generation, and what its programs say of frames.
type hidden struct {
	*site
	g *pin.Generation
}

func newHidden(t *testing.T, change ...func(*tc.State)) *hidden {
	t.Helper()
	s := newSite(t, append([]func(*tc.State){translating}, change...)...)
	return &hidden{s, s.live(t)}
}

// pass sends a frame through a hook's live program, which must give a reason, and returns what it made of it. Whatever leaves has
// right checksums. from is the interface by which it came in, at egress.
func (h *hidden) pass(t *testing.T, at, from string, frame []byte, want abi.Reason) parsed {
	t.Helper()
	name, device := h.program(t, h.g, at)
	frame = append([]byte(nil), frame...)
	copy(frame, device.HardwareAddr)
	ctx := skBuff{Ifindex: uint32(device.Index)}
	if from != "" {
		ctx.IngressIfindex = uint32(index(t, from).Index)
	}
	iface, _, _ := strings.Cut(at, " ")
	h.quiet(t, iface)
	_, left := run(t, h.g.Programs[name], ctx, frame)
	if got := h.counted(t, iface); len(got) != 1 || got[want] != 1 {
		t.Fatalf("%s %s: counted %v, want %s", at, parseFrame(frame), got, want)
	}
	if want.Fate() != abi.FateDrop {
		if err := wrongSums(left); err != nil {
			t.Fatalf("%s %s became %s: %v", at, parseFrame(frame), parseFrame(left), err)
		}
	}
	return parseFrame(left)
}

// out sends what a workload sends, in through its hook.
func (h *hidden) out(t *testing.T, frame []byte) parsed {
	t.Helper()
	return h.pass(t, "wl1 ingress", "", frame, abi.ReasonForwarded)
}

// stack sends what the kernel forwards to the uplink.
func (h *hidden) stack(t *testing.T, from string, frame []byte) parsed {
	t.Helper()
	return h.pass(t, "uplink egress", from, frame, abi.ReasonForwarded)
}

// payload gives a frame of a line something to sum up, and right checksums.
func payload(t *testing.T, line string, bytes int) []byte {
	t.Helper()
	frame := frameOf(t, line)
	for i := range bytes {
		frame = append(frame, byte(i*7+1))
	}
	p := parseFrame(frame)
	if p.src.Is4() {
		binary.BigEndian.PutUint16(frame[16:], uint16(len(frame)-14))
	} else {
		binary.BigEndian.PutUint16(frame[18:], uint16(len(frame)-54))
	}
	if p.protocol == 17 && !p.later {
		binary.BigEndian.PutUint16(frame[p.l4+4:], uint16(len(frame)-p.l4))
	}
	return fix(frame)
}

// answer turns a frame round, with its checksums; an echo becomes a reply.
func answer(p parsed) []byte {
	out := append([]byte(nil), p.frame...)
	addresses := 4
	at := p.l3 + 12
	if p.src.Is6() {
		addresses, at = 16, p.l3+8
	}
	copy(out[at:], p.frame[at+addresses:at+2*addresses])
	copy(out[at+addresses:], p.frame[at:at+addresses])
	switch p.protocol {
	case 1:
		out[p.l4] = 0
	case 58:
		out[p.l4] = 129
	case 47:
	default:
		copy(out[p.l4:], p.frame[p.l4+2:p.l4+4])
		copy(out[p.l4+2:], p.frame[p.l4:p.l4+2])
	}
	return fix(out)
}

func inRange(port uint16) bool { return port >= snatFirst && port <= snatLast }

// TestEveryKindOfPacketIsTranslatedAndItsAnswerBack, on the fast path and on the kernel's.
func TestEveryKindOfPacketIsTranslatedAndItsAnswerBack(t *testing.T) {
	h := newHidden(t, judged)
	for _, test := range []struct {
		name, line string
		keeps      bool // its port
		mangle     func(frame []byte)
	}{
		{name: "TCP", line: "tcp 10.0.1.10:4000 > 198.51.100.7:443 flags=S"},
		{name: "TCP over IPv6", line: "tcp [fd00:1::10]:4000 > [2001:db8:7::7]:443 flags=S"},
		{name: "UDP", line: "udp 10.0.1.10:4000 > 198.51.100.7:53"},
		{name: "UDP over IPv6", line: "udp [fd00:1::10]:4000 > [2001:db8:7::7]:53"},
		{name: "UDP without a checksum", line: "udp 10.0.1.10:4001 > 198.51.100.7:53", mangle: func(f []byte) { f[40], f[41] = 0, 0 }},
		{name: "an echo", line: "icmp 10.0.1.10 > 198.51.100.7 type=8 id=77"},
		{name: "an echo over IPv6", line: "icmpv6 fd00:1::10 > 2001:db8:7::7 type=128 id=77"},
		{name: "SCTP", line: "sctp 10.0.1.10:4000 > 198.51.100.7:9899", keeps: true},
		{name: "SCTP over IPv6", line: "sctp [fd00:1::10]:4000 > [2001:db8:7::7]:9899", keeps: true},
		{name: "GRE", line: "gre 10.0.1.10 > 198.51.100.7", keeps: true},
	} {
		h.sub(t, test.name, func(t *testing.T) {
			for _, size := range []int{0, 37, 1200} {
				for _, path := range []string{"fast", "stack"} {
					h.clearFlows(t)
					h.clearTranslations(t)
					asked := payload(t, test.line, size)
					if test.mangle != nil {
						test.mangle(asked)
					}
					was := parseFrame(asked)
					var sent parsed
					if path == "fast" {
						sent = h.out(t, asked)
					} else {
						sent = h.stack(t, "wl1", asked)
					}
					self := map[bool]string{true: self4, false: self6}[was.src.Is4()]
					if sent.src.String() != self || sent.dst != was.dst {
						t.Fatalf("%s, %s and %d bytes: %s left as %s", path, test.line, size, was, sent)
					}
					if !test.keeps && !inRange(sent.port(true)) || test.keeps && test.name != "GRE" && sent.port(true) != was.port(true) {
						t.Fatalf("%s left by port %d", was, sent.port(true))
					}
					if got, want := len(sent.frame), len(asked); got != want {
						t.Fatalf("%s: %d bytes became %d", was, want, got)
					}
					back := h.pass(t, "uplink ingress", "", answer(sent), abi.ReasonDelivered)
					if got, want := back.String(), parseFrame(answer(was)).String(); got != want {
						t.Fatalf("%s: the answer to %s came back as %s, want %s", path, sent, got, want)
					}
					again := payload(t, test.line, size+1)
					if test.mangle != nil {
						test.mangle(again)
					}
					if more := h.out(t, again); more.String() != sent.String() {
						t.Fatalf("the next packet of %s left as %s, the first as %s", was, more, sent)
					}
				}
			}
		})
	}
}

// clearTranslations forgets all.
func (s *site) clearTranslations(t *testing.T) {
	t.Helper()
	m := s.translations(t)
	var keys []abi.FlowKey
	var key abi.FlowKey
	var value abi.Translation
	for entries := m.Iterate(); entries.Next(&key, &value); {
		keys = append(keys, key)
	}
	for _, k := range keys {
		if err := m.Delete(k); err != nil {
			t.Fatal(err)
		}
	}
}

// TestWhatIsNotToBeTranslatedIsNot: between workloads, to the box, into tunnels, and answers to those who opened a flow.
func TestWhatIsNotToBeTranslatedIsNot(t *testing.T) {
	public := func(s *tc.State) { s.Generation.Announced = prefixes("10.0.2.0/24", "fd00:2::/64") }
	h := newHidden(t, open(tc.RoleWorkload, tc.RoleWorkload), open(tc.RoleTunnel, tc.RoleUplink), public)
	for _, test := range []struct {
		name, at, from, line string
		reason               abi.Reason
	}{
		{"into a tunnel", "wl1 ingress", "", "udp 10.0.1.10:4000 > 10.20.0.9:53", abi.ReasonForwarded},
		{"to a LAN, by the kernel", "down egress", "wl1", "udp 10.0.1.10:4000 > 192.0.2.9:53", abi.ReasonForwardDenied},
		{"out of a tunnel", "uplink egress", "tap0", "udp 10.20.0.9:4000 > 198.51.100.7:53", abi.ReasonForwarded},
		{"what another workload sends", "wl2 ingress", "", "tcp 10.0.1.20:4000 > 10.0.1.10:80 flags=S", abi.ReasonDelivered},
		{"a public source", "uplink egress", "down", "udp 192.0.2.9:4000 > 198.51.100.7:53", abi.ReasonForwarded},
		{"an announced source", "uplink egress", "down", "udp 10.0.2.9:4000 > 198.51.100.7:53", abi.ReasonForwarded},
		{"an announced source of IPv6", "uplink egress", "down", "udp [fd00:2::9]:4000 > [2001:db8:7::7]:53", abi.ReasonForwarded},
	} {
		h.sub(t, test.name, func(t *testing.T) {
			was := parseFrame(frameOf(t, test.line))
			if left := h.pass(t, test.at, test.from, was.frame, test.reason); left.String() != was.String() {
				t.Errorf("%s left as %s", was, left)
			}
		})
	}
	h.sub(t, "a source that is not announced is", func(t *testing.T) {
		for _, line := range []string{"udp 10.0.3.9:4000 > 198.51.100.7:53", "udp [fd00:3::9]:4000 > [2001:db8:7::7]:53"} {
			if left := h.stack(t, "down", frameOf(t, line)); left.src.String() != self4 && left.src.String() != self6 {
				t.Errorf("%s left as %s", line, left)
			}
		}
	})
	h.sub(t, "an answer", func(t *testing.T) {
		h.pass(t, "uplink ingress", "", frameOf(t, "tcp 198.51.100.7:999 > 10.0.1.10:80 flags=S"), abi.ReasonDelivered)
		if left := h.out(t, frameOf(t, "tcp 10.0.1.10:80 > 198.51.100.7:999 flags=SA")); left.src.String() != w1v4 {
			t.Errorf("left as %s", left)
		}
	})
}

// TestWhatCannotBeTranslatedIsDropped: it never leaves with a private source.
func TestWhatCannotBeTranslatedIsDropped(t *testing.T) {
	bare := func(s *tc.State) { s.Generation.SNATAddresses[0].IPv6 = netip.Addr{} }
	h := newHidden(t, bare)
	for _, test := range []struct {
		name, line string
		reason     abi.Reason
	}{
		{"no address of the family", "udp [fd00:1::10]:4000 > [2001:db8:7::7]:53", abi.ReasonSnatNoAddress},
		{"a type of ICMP that is no flow", "icmp 10.0.1.10 > 198.51.100.7 type=13", abi.ReasonSnatUntracked},
		{"an answer to an echo that nobody asked for", "icmp 10.0.1.10 > 198.51.100.7 type=0 id=7", abi.ReasonSnatUntracked},
		{"a RST of no flow", "tcp 10.0.1.10:4000 > 198.51.100.7:443 flags=R", abi.ReasonSnatUntracked},
		{"a later fragment of an unknown datagram", "udp 10.0.1.10 > 198.51.100.7 frag=1480", abi.ReasonSnatFragment},
	} {
		h.sub(t, test.name, func(t *testing.T) {
			h.pass(t, "wl1 ingress", "", frameOf(t, test.line), test.reason)
			h.pass(t, "uplink egress", "wl1", frameOf(t, test.line), test.reason)
		})
	}
	h.sub(t, "an ICMP error about no flow", func(t *testing.T) {
		frame := fix(icmpError(t, w1v4, client4, "udp 198.51.100.7:53 > 10.0.1.10:4000"))
		h.pass(t, "uplink egress", "wl1", frame, abi.ReasonSnatUntracked)
	})
}

// TestTranslatedFragmentsFollowTheirFirst, both ways, in any order behind it.
func TestTranslatedFragmentsFollowTheirFirst(t *testing.T) {
	h := newHidden(t, following, func(s *tc.State) { s.Generation.Workloads[0].Egress.Fragments = classify.FragAccept })
	for _, test := range []struct{ name, from, to, self string }{
		{"IPv4", w1v4, client4, self4}, {"IPv6", w1v6, client6, self6},
	} {
		h.sub(t, test.name, func(t *testing.T) {
			part := func(from, to string, port bool, frag string) []byte {
				a, b := netip.MustParseAddr(from), netip.MustParseAddr(to)
				if port {
					return frameOf(t, fmt.Sprintf("udp %s > %s frag=%s", netip.AddrPortFrom(a, 4000), netip.AddrPortFrom(b, 53), frag))
				}
				return frameOf(t, fmt.Sprintf("udp %s > %s frag=%s", a, b, frag))
			}
			later := func() []byte { return part(test.from, test.to, false, "1480") }
			h.pass(t, "wl1 ingress", "", later(), abi.ReasonSnatFragment)
			sent := h.out(t, part(test.from, test.to, true, "0+"))
			for _, frag := range []string{"2960", "1480+", "1480+"} {
				if left := h.out(t, part(test.from, test.to, false, frag)); left.src.String() != test.self {
					t.Errorf("a later fragment left from %s", left.src)
				}
			}
			first := parseFrame(part(test.to, test.self, true, "0+"))
			binary.BigEndian.PutUint16(first.frame[first.l4:], 53)
			binary.BigEndian.PutUint16(first.frame[first.l4+2:], sent.port(true))
			early := h.pass(t, "uplink ingress", "", part(test.to, test.self, false, "1480"), abi.ReasonLocal)
			if early.dst.String() != test.self {
				t.Errorf("a fragment before its first came in to %s", early.dst)
			}
			if back := h.pass(t, "uplink ingress", "", first.frame, abi.ReasonDelivered); back.dst.String() != test.from || back.port(false) != 4000 {
				t.Errorf("a first fragment came in to %s", back)
			}
			if back := h.pass(t, "uplink ingress", "", part(test.to, test.self, false, "1480"), abi.ReasonDelivered); back.dst.String() != test.from {
				t.Errorf("a later fragment came in to %s", back)
			}
		})
	}
}
