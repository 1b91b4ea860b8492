package progruntc_test

import (
	"bytes"
	"net"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/tc"
	"sluice/xdp/abi"
	"sluice/xdp/pin"
)

// nextTick returns at the beginning of one of the kernel's ticks: what was kept in the one before holds no more.
func nextTick(t testing.TB) {
	t.Helper()
	coarse := func() int64 {
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC_COARSE, &now); err != nil {
			t.Fatal(err)
		}
		return now.Nano()
	}
	for was, deadline := coarse(), time.Now().Add(10*time.Second); coarse() == was; {
		if time.Now().After(deadline) {
			t.Fatal("the clock stands still")
		}
	}
}

// sent is what became of a packet.
type sent struct {
	verdict uint32
	frame   []byte
	mark    uint32
}

// send runs the live program of a step's hook, and asks nothing else.
func (s *site) send(t testing.TB, g *pin.Generation, st step) sent {
	t.Helper()
	name, device := s.program(t, g, st.at)
	frame := frameOf(t, st.line)
	copy(frame, append(bytes.Clone(device.HardwareAddr), make([]byte, 6)...)[:6])
	var left fullContext
	opts := &ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+256), ContextOut: &left,
		Context: skBuff{Mark: st.mark, Ifindex: uint32(device.Index)}}
	if st.from != "" {
		opts.Context = skBuff{Mark: st.mark, Ifindex: uint32(device.Index), IngressIfindex: uint32(index(t, st.from).Index)}
	}
	verdict, err := g.Programs[name].Run(opts)
	if err != nil {
		t.Fatal(err)
	}
	return sent{verdict, opts.DataOut, left.Mark}
}

// twice sends a packet two times within a tick: the kernel is asked about the first one.
func (s *site) twice(t testing.TB, g *pin.Generation, st step) (asked, kept sent) {
	t.Helper()
	for range 1000 {
		nextTick(t)
		asked = s.send(t, g, st)
		kept = s.send(t, g, st)
		if asked.verdict != tcxRedirect || !bytes.Equal(asked.frame[:12], kept.frame[:12]) {
			return asked, kept
		}
	}
	t.Fatal("no two packets meet within a tick, or nothing is kept")
	return asked, kept
}

// wire is the head of a frame that leaves by an interface.
func (s *site) wire(t testing.TB, iface string) []byte {
	t.Helper()
	neighbors, err := netlink.NeighList(index(t, iface).Index, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range neighbors {
		if n.State == netlink.NUD_PERMANENT {
			return append(bytes.Clone(n.HardwareAddr), index(t, iface).HardwareAddr...)
		}
	}
	t.Fatalf("%s has no neighbor", iface)
	return nil
}

func unguarded(want *tc.State) { want.Generation.Strict = nil }

func TestWithinATickPacketsGoWhereTheKernelSaid(t *testing.T) {
	reply6 := step{at: "wl1 ingress", line: "tcp [fd00:1::10]:80 > [2001:db8:7::7]:9999 flags=A", to: "uplink"}
	for _, c := range []struct {
		name  string
		edits []func(*tc.State)
		open  []step
		step  step
		mark  uint32 // of the second packet
	}{
		{"IPv4", []func(*tc.State){unguarded}, []step{web("S").numbered(100, 0), webReply("SA").numbered(5000, 101), web("A").numbered(101, 5001), webReply("A")},
			webReply("A"), abi.MarkJudged | abi.MarkPassed},
		{"IPv6", []func(*tc.State){unguarded}, []step{{at: "uplink ingress", line: "tcp [2001:db8:7::7]:9999 > [fd00:1::10]:80 flags=S", reason: abi.ReasonDelivered, to: "wl1"},
			{at: "wl1 ingress", line: "tcp [fd00:1::10]:80 > [2001:db8:7::7]:9999 flags=SA", reason: abi.ReasonForwarded, to: "uplink"}},
			reply6, abi.MarkJudged | abi.MarkPassed},
		{"where strict tunnels have a guard", nil, []step{web("S").numbered(100, 0), webReply("SA").numbered(5000, 101)}, webReply("A"), abi.MarkJudged},
		{"paced", []func(*tc.State){unguarded, paced(mbps, true)}, []step{web("S").numbered(100, 0), webReply("SA").numbered(5000, 101)},
			webReply("A"), abi.MarkJudged | abi.MarkPaced},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t, c.edits...)
			g := s.live(t)
			for _, st := range c.open {
				s.try(t, g, st)
			}
			asked, kept := s.twice(t, g, c.step)
			frame := frameOf(t, c.step.line)
			copy(frame, append(bytes.Clone(index(t, "wl1").HardwareAddr), make([]byte, 6)...)[:6])
			want := moved(frame, true)
			if asked.verdict != tcxRedirect || asked.mark != c.mark&^abi.MarkPassed || !bytes.Equal(asked.frame, want) {
				t.Errorf("asked: returned %d, mark %#x, frame\n%x, want\n%x", asked.verdict, asked.mark, asked.frame, want)
			}
			copy(want, s.wire(t, "uplink"))
			if kept.verdict != tcxRedirect || kept.mark != c.mark || !bytes.Equal(kept.frame, want) {
				t.Errorf("kept: returned %d, mark %#x (want %#x), frame\n%x, want\n%x", kept.verdict, kept.mark, c.mark, kept.frame, want)
			}
		})
	}
}

