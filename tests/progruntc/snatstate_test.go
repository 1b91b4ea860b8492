package progruntc_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"sluice/tc"
	"sluice/xdp/abi"
	"sluice/xdp/pin"
)

func (s *site) stateMap(t *testing.T, name string, version int) *ebpf.Map {
	t.Helper()
	m, err := ebpf.LoadPinnedMap(pin.At(s.dir).StateMapPath(name, version), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// translations opens the pinned map.
func (s *site) translations(t *testing.T) *ebpf.Map {
	t.Helper()
	return s.stateMap(t, "translations", 3)
}

// entries reads a hash whole.
func entries[K comparable, V any](t *testing.T, m *ebpf.Map) map[K]V {
	t.Helper()
	out := map[K]V{}
	var key K
	var value V
	all := m.Iterate()
	for all.Next(&key, &value) {
		out[key] = value
	}
	if err := all.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// pass an hour, or less: every flow of the inside and its translation are so much older.
func (s *site) wait(t *testing.T, by time.Duration) {
	t.Helper()
	for _, name := range []string{"flows", "fresh-out"} {
		m := s.stateMap(t, name, 3)
		for key, f := range entries[abi.FlowKey, abi.Flow](t, m) {
			f.LastNs -= uint64(by)
			f.SinceNs -= uint64(by)
			if err := m.Put(key, f); err != nil {
				t.Fatal(err)
			}
		}
	}
	m := s.translations(t)
	for key, one := range entries[abi.FlowKey, abi.Translation](t, m) {
		one.SinceNs -= uint64(by)
		if err := m.Put(key, one); err != nil {
			t.Fatal(err)
		}
	}
}

// checkTranslations: each flow that is translated finds itself where the wire leads, and so no two have one translation.
func (s *site) checkTranslations(t *testing.T) (flows int) {
	t.Helper()
	var clock unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &clock); err != nil {
		t.Fatal(err)
	}
	now := uint64(clock.Nano())
	wires := entries[abi.FlowKey, abi.Translation](t, s.translations(t))
	seen := map[string]abi.FlowKey{}
	for _, name := range []string{"flows", "fresh-out"} {
		for key, f := range entries[abi.FlowKey, abi.Flow](t, s.stateMap(t, name, 3)) {
			if idle := now - f.LastNs; f.Flags&abi.FlowNat == 0 || int64(idle) > int64(time.Minute) {
				continue // what has ended is swept later, and may have lost its translation
			}
			flows++
			remote := key.Addr[1-f.Opener]
			wire := fmt.Sprint(f.NatAddr, f.NatPort, remote, key.Port[1-f.Opener], key.Protocol)
			if other, taken := seen[wire]; taken && other != key {
				t.Errorf("two flows have one translation: %v and %v", other, key)
			}
			seen[wire] = key
			found := false
			for _, one := range wires {
				found = found || one.Inner == key && one.SinceNs == f.SinceNs && one.Port == f.NatPort && one.Addr == f.NatAddr
			}
			if !found {
				t.Errorf("the flow %v has no translation of its own", key)
			}
		}
	}
	return flows
}

func flowLine(n int) string {
	return fmt.Sprintf("udp 10.0.1.10:%d > 198.51.100.7:53", 10000+n)
}

const snatPorts = snatLast - snatFirst + 1

// TestPortsRunOutAndComeBack: one for each flow to a destination, all of the range, and those of dead flows again.
func TestPortsRunOutAndComeBack(t *testing.T) {
	h := newHidden(t)
	h.gateway.enter(t)
	used := map[string]bool{}
	for n := range snatPorts {
		used[h.out(t, frameOf(t, flowLine(n))).String()] = true
	}
	if len(used) != snatPorts {
		t.Fatalf("%d flows have %d translations", snatPorts, len(used))
	}
	h.pass(t, "wl1 ingress", "", frameOf(t, flowLine(snatPorts)), abi.ReasonSnatExhausted)
	h.pass(t, "uplink egress", "wl1", frameOf(t, flowLine(snatPorts)), abi.ReasonSnatExhausted)
	last, err := h.Exhausted(t.Context())
	if err != nil || last.Packets != 2 || last.Source.String() != "10.0.1.10:10064" || last.Destination.String() != "198.51.100.7:53" ||
		last.Address.String() != self4 || last.Protocol != 17 || last.Interface != uint32(index(t, "wl1").Index) {
		t.Errorf("exhausted: %+v, %v", last, err)
	}
	h.out(t, frameOf(t, "udp 10.0.1.10:10064 > 198.51.100.7:54")) // another destination
	h.out(t, frameOf(t, "tcp 10.0.1.10:10064 > 198.51.100.7:53 flags=S"))

	// A flow that has just ended is left alone for a moment: its last packets may be on their way.
	h.wait(t, 63*time.Second)
	for n := range snatPorts {
		h.out(t, frameOf(t, flowLine(n+snatPorts)))
	}
	h.pass(t, "wl1 ingress", "", frameOf(t, flowLine(0)), abi.ReasonSnatExhausted)
	if n := h.checkTranslations(t); n < snatPorts {
		t.Errorf("%d flows are translated, want %d", n, snatPorts)
	}
	// An answer to who had the port before goes to who has it now.
	for wire := range used {
		a := netip.MustParseAddrPort(wire[:len("198.18.0.2:2000")])
		back := h.pass(t, "uplink ingress", "", frameOf(t, "udp 198.51.100.7:53 > "+a.String()), abi.ReasonDelivered)
		if back.port(false) < 10000+snatPorts {
			t.Errorf("an answer to %s went to the dead flow of port %d", a, back.port(false))
		}
	}
}

func TestFlowsWithoutPortsHaveOneTranslation(t *testing.T) {
	h := newHidden(t)
	h.stack(t, "down", frameOf(t, "gre 10.0.3.9 > 198.51.100.7"))
	h.pass(t, "wl1 ingress", "", frameOf(t, "gre 10.0.1.10 > 198.51.100.7"), abi.ReasonSnatExhausted)
	h.out(t, frameOf(t, "gre 10.0.1.10 > 198.51.100.8"))
	h.stack(t, "down", frameOf(t, "sctp 10.0.3.9:9899 > 198.51.100.7:9899"))
	h.pass(t, "wl1 ingress", "", frameOf(t, "sctp 10.0.1.10:9899 > 198.51.100.7:9899"), abi.ReasonSnatExhausted)
	h.out(t, frameOf(t, "sctp 10.0.1.10:9900 > 198.51.100.7:9899"))
	h.checkTranslations(t)
}

// TestTheBoxAndTranslatedFlowsKeepApart: neither gets the other's answers.
func TestTheBoxAndTranslatedFlowsKeepApart(t *testing.T) {
	h := newHidden(t, func(s *tc.State) { s.Generation.SNATPorts.Last = snatFirst })
	own := frameOf(t, "udp 198.18.0.2:2000 > 198.51.100.7:53")
	h.sub(t, "what the box sends first has the port", func(t *testing.T) {
		h.pass(t, "uplink egress", "", own, abi.ReasonRuleAccept)
		h.pass(t, "wl1 ingress", "", frameOf(t, flowLine(0)), abi.ReasonSnatExhausted)
		h.pass(t, "uplink ingress", "", frameOf(t, "udp 198.51.100.7:53 > 198.18.0.2:2000"), abi.ReasonLocal)
	})
	h.sub(t, "and what a workload sent first", func(t *testing.T) {
		h.clearFlows(t)
		sent := h.out(t, frameOf(t, flowLine(0)))
		h.pass(t, "uplink egress", "", own, abi.ReasonSnatClash)
		h.pass(t, "uplink egress", "", own, abi.ReasonSnatClash)
		if back := h.pass(t, "uplink ingress", "", answer(sent), abi.ReasonDelivered); back.dst.String() != w1v4 {
			t.Errorf("the answer came to %s", back)
		}
		h.pass(t, "uplink egress", "", frameOf(t, "udp 198.18.0.2:2001 > 198.51.100.7:53"), abi.ReasonRuleAccept)
	})
}

// regenerate loads a changed generation.
func (h *hidden) regenerate(t *testing.T, change func(*tc.State)) {
	t.Helper()
	want := h.want
	want.Interfaces = append([]tc.Interface(nil), want.Interfaces...)
	change(&want)
	h.converge(t, want)
	h.g = h.live(t)
}

// TestAFlowKeepsItsTranslation over generations: another range, another address, snat switched off.
func TestAFlowKeepsItsTranslation(t *testing.T) {
	h := newHidden(t)
	h.gateway.enter(t)
	frame := frameOf(t, flowLine(0))
	sent := h.out(t, frame)
	same := func(what string) {
		t.Helper()
		if left := h.out(t, frame); left.String() != sent.String() {
			t.Errorf("%s: %s became %s", what, sent, left)
		}
		if back := h.pass(t, "uplink ingress", "", answer(sent), abi.ReasonDelivered); back.dst.String() != w1v4 || back.port(false) != 10000 {
			t.Errorf("%s: the answer came to %s", what, back)
		}
	}
	h.regenerate(t, func(s *tc.State) { s.Generation.SNATPorts.First, s.Generation.SNATPorts.Last = 3000, 3063 })
	same("another range")
	if left := h.out(t, frameOf(t, flowLine(1))); left.port(true) < 3000 {
		t.Errorf("a new flow left as %s", left)
	}
	h.regenerate(t, func(s *tc.State) {
		s.Generation.SNATAddresses = []tc.SNATAddress{{IPv4: netip.MustParseAddr("192.0.2.1")}}
	})
	same("another address")
	if left := h.out(t, frameOf(t, flowLine(2))); left.src.String() != "192.0.2.1" {
		t.Errorf("a new flow left as %s", left)
	}
	h.regenerate(t, func(s *tc.State) {
		for i := range s.Interfaces {
			s.Interfaces[i].SNAT = tc.SNAT{}
		}
		s.Generation.SNATAddresses = nil
	})
	same("snat: none")
	if left := h.out(t, frameOf(t, flowLine(3))); left.src.String() != w1v4 {
		t.Errorf("a new flow left as %s", left)
	}
	h.checkTranslations(t)
}

// TestAFlowThatBeganBeforeIsTranslatedFromNowOn: its entry is another's from the next packet on.
func TestAFlowThatBeganBeforeIsTranslatedFromNowOn(t *testing.T) {
	h := newHidden(t, func(s *tc.State) {
		for i := range s.Interfaces {
			s.Interfaces[i].SNAT = tc.SNAT{}
		}
	})
	h.gateway.enter(t)
	frame := frameOf(t, "tcp 10.0.1.10:4000 > 198.51.100.7:443 flags=A")
	if left := h.out(t, frame); left.src.String() != w1v4 {
		t.Fatalf("left as %s", left)
	}
	h.pass(t, "uplink ingress", "", frameOf(t, "tcp 198.51.100.7:443 > 10.0.1.10:4000 flags=A"), abi.ReasonDelivered)
	h.out(t, frame) // proven now
	h.regenerate(t, translating)
	sent := h.out(t, frame)
	if sent.src.String() != self4 {
		t.Fatalf("left as %s", sent)
	}
	h.pass(t, "uplink ingress", "", answer(sent), abi.ReasonDelivered)
	if n := h.checkTranslations(t); n != 1 {
		t.Errorf("%d flows are translated", n)
	}
}

// TestAFlowThatBeginsAnewIsWhoseItIsNow: the box sent as if it were the workload, which is to be counted for what it sends itself.
func TestAFlowThatBeginsAnewIsWhoseItIsNow(t *testing.T) {
	h := newHidden(t)
	h.pass(t, "uplink egress", "", frameOf(t, flowLine(0)), abi.ReasonRuleAccept)
	h.out(t, frameOf(t, flowLine(0)))
	if where, flow := h.flow(t, w1v4, 10000, "198.51.100.7", 53, 17); where != "fresh-out" || flow.Owner != uint32(index(t, "wl1").Index) || flow.Flags&abi.FlowNat == 0 {
		t.Errorf("in %q: %+v", where, flow)
	}
}

// TestAFlowThatWasForgottenLeavesByAnotherPort, for the answers to the old one belong to nobody.
func TestAFlowThatWasForgottenHasNoAnswers(t *testing.T) {
	h := newHidden(t)
	sent := h.out(t, frameOf(t, flowLine(0)))
	h.clearFlows(t)
	h.pass(t, "uplink ingress", "", answer(sent), abi.ReasonLocal)
	again := h.out(t, frameOf(t, flowLine(0)))
	if again.String() == sent.String() {
		t.Errorf("it left as %s again, whose translation was not stale yet", again)
	}
	h.clearTranslations(t) // as if tables were made anew
	third := h.out(t, frameOf(t, flowLine(0)))
	if back := h.pass(t, "uplink ingress", "", answer(third), abi.ReasonDelivered); back.port(false) != 10000 {
		t.Errorf("the answer came to %s", back)
	}
	h.checkTranslations(t)
}
