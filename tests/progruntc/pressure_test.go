package progruntc_test

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"sluice/tc"
	"sluice/xdp/abi"
	"sluice/xdp/pin"
)

func (s *site) pressure(t *testing.T) (sum abi.FlowPressure) {
	t.Helper()
	var perCPU []abi.FlowPressure
	if err := s.sharedMap(t, "flow-pressure", 1).Lookup(uint32(0), &perCPU); err != nil {
		t.Fatal(err)
	}
	for _, c := range perCPU {
		sum.Full += c.Full
		sum.Crowded += c.Crowded
		sum.Unmade += c.Unmade
	}
	return sum
}

func (s *site) sharedMap(t *testing.T, name string, version int) *ebpf.Map {
	t.Helper()
	m, err := ebpf.LoadPinnedMap(pin.At(s.dir).StateMapPath(name, version), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// TestASYNFloodPushesOutOnlyItsLike: forged sources fill the table of the outside's unproven flows three times over.
func TestASYNFloodPushesOutOnlyItsLike(t *testing.T) {
	s := newSite(t)
	g := s.live(t)
	asked := step{at: "wl1 ingress", line: "udp 10.0.1.10:4000 > 198.51.100.7:53", reason: abi.ReasonForwarded, to: "uplink"}
	for _, st := range []step{web("S"), webReply("A"), web("A"), asked} {
		s.try(t, g, st)
	}
	name, device := s.program(t, g, "uplink ingress")
	frame := frameOf(t, "tcp 203.0.113.1:1 > 10.0.1.10:80 flags=S")
	copy(frame, device.HardwareAddr)
	rng := rand.New(rand.NewPCG(1, 2))
	for n := range 3 * abi.FreshLeast {
		binary.BigEndian.PutUint32(frame[26:], 203<<24|113<<8|rng.Uint32()%256)
		binary.BigEndian.PutUint16(frame[34:], uint16(n))
		verdict, err := g.Programs[name].Run(&ebpf.RunOptions{Data: frame, Context: skBuff{Ifindex: uint32(device.Index)}})
		if err != nil || verdict != tcxRedirect {
			t.Fatalf("SYN %d: %d, %v", n, int32(verdict), err)
		}
	}
	inside := 0
	s.eachFlow(t, func(m *ebpf.Map, key abi.FlowKey, flow abi.Flow) {
		if flow.Flags&abi.FlowInside != 0 {
			inside++
		}
	})
	if where, flow := s.webFlow(t); where != "flows" || flow.State != uint8(abi.FlowEstablished) || inside != 1 {
		t.Errorf("the proven flow is in %q: %+v; %d of the inside", where, flow, inside)
	}
	s.try(t, g, webReply("A"))
	s.try(t, g, step{at: "uplink ingress", line: "udp 198.51.100.7:53 > 10.0.1.10:4000", reason: abi.ReasonDelivered, to: "wl1"})
	next := "198.51.100.7:7777"
	s.try(t, g, step{at: "uplink ingress", line: "tcp " + next + " > 10.0.1.10:80 flags=S", reason: abi.ReasonDelivered, to: "wl1"})
	s.try(t, g, step{at: "wl1 ingress", line: "tcp 10.0.1.10:80 > " + next + " flags=SA", reason: abi.ReasonForwarded, to: "uplink"})
	if p := s.pressure(t); p != (abi.FlowPressure{}) {
		t.Errorf("pressure %+v", p)
	}
}

// TestAnOwnerHasAtMostItsShareAndAFullTableKeepsWhatItHas: what finds no room stays where it was, passes, and is tried again.
func TestAnOwnerHasAtMostItsShareAndAFullTableKeepsWhatItHas(t *testing.T) {
	s := newSite(t, func(want *tc.State) { want.Generation.FlowSlots = 4 })
	g := s.live(t)
	ask := func(at string, from string, port string) {
		t.Helper()
		s.try(t, g, step{at: at, line: "udp " + from + ":" + port + " > 198.51.100.7:53", reason: abi.ReasonForwarded, to: "uplink"})
		s.try(t, g, step{at: "uplink ingress", line: "udp 198.51.100.7:53 > " + from + ":" + port, reason: abi.ReasonDelivered, to: at[:3]})
	}
	stands := func(src string, port uint16) string {
		t.Helper()
		where, flow := s.flow(t, src, port, client4, 53, 17)
		if flow.State != uint8(abi.FlowEstablished) {
			t.Errorf("port %d: %+v", port, flow)
		}
		return where
	}
	ask("wl1 ingress", w1v4, "4001")
	ask("wl1 ingress", w1v4, "4002")
	ask("wl1 ingress", w1v4, "4003") // half of four is two
	if a, b, c := stands(w1v4, 4001), stands(w1v4, 4002), stands(w1v4, 4003); a != "flows" || b != "flows" || c != "fresh-out" {
		t.Errorf("they stand in %s, %s, %s", a, b, c)
	}
	if p := s.pressure(t); p != (abi.FlowPressure{Crowded: 1}) {
		t.Errorf("crowded: pressure %+v", p)
	}
	for _, st := range []step{web("S"), webReply("A"), web("A")} {
		s.try(t, g, st)
	}
	own := step{at: "uplink egress", line: "udp 198.18.0.2:4000 > 198.51.100.7:53", reason: abi.ReasonRuleAccept}
	s.try(t, g, own)
	s.try(t, g, step{at: "uplink ingress", line: "udp 198.51.100.7:53 > 198.18.0.2:4000", reason: abi.ReasonLocal})
	// The sweep has counted: workload 1 has one only, so it is let in, and finds the table full.
	if err := s.sharedMap(t, "flow-shares", 1).Put(uint32(index(t, "wl1").Index), uint32(1)); err != nil {
		t.Fatal(err)
	}
	s.age(t, 2*time.Second) // its time is written again
	ask("wl1 ingress", w1v4, "4003")
	if p := s.pressure(t); p != (abi.FlowPressure{Crowded: 1, Full: 1}) || stands(w1v4, 4003) != "fresh-out" {
		t.Errorf("full: pressure %+v", p)
	}
	s.clearFlows(t)
	ask("wl1 ingress", w1v4, "4003")
	if where := stands(w1v4, 4003); where != "flows" {
		t.Errorf("with room again: in %s", where)
	}
}

func TestWhoWatchesFlowsHearsWhatBecomesOfThem(t *testing.T) {
	s := newSite(t)
	g := s.live(t)
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		t.Fatal(err)
	}
	var all [abi.WatchMax]abi.Watch
	all[abi.WatchFlows] = abi.Watch{UntilNs: uint64(now.Nano()) + uint64(time.Hour), Burst: 100}
	if err := s.sharedMap(t, "watches", 2).Put(uint32(0), all); err != nil {
		t.Fatal(err)
	}
	for _, st := range []step{web("S"), webReply("A"), web("A"), web("A"), web("FA"), webReply("FA"), web("A")} {
		s.try(t, g, st)
	}
	g = s.change(t, func(g *tc.Generation) { without(&g.Workloads[0].Ingress) })
	s.try(t, g, webReply("A").dropped(abi.ReasonFlowRevoked))
	s.try(t, g, webReply("A").dropped(abi.ReasonFlowRevoked))
	events, err := ringbuf.NewReader(s.sharedMap(t, "flow-events", 2))
	if err != nil {
		t.Fatal(err)
	}
	defer events.Close()
	events.SetDeadline(time.Now().Add(deadline))
	for _, want := range []abi.FlowChange{abi.FlowEventNew, abi.FlowEventProven, abi.FlowEventClosed, abi.FlowEventRevoked} {
		record, err := events.Read()
		if err != nil {
			t.Fatal(err)
		}
		const change = 8 + 40 + unsafe.Sizeof(abi.Flow{})
		if got := abi.FlowChange(record.RawSample[change]); got != want || len(record.RawSample) != int(change)+8 {
			t.Errorf("event %d in %d bytes, want %d", got, len(record.RawSample), want)
		}
	}
	if n := events.AvailableBytes(); n != 0 {
		t.Errorf("%d bytes of more events", n)
	}
}
