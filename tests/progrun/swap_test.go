package progrun_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/xdp"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
	"sluice/xdp/pin"
)

const liveFrames = 2 // BPF_F_TEST_XDP_LIVE_FRAMES, kernel 5.18

// flood sends frames out of an interface until stop is closed, and returns how many.
func flood(out int, frame []byte, stop <-chan struct{}) (uint64, error) {
	send, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, xdpTX), asm.Return()}})
	if err != nil {
		return 0, err
	}
	defer send.Close()
	const batch = 1 << 16
	for sent := uint64(0); ; sent += batch {
		select {
		case <-stop:
			return sent, nil
		default:
		}
		_, err := send.Run(&ebpf.RunOptions{Data: frame, Repeat: batch, Flags: liveFrames,
			Context: xdpMD{DataEnd: uint32(len(frame)), IngressIfindex: uint32(out)}})
		if err != nil && !errors.Is(err, unix.EINTR) {
			return sent, err
		}
	}
}

// TestAGenerationSwapUnderFloodShowsEveryPacketOneGeneration uses two generations that a mixture would betray: what is
// matched in one by source is matched in the other by destination, rules and defaults have different fates, and each
// has its own ids.
func TestAGenerationSwapUnderFloodShowsEveryPacketOneGeneration(t *testing.T) {
	const permitID, denyID = 50, 60
	permit := generation(classify.Drop,
		classify.Rule{ID: 51, From: prefixes("198.51.100.0/24"), Protocol: classify.AnyProtocol, Action: classify.Drop},
		classify.Rule{ID: permitID, From: prefixes("192.0.2.0/24"), Protocol: 17, Action: classify.Accept})
	deny := generation(classify.Accept,
		classify.Rule{ID: denyID, To: prefixes("203.0.113.0/24"), Protocol: 17, Action: classify.Drop})
	frame := frame4(17, udp(1, 2))

	s := newSite(t, permit)
	tor := ifindex(t, "tor")
	first, second := s.live, (*ebpf.Program)(nil)
	s.load(t, deny)
	second = s.live
	before, received := s.tally(t, permitID, denyID, 51), receivedBy(t, "uplink")

	stop, done := make(chan struct{}), make(chan error, 1)
	var sent uint64
	var once sync.Once
	finish := func() error { once.Do(func() { close(stop) }); return <-done }
	inSameNamespace(t, s.ns, done, func() error {
		var err error
		sent, err = flood(tor, frame, stop)
		return err
	})

	dir := pin.At(s.dir)
	const swaps = 1000
	var took time.Duration
	for i := range swaps {
		program := first
		if i%2 == 1 {
			program = second
		}
		start := time.Now()
		if err := dir.Switch(s.hook, program); err != nil {
			finish()
			t.Fatal(err)
		}
		took += time.Since(start)
		s.awaitPacket(t, finish)
	}
	if err := finish(); err != nil {
		t.Fatalf("flood: %v", err)
	}
	var delta tally
	var accepted, dropped xdp.Count
	for end := time.Now().Add(10 * time.Second); ; { // what was quiet may only have stood still
		delta = waitQuiet(t, s, before, permitID, denyID, 51)
		accepted, dropped = delta.Reasons[abi.ReasonRuleAccept], delta.Reasons[abi.ReasonRuleDrop]
		if receivedBy(t, "uplink")-received == accepted.Packets+dropped.Packets || time.Now().After(end) {
			break
		}
	}
	if len(delta.Reasons) != 2 || len(delta.Unknown) != 0 || accepted.Packets == 0 || dropped.Packets == 0 {
		t.Errorf("reasons %v, of unknown interfaces %v; want rule-accept and rule-drop alone", delta.Reasons, delta.Unknown)
	}
	if delta.Rules[permitID] != accepted || delta.Rules[denyID] != dropped || len(delta.Rules) != 2 {
		t.Errorf("rules counted %v for %v accepted and %v dropped", delta.Rules, accepted, dropped)
	}
	if got := receivedBy(t, "uplink") - received; got != accepted.Packets+dropped.Packets {
		t.Errorf("the interface received %d packets and %d were judged", got, accepted.Packets+dropped.Packets)
	}
	t.Logf("%d packets sent, %d judged (%d accepted) during %d swaps of %v each", sent, accepted.Packets+dropped.Packets,
		accepted.Packets, swaps, took/swaps)
}

