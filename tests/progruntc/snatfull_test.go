package progruntc_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"

	"sluice/tc"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
)

// TestAFloodOfUnprovenFlowsLeavesOthersTheirTranslations: they push each other out, and what they leave behind would fill the table
// long before the sweep comes.
func TestAFloodOfUnprovenFlowsLeavesOthersTheirTranslations(t *testing.T) {
	const slots = 2 * abi.FreshLeast
	h := newHidden(t, func(s *tc.State) { s.Generation.FlowSlots = slots })
	h.gateway.enter(t)
	other := func(n int) parsed {
		t.Helper()
		return h.stack(t, "down", frameOf(t, fmt.Sprintf("tcp 10.0.3.9:%d > 198.51.100.7:443 flags=S", 5000+n)))
	}
	proven := other(0)
	back := h.pass(t, "uplink ingress", "", answerTo(t, proven, "A"), abi.ReasonStackForward)
	h.pass(t, "down egress", "uplink", back.frame, abi.ReasonForwarded)
	h.stack(t, "down", frameOf(t, "tcp 10.0.3.9:5000 > 198.51.100.7:443 flags=A"))

	program, device := h.g.Programs["workload_ingress"], index(t, "wl1")
	frame := frameOf(t, "udp 10.0.1.10:4000 > 198.51.100.7:53")
	copy(frame, device.HardwareAddr)
	const flood = 2 * (slots + (1+abi.YoungPart)*abi.FreshLeast) // what the table has room for, twice
	for n := range flood {
		binary.BigEndian.PutUint16(frame[34:], uint16(n))
		binary.BigEndian.PutUint16(frame[36:], uint16(n/32)) // there are ports for twice as many flows to one
		verdict, _ := run(t, program, skBuff{Ifindex: uint32(device.Index)}, frame)
		if verdict != tcxRedirect {
			t.Fatalf("flow %d of the flood: returned %d, counted %v", n, int32(verdict), h.counted(t, "wl1"))
		}
		if n%(flood/8) == 0 {
			other(1 + n)
		}
	}
	h.pass(t, "uplink ingress", "", answerTo(t, proven, "A"), abi.ReasonStackForward)
	left := len(entries[abi.FlowKey, abi.Translation](t, h.translations(t)))
	if most := (1 + abi.YoungPart) * abi.FreshLeast; left > most {
		t.Errorf("%d translations are left, want %d at most", left, most)
	}
	h.checkTranslations(t)
}

// answerTo is a segment back to where one came from.
func answerTo(t *testing.T, sent parsed, flags string) []byte {
	t.Helper()
	return frameOf(t, fmt.Sprintf("tcp %s:%d > %s:%d flags=%s", sent.dst, sent.port(false), sent.src, sent.port(true), flags))
}

// TestAFullTableOfTranslationsSaysSo, and not that ports ran out.
func TestAFullTableOfTranslationsSaysSo(t *testing.T) {
	h := newHidden(t, func(s *tc.State) { s.Generation.FlowSlots = 1 })
	h.gateway.enter(t)
	m := h.translations(t)
	for n := range m.MaxEntries() {
		var key abi.FlowKey
		binary.NativeEndian.PutUint32(key.Addr[0][:], n+1)
		if err := m.Update(key, abi.Translation{SinceNs: 1}, ebpf.UpdateNoExist); err != nil {
			t.Fatal(err)
		}
	}
	h.pass(t, "wl1 ingress", "", frameOf(t, flowLine(0)), abi.ReasonSnatFull)
	last, err := h.Exhausted(t.Context())
	if err != nil || last.Packets != 1 || last.Source.String() != "10.0.1.10:10000" {
		t.Errorf("exhausted: %+v, %v", last, err)
	}
}