// TestWhatIsKeptCountsAsWhatIsAsked, at both hooks that the packet passes.
func TestWhatIsKeptCountsAsWhatIsAsked(t *testing.T) {
	s := newSite(t, unguarded)
	s.established(t)
	g := s.live(t)
	s.quiet(t, "wl1")
	s.quiet(t, "uplink")
	_, before := s.webFlow(t)
	asked, kept := s.twice(t, g, webReply("A"))
	for _, mark := range []uint32{asked.mark, kept.mark} {
		left := s.send(t, g, step{at: "uplink egress", line: webReply("A").line, mark: mark, from: "wl1"})
		if left.verdict != tcxNext || left.mark != abi.MarkJudged {
			t.Errorf("what has mark %#x leaves with %d, mark %#x", mark, int32(left.verdict), left.mark)
		}
	}
	in, out := s.counted(t, "wl1"), s.counted(t, "uplink")
	_, after := s.webFlow(t)
	n := after.Answered.Packets - before.Answered.Packets
	if want := map[abi.Reason]uint64{abi.ReasonForwarded: n}; n < 2 || !cmp.Equal(in, want) {
		t.Errorf("%d packets of the flow; at the workload %v", n, in)
	}
	if want := map[abi.Reason]uint64{abi.ReasonJudged: 2}; !cmp.Equal(out, want) { // of these two alone, and each once
		t.Errorf("at the uplink %v, want %v", out, want)
	}
}

// TestAPassedMarkIsNobodyElses: of what is made here, or comes in with it, it says nothing.
func TestAPassedMarkIsNobodyElses(t *testing.T) {
	s := newSite(t, unguarded)
	g := s.live(t)
	const passed = abi.MarkJudged | abi.MarkPassed
	for _, st := range []step{
		{at: "uplink egress", line: "tcp 198.18.0.2:4000 > 198.51.100.7:25 flags=S", mark: abi.MarkPassed, reason: abi.ReasonDefaultDrop},
		{at: "wl1 ingress", line: "tcp 10.0.1.20:4000 > 198.51.100.7:25 flags=S", mark: passed, reason: abi.ReasonWorkloadSpoofed},
	} {
		s.try(t, g, st)
	}
	if left := s.send(t, g, step{at: "uplink ingress", line: "tcp 198.51.100.7:9 > 198.18.0.2:4000 flags=A", mark: passed | 7}); left.mark != 7 {
		t.Errorf("what comes in keeps the mark %#x", left.mark)
	}
}

// TestAPassedMarkIsSpentWhereItLeaves: behind an interface that the file does not name it may come in again, for a workload.
func TestAPassedMarkIsSpentWhereItLeaves(t *testing.T) {
	s := newSite(t, unguarded)
	s.established(t)
	g := s.live(t)
	_, kept := s.twice(t, g, webReply("A"))
	left := s.send(t, g, step{at: "uplink egress", line: webReply("A").line, mark: kept.mark, from: "wl1"})
	again := step{at: "wl2 egress", line: "tcp 10.20.0.9:4000 > 10.0.1.20:25 flags=S", mark: left.mark, from: "tap0"}
	if got := s.send(t, g, again); got.verdict != tcxDrop {
		t.Errorf("with mark %#x it reaches the workload: %d", left.mark, int32(got.verdict))
	}
}