// awaitPacket returns when the live generation has judged another packet, so that no swap is without traffic.
func (s *site) awaitPacket(t *testing.T, finish func() error) {
	t.Helper()
	judged := func() uint64 {
		base := s.slot * abi.ReasonSlots
		return count(t, s.counts, base+uint32(abi.ReasonRuleAccept)).Packets + count(t, s.counts, base+uint32(abi.ReasonRuleDrop)).Packets
	}
	for start, deadline := judged(), time.Now().Add(10*time.Second); judged() == start; {
		if time.Now().After(deadline) {
			t.Fatalf("no packet was judged by a rule for ten seconds after a swap (flood: %v)", finish())
		}
	}
}

// waitQuiet returns what was counted once the last packets on their way have arrived.
func waitQuiet(t *testing.T, s *site, before tally, rules ...uint32) tally {
	t.Helper()
	last, deadline := receivedBy(t, "uplink"), time.Now().Add(5*time.Second)
	for quiet := 0; quiet < 5; quiet++ {
		if time.Now().After(deadline) {
			t.Fatal("packets go on arriving after the flood has ended")
		}
		time.Sleep(10 * time.Millisecond)
		if now := receivedBy(t, "uplink"); now != last {
			last, quiet = now, 0
		}
	}
	return s.tally(t, rules...).minus(before)
}

// receivedBy counts what went through the XDP hook of a veth.
func receivedBy(t *testing.T, name string) uint64 {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return l.Attrs().Statistics.RxPackets
}

func TestExplainNeedsNoTrafficAndChangesNothing(t *testing.T) {
	s := newSite(t, strict())
	out := s.openMap(t, "fresh-out", 3)
	k := key(dst4, src4, 1, 2, 17)
	putFlow(t, out, k, time.Second, abi.FlowNew)
	var was, is abi.Flow
	if err := out.Lookup(k.FlowKey, &was); err != nil {
		t.Fatal(err)
	}
	before := s.tally(t, dropID)
	for range 100 {
		if _, err := s.Explain(t.Context(), "uplink", to4(outside, frame4(17, udp(2, 1)))); err != nil {
			t.Fatal(err)
		}
	}
	if delta := s.tally(t, dropID).minus(before); len(delta.Reasons)+len(delta.Rules)+len(delta.Unknown) != 0 {
		t.Errorf("explain counted %+v", delta)
	}
	if err := out.Lookup(k.FlowKey, &is); err != nil || is != was {
		t.Errorf("explain changed a flow from %+v to %+v (%v)", was, is, err)
	}
	if _, err := s.Explain(t.Context(), "uplink", make([]byte, 13)); err == nil {
		t.Error("a frame without an Ethernet header was explained")
	}
	if _, err := s.Explain(t.Context(), "nowhere", frame4(17, udp(2, 1))); !errors.Is(err, xdp.ErrNoInterface) {
		t.Errorf("explain on a missing interface: %v", err)
	}
	s.emptySlot(t)
	if _, err := s.Explain(t.Context(), "uplink", frame4(17, udp(2, 1))); !errors.Is(err, xdp.ErrNoGeneration) {
		t.Errorf("explain with an empty slot: %v", err)
	}
}

func TestExplainTakesJumboFrames(t *testing.T) {
	s := newSite(t, strict())
	for _, size := range []int{1500, 3000, 3500, 4096, 9000, 16000} {
		frame := to4(outside, frame4(17, udp(2, 1, make([]byte, size)...)))
		e, err := s.Explain(t.Context(), "uplink", frame)
		if err != nil || e.Reason != abi.ReasonDefaultDrop {
			t.Errorf("%d bytes: %+v, %v", len(frame), e, err)
		}
	}
}