// TestWhatTheFileAsksForHasItsTuple: a workload that was first there gives way to what the file implies, and begins anew.
func TestWhatTheFileAsksForHasItsTuple(t *testing.T) {
	underlay := func(s *tc.State) {
		s.Generation.SNATPorts.Last = snatFirst + 1
		s.Generation.System.Rules = append(s.Generation.System.Rules, classify.Rule{ID: 900, Name: "tunnel", Action: classify.Accept,
			From: prefixes(self4), To: prefixes(client4), Protocol: classify.AnyProtocol})
	}
	h := newHidden(t, underlay)
	for _, test := range []struct {
		name, asked, own, answer string
		again                    abi.Reason
	}{
		{"UDP", flowLine(0), "udp 198.18.0.2:%d > 198.51.100.7:53", "udp 198.51.100.7:53 > 198.18.0.2:%d", abi.ReasonForwarded},
		{"ESP", "esp 10.0.1.10 > 198.51.100.7", "esp 198.18.0.2 > 198.51.100.7", "esp 198.51.100.7 > 198.18.0.2", abi.ReasonSnatExhausted},
	} {
		h.sub(t, test.name, func(t *testing.T) {
			line := func(format string, sent parsed) []byte {
				if test.name == "ESP" {
					return frameOf(t, format)
				}
				return frameOf(t, fmt.Sprintf(format, sent.port(true)))
			}
			sent := h.out(t, frameOf(t, test.asked))
			h.pass(t, "uplink ingress", "", line(test.answer, sent), abi.ReasonDelivered)
			h.pass(t, "uplink egress", "", line(test.own, sent), abi.ReasonSystem)
			h.pass(t, "uplink ingress", "", line(test.answer, sent), abi.ReasonLocal)
			again := h.pass(t, "wl1 ingress", "", frameOf(t, test.asked), test.again)
			if test.again == abi.ReasonForwarded && again.port(true) == sent.port(true) {
				t.Errorf("it left as %s again, which is the box's", again)
			}
			h.pass(t, "uplink egress", "", line(test.own, sent), abi.ReasonSystem)
		})
	}
}

// TestWhatTheBoxListensForIsNobodysTranslation: what system rules or management: let in is for the box, tracked or not.
func TestWhatTheBoxListensForIsNobodysTranslation(t *testing.T) {
	listening := func(s *tc.State) {
		s.Generation.SNATPorts.Last = snatFirst
		into := func(id uint32, protocol int, ports []classify.PortRange) classify.Rule {
			return classify.Rule{ID: id, Name: fmt.Sprint(id), Action: classify.Accept, From: prefixes(client4), To: prefixes(self4), Protocol: protocol, Ports: ports}
		}
		s.Generation.System.Rules = append(s.Generation.System.Rules, into(900, 17, ports(snatFirst, snatFirst)), into(901, 50, nil))
		s.Generation.Failsafe.Rules = append(s.Generation.Failsafe.Rules, into(902, 6, ports(snatFirst, snatFirst)))
	}
	h := newHidden(t, listening)
	for _, line := range []string{flowLine(0), "esp 10.0.1.10 > 198.51.100.7", "tcp 10.0.1.10:4000 > 198.51.100.7:443 flags=S"} {
		h.sub(t, line, func(t *testing.T) {
			h.pass(t, "wl1 ingress", "", frameOf(t, line), abi.ReasonSnatExhausted)
		})
	}
	if n := len(entries[abi.FlowKey, abi.Translation](t, h.translations(t))); n != 0 {
		t.Errorf("%d translations were left behind", n)
	}
	for _, line := range []string{"udp 10.0.1.10:4000 > 198.51.100.8:53", "esp 10.0.1.10 > 198.51.100.8", "icmp 10.0.1.10 > 198.51.100.7 type=8 id=7"} {
		h.sub(t, line, func(t *testing.T) { h.out(t, frameOf(t, line)) })
	}
}

// TestAFlowFollowsTheAddressOfTheBox: an address that the box has no more gets no answers.
func TestAFlowFollowsTheAddressOfTheBox(t *testing.T) {
	const renewed = "198.18.0.77"
	h := newHidden(t)
	h.gateway.enter(t)
	frame := frameOf(t, flowLine(0))
	first := h.out(t, frame)
	h.regenerate(t, func(s *tc.State) {
		g := &s.Generation
		g.Self = addrs("169.254.1.1", "192.0.2.1", renewed, self6, "fe80::1")
		g.SNATAddresses = []tc.SNATAddress{{IPv4: netip.MustParseAddr(renewed), IPv6: netip.MustParseAddr(self6)}}
	})
	second := h.out(t, frame)
	if first.src.String() != self4 || second.src.String() != renewed {
		t.Fatalf("left as %s, then as %s", first, second)
	}
	if again := h.out(t, frame); again.String() != second.String() {
		t.Errorf("left as %s, then as %s", second, again)
	}
	h.pass(t, "uplink ingress", "", answer(second), abi.ReasonDelivered)
	h.checkTranslations(t)
}