// TestAFrameWithATagInItGoesByTheKernel: where its packet begins is not where a hop is written.
func TestAFrameWithATagInItGoesByTheKernel(t *testing.T) {
	s := newSite(t, unguarded)
	s.established(t)
	g := s.live(t)
	tagged := webReply("A")
	tagged.line += " vlan=7"
	frame := frameOf(t, tagged.line)
	copy(frame, append(bytes.Clone(index(t, "wl1").HardwareAddr), make([]byte, 6)...)[:6])
	bare := moved(append(bytes.Clone(frame[:12]), frame[16:]...), true)
	want := append(bytes.Clone(frame[:16]), bare[12:]...)
	for range 20 { // the clock may tick before the last
		s.twice(t, g, webReply("A"))
		if got := s.send(t, g, tagged); got.verdict != tcxRedirect || got.mark != abi.MarkJudged || !bytes.Equal(got.frame, want) {
			t.Fatalf("returned %d, mark %#x, frame\n%x, want\n%x", int32(got.verdict), got.mark, got.frame, want)
		}
	}
}

// TestTheTwinKeepsNothing: it runs where it may be interrupted by what does.
func TestTheTwinKeepsNothing(t *testing.T) {
	s := newSite(t, unguarded)
	s.established(t)
	g := s.live(t)
	name, device := s.program(t, g, "wl1 ingress")
	twin := s.twin(t, g, "wl1 ingress", name)
	frame := frameOf(t, webReply("A").line)
	copy(frame, device.HardwareAddr)
	for range 20 {
		nextTick(t)
		run(t, twin, skBuff{Ifindex: uint32(device.Index)}, frame)
		if asked := s.send(t, g, webReply("A")); !bytes.Equal(asked.frame[:6], device.HardwareAddr) {
			t.Fatalf("the frame went where the twin was told: %x", asked.frame[:12])
		}
	}
}

// TestWhatIsKeptIsForgottenWithTheTick: neighbors, routes and MTUs that change.
func TestWhatIsKeptIsForgottenWithTheTick(t *testing.T) {
	s := newSite(t, unguarded)
	s.established(t)
	g := s.live(t)
	other := net.HardwareAddr{2, 0, 0, 0, 0, 77}
	uplink := index(t, "uplink")
	neighbor := netlink.Neigh{LinkIndex: uplink.Index, State: netlink.NUD_PERMANENT, IP: net.ParseIP("198.18.0.1"), HardwareAddr: other}
	if err := netlink.NeighSet(&neighbor); err != nil {
		t.Fatal(err)
	}
	if _, kept := s.twice(t, g, webReply("A")); !bytes.Equal(kept.frame[:6], other) {
		t.Errorf("the frame goes to %x, want %s", kept.frame[:6], other)
	}
	big := webReply("A")
	big.line += " len=1400"
	if asked, kept := s.twice(t, g, big); asked.verdict != tcxRedirect || kept.verdict != tcxRedirect {
		t.Errorf("1400 bytes: %d, then %d", int32(asked.verdict), int32(kept.verdict))
	}
	_, clients, err := net.ParseCIDR(client4 + "/32")
	if err != nil {
		t.Fatal(err)
	}
	route := &netlink.Route{Dst: clients, Gw: net.ParseIP("198.18.0.1"), LinkIndex: uplink.Index, MTU: 1000, MTULock: true}
	if err := netlink.RouteAdd(route); err != nil {
		t.Fatal(err)
	}
	nextTick(t)
	if asked := s.send(t, g, big); asked.verdict != tcxNext {
		t.Errorf("1400 bytes over a route of 1000: %d", int32(asked.verdict))
	}
	if asked, kept := s.twice(t, g, webReply("A")); asked.verdict != tcxRedirect || kept.verdict != tcxRedirect {
		t.Errorf("a small one: %d, then %d", int32(asked.verdict), int32(kept.verdict))
	}
	// Within the tick, too: the MTU is kept with the rest.
	s.twice(t, g, webReply("A"))
	if kept := s.send(t, g, big); kept.verdict != tcxNext {
		t.Errorf("1400 bytes after a small one: %d", int32(kept.verdict))
	}
}
