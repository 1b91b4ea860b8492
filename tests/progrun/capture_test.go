package progrun_test

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"sluice/xdp"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
)

// everything is the filter that wants every packet.
var everything = abi.CaptureFilter{Reasons: [abi.CaptureReasonWords]uint64{^uint64(0), ^uint64(0)}, Hooks: 7, Sample: 1, Snaplen: abi.CaptureSnaplen}

// capturing is a capture under way.
type capturing struct {
	stop  context.CancelFunc
	ended chan struct{}
	total xdp.Captured
	err   error

	mu     sync.Mutex
	frames []xdp.Frame
	hold   chan struct{} // where set, a reader that is stuck until it is closed
}

const anyRate = 10_000_000

// capture begins one and returns when the programs have been told.
func (s *site) capture(t *testing.T, f xdp.CaptureFilter, rate int, hold chan struct{}) *capturing {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	c := &capturing{stop: stop, ended: make(chan struct{}), hold: hold}
	begun := make(chan struct{})
	go func() {
		defer close(c.ended)
		c.total, c.err = xdp.Capture(ctx, s.dir, f, rate, func() error { close(begun); return nil }, c.take)
	}()
	t.Cleanup(stop)
	select {
	case <-begun:
	case <-c.ended:
		t.Fatalf("the capture ended before it began: %v", c.err)
	}
	return c
}

func (c *capturing) take(f xdp.Frame) error {
	if c.hold != nil {
		<-c.hold
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.frames = append(c.frames, f)
	return nil
}

// end stops the capture and returns what it has: all that was written before.
func (c *capturing) end(t *testing.T) []xdp.Frame {
	t.Helper()
	c.stop()
	select {
	case <-c.ended:
	case <-time.After(10 * time.Second):
		t.Fatal("the capture does not end")
	}
	if c.err != nil {
		t.Error(c.err)
	}
	return c.frames
}

var all = xdp.CaptureFilter{Protocol: -1}

func TestACapturedFrameIsTheOneThatWasJudged(t *testing.T) {
	s := newSite(t, strict())
	run(t, s.live, s.uplink, frame4(17, udp(7, 7))) // nobody captures yet
	begin := booted(t)
	c := s.capture(t, all, anyRate, nil)
	tests := []struct {
		frame  []byte
		reason abi.Reason
		rule   uint32
	}{
		{frame4(6, tcp(1, 2)), abi.ReasonRuleDrop, dropID},
		{from4(outside, frame4(6, tcp(1, 443))), abi.ReasonRuleAccept, acceptID},
		{from4(outside, frame4(17, udp(1, 2, make([]byte, 1400)...))), abi.ReasonDefaultDrop, 0},
		{ether(typeIP6, ip6(17, 64, src6, udp(3, 4)), 100, 200), abi.ReasonRuleDrop, dropID},
		{frame4(6, tcp(1, 22)), abi.ReasonFailsafe, sshID},
		{ether(0x0806, make([]byte, 46)), abi.ReasonLinkControl, 0},
		{ether(typeIP4, []byte{0x45, 0}), abi.ReasonIP4Truncated, 0},
		{slices.Clip(make([]byte, 14)), abi.ReasonLinkControl, 0},
	}
	for _, test := range tests {
		run(t, s.live, s.uplink, test.frame)
		s.explain(t, s.uplink, test.frame) // tells nobody
	}
	frames := c.end(t)
	if len(frames) != len(tests) || c.total.Wanted != uint64(len(tests)) {
		t.Fatalf("captured %d frames, %+v, want %d", len(frames), c.total, len(tests))
	}
	for i, test := range tests {
		got := frames[i]
		if got.Time < begin || got.Time > booted(t) {
			t.Errorf("frame %d was at %s, not between %s and now", i, got.Time, begin)
		}
		got.Time = 0
		want := xdp.Frame{Hook: abi.HookXdp, Ifindex: s.uplink, Reason: test.reason, Rule: test.rule, Len: len(test.frame), Data: test.frame}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("frame %d:\n%s", i, diff)
		}
	}
	run(t, s.live, s.uplink, frame4(17, udp(7, 7)))
	if got := s.spent(t, abi.WatchCapture); s.watched(t, abi.WatchCapture) != (abi.Watch{}) || got.Wanted != uint64(len(tests)) {
		t.Errorf("after the end the programs go on: %+v", got)
	}
}

func TestAFilterTakesThePacketsThatFitAllOfIt(t *testing.T) {
	s := newSite(t, strict())
	frames := [][]byte{
		0: frame4(6, tcp(1000, 80)),                                                                  // rule-drop
		1: from4(outside, frame4(6, tcp(2000, 443))),                                                 // rule-accept
		2: from4(outside, frame4(17, udp(53, 2000))),                                                 // default-drop
		3: ether(typeIP6, ip6(17, 64, src6, udp(443, 4))),                                            // rule-drop
		4: from4(outside, ether(typeIP4, ip4Fragment(17, 100, nil, make([]byte, 16)))),               // default-drop, no ports
		5: ether(0x0806, make([]byte, 46)),                                                           // link-control
		6: to4("198.51.100.9", frame4(6, tcp(1, 443))),                                               // rule-accept
		7: ether(typeIP6, ip6(17, 64, netip.MustParseAddr("2001:db8:ffff::7"), udp(1, 2, 3, 4)), 44), // default-drop
	}
	for _, test := range []struct {
		name   string
		change func(*xdp.CaptureFilter)
		want   []int
	}{
		{"nothing asked", func(*xdp.CaptureFilter) {}, []int{0, 1, 2, 3, 4, 5, 6, 7}},
		{"a reason", func(f *xdp.CaptureFilter) { f.Reasons = []abi.Reason{abi.ReasonRuleDrop} }, []int{0, 3}},
		{"two reasons", func(f *xdp.CaptureFilter) {
			f.Reasons = []abi.Reason{abi.ReasonRuleAccept, abi.ReasonLinkControl}
		}, []int{1, 5, 6}},
		{"no reason", func(f *xdp.CaptureFilter) { f.Reasons = []abi.Reason{} }, nil},
		{"a reason beyond the first word", func(f *xdp.CaptureFilter) { f.Reasons = []abi.Reason{abi.CaptureReasonWords*64 - 1} }, nil},
		{"a rule", func(f *xdp.CaptureFilter) { f.Rules = []uint32{acceptID} }, []int{1, 6}},
		{"as many rules as there may be", func(f *xdp.CaptureFilter) {
			f.Rules = []uint32{1, 2, 3, 4, 5, 6, acceptID, dropID}
		}, []int{0, 1, 3, 6}},
		{"a rule that decided nothing", func(f *xdp.CaptureFilter) { f.Rules = []uint32{bgpID} }, nil},
		{"a source", func(f *xdp.CaptureFilter) { f.Host = netip.MustParsePrefix(outside + "/32") }, []int{1, 2, 4}},
		{"source or destination", func(f *xdp.CaptureFilter) { f.Host = netip.MustParsePrefix("198.51.100.0/24") }, []int{1, 2, 4, 6}},
		{"all of IPv4", func(f *xdp.CaptureFilter) { f.Host = netip.MustParsePrefix("0.0.0.0/0") }, []int{0, 1, 2, 4, 6}},
		{"all of IPv6", func(f *xdp.CaptureFilter) { f.Host = netip.MustParsePrefix("::/0") }, []int{3, 7}},
		{"an IPv6 prefix", func(f *xdp.CaptureFilter) { f.Host = netip.MustParsePrefix("2001:db8::/63") }, []int{3}},
		{"a prefix with host bits", func(f *xdp.CaptureFilter) { f.Host = netip.MustParsePrefix("2001:db8:1::99/64") }, []int{3, 7}},
		{"the interface", func(f *xdp.CaptureFilter) { f.Ifindex = s.uplink }, []int{0, 1, 2, 3, 4, 5, 6, 7}},
		{"another interface", func(f *xdp.CaptureFilter) { f.Ifindex = s.uplink + 1 }, nil},
		{"the hook", func(f *xdp.CaptureFilter) { f.Hooks = []abi.Hook{abi.HookXdp} }, []int{0, 1, 2, 3, 4, 5, 6, 7}},
		{"other hooks", func(f *xdp.CaptureFilter) { f.Hooks = []abi.Hook{abi.HookTcIngress, abi.HookTcEgress} }, nil},
		{"a protocol", func(f *xdp.CaptureFilter) { f.Protocol = 17 }, []int{2, 3, 4, 7}},
		{"protocol 0, which no ARP is of", func(f *xdp.CaptureFilter) { f.Protocol = 0 }, nil},
		{"a port", func(f *xdp.CaptureFilter) { f.Port = 443 }, []int{1, 3, 6}},
		{"all at once", func(f *xdp.CaptureFilter) {
			*f = xdp.CaptureFilter{Reasons: []abi.Reason{abi.ReasonRuleAccept}, Rules: []uint32{acceptID}, Ifindex: s.uplink,
				Host: netip.MustParsePrefix(outside + "/32"), Protocol: 6, Port: 2000}
		}, []int{1}},
	} {
		f := all
		test.change(&f)
		c := s.capture(t, f, anyRate, nil)
		for _, frame := range frames {
			run(t, s.live, s.uplink, frame)
		}
		var got []int
		for _, frame := range c.end(t) {
			got = append(got, slices.IndexFunc(frames, func(f []byte) bool { return bytes.Equal(f, frame.Data) }))
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s: frames\n%s", test.name, diff)
		}
		if n := uint64(len(test.want)); c.total != (xdp.Captured{Wanted: n}) {
			t.Errorf("%s: counted %+v, want %d", test.name, c.total, n)
		}
	}
	if _, err := xdp.Capture(t.Context(), s.dir, xdp.CaptureFilter{Rules: make([]uint32, 9)}, 1, nil, nil); err == nil {
		t.Error("nine rules are taken")
	}
}

// TestOfALargeFrameAsMuchIsTakenAsIsWanted: beyond a page a frame stands in fragments.
func TestOfALargeFrameAsMuchIsTakenAsIsWanted(t *testing.T) {
	s := newSite(t, generation(classify.Drop))
	for _, test := range []struct{ payload, snaplen, want int }{
		{100, 64, 64}, {100, 1, 1}, {100, 0, 142}, {1458, 0, 1500}, {8958, 0, 9000}, {8958, 8000, 8000}, {8958, 1 << 20, 9000},
		{abi.CaptureSnaplen - 42, 0, abi.CaptureSnaplen}, {abi.CaptureSnaplen, 0, abi.CaptureSnaplen},
	} {
		payload := make([]byte, test.payload)
		for i := range payload {
			payload[i] = byte(i * 7 >> 3)
		}
		frame := frame4(17, udp(1, 2, payload...))
		f := all
		f.Snaplen = test.snaplen
		c := s.capture(t, f, anyRate, nil)
		run(t, s.live, s.uplink, frame)
		frames := c.end(t)
		if len(frames) != 1 || frames[0].Len != len(frame) || !bytes.Equal(frames[0].Data, frame[:test.want]) {
			t.Errorf("%d bytes, of which %d: captured %d frames (%+v)", len(frame), test.snaplen, len(frames), c.total)
		}
	}
}

// flood runs a frame so many times on one CPU.
func (s *site) flood(t *testing.T, frame []byte, packets int) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	for cpu := 0; one.Count() == 0; cpu++ {
		if all.IsSet(cpu) {
			one.Set(cpu)
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.SchedSetaffinity(0, &all); err != nil {
			t.Error(err)
		}
	}()
	if _, err := s.live.Run(&ebpf.RunOptions{Data: frame, Repeat: uint32(packets)}); err != nil {
		t.Fatal(err)
	}
}

func TestOneInSoManyIsTaken(t *testing.T) {
	s := newSite(t, generation(classify.Drop))
	for _, n := range []int{1, 2, 10, 1000} {
		f := all
		f.Sample = n
		c := s.capture(t, f, anyRate, nil)
		s.flood(t, frame4(17, udp(1, 2)), 2000)
		// One CPU, but what another capture left in its count may take one more.
		if got := len(c.end(t)); got < 2000/n || got > 2000/n+1 {
			t.Errorf("of 2000 packets, one in %d: %d are captured", n, got)
		}
	}
}

func TestACaptureIsBoundedAndCountsWhatItMisses(t *testing.T) {
	s := newSite(t, generation(classify.Drop))
	const packets = 300_000
	frame := frame4(17, udp(1, 2, make([]byte, 1000)...))

	// More than the rate: suppressed.
	began := booted(t)
	c := s.capture(t, all, 1000, nil)
	s.flood(t, frame, packets)
	frames := uint64(len(c.end(t)))
	windows := uint64((booted(t)-began)/(abi.WatchWindowNs)) + 2
	if frames == 0 || frames > windows*100 || frames+c.total.Suppressed+c.total.Lost != packets || c.total.Wanted != packets {
		t.Errorf("%d of %d captured in %d windows: %+v", frames, packets, windows, c.total)
	}

	// A reader that does not read: lost, once the ring is full.
	hold := make(chan struct{})
	c = s.capture(t, all, anyRate, hold)
	const few = 20_000
	s.flood(t, frame, few)
	close(hold)
	frames = uint64(len(c.end(t)))
	if most := uint64(abi.CaptureRingSize / len(frame)); frames < most/2 || frames > most+1 || frames+c.total.Lost != few || c.total.Suppressed != 0 {
		t.Errorf("%d captured of %d, at most %d fit: %+v", frames, few, most, c.total)
	}
}

// TestACaptureTakesNothingThatAnEarlierOneLeft in the ring, as one that is killed does.
func TestACaptureTakesNothingThatAnEarlierOneLeft(t *testing.T) {
	s := newSite(t, generation(classify.Drop))
	if err := s.openMap(t, "capture-filter", 1).Put(uint32(0), everything); err != nil {
		t.Fatal(err)
	}
	s.watch(t, abi.WatchCapture, abi.Watch{UntilNs: 1 << 62, Burst: 1000})
	run(t, s.live, s.uplink, frame4(17, udp(8, 8)))
	c := s.capture(t, all, anyRate, nil)
	run(t, s.live, s.uplink, frame4(17, udp(9, 9)))
	if frames := c.end(t); len(frames) != 1 || frames[0].Data[35] != 9 {
		t.Errorf("captured %+v, want the one that came since", frames)
	}
}

func TestARuleLogsOneInSoManyOfItsPackets(t *testing.T) {
	s := newSite(t, generation(classify.Drop,
		classify.Rule{ID: 5, From: prefixes("192.0.2.0/24"), Protocol: 17, Action: classify.Drop, Sample: 1},
		classify.Rule{ID: 6, Protocol: 17, Action: classify.Accept, Sample: 100},
		classify.Rule{ID: 7, Protocol: 6, Action: classify.Accept},
	))
	run(t, s.live, s.uplink, frame4(17, udp(1, 2))) // nobody listens yet
	h, stop := s.watchSamples(t, xdp.WatchLogs, 1_000_000)
	frame := frame4(17, udp(1, 2))
	run(t, s.live, s.uplink, frame)
	s.explain(t, s.uplink, frame)
	run(t, s.live, s.uplink, frame4(6, tcp(1, 2)))
	run(t, s.live, s.uplink, frame4(1, icmp(8, 0, 5))) // the default drops it, and logs nothing
	h.await(t, "the packet that the rule drops", func() bool { return len(h.drops) > 0 })
	got := h.drops[0]
	got.Time = 0
	want := xdp.Sample{Hook: abi.HookXdp, Ifindex: s.uplink, Len: len(frame), Rule: 5, Fate: abi.EventDropped, Protocol: 17, Ports: true,
		Src: netip.AddrPortFrom(src4, 1), Dst: netip.AddrPortFrom(dst4, 2)}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("the logged packet:\n%s", diff)
	}
	s.flood(t, from4(outside, frame4(17, udp(1, 2))), 100_000)
	// 1000 are to be expected, with a deviation of 31.
	h.await(t, "the sampled ones", func() bool { return uint64(len(h.drops))+h.unseen.Suppressed+h.unseen.Lost > 800 })
	if err := stop(); err != nil {
		t.Error(err)
	}
	if n := uint64(len(h.drops)) + h.unseen.Suppressed + h.unseen.Lost; n > 1200 {
		t.Errorf("%d of 100000 packets were logged, one in 100 was to be", n)
	}
	for _, l := range h.drops[1:] {
		if l.Rule != 6 || l.Fate != abi.EventPassed {
			t.Fatalf("logged %+v", l)
		}
	}
}

func TestAShadowRuleLogsWhatItWouldDo(t *testing.T) {
	s := newSite(t, generation(classify.Drop,
		classify.Rule{ID: 3, Protocol: 6, Action: classify.Drop, Shadow: true, Sample: 1},
		classify.Rule{ID: 4, Protocol: 17, Action: classify.Drop, Shadow: true},
		classify.Rule{ID: 5, From: prefixes("192.0.2.0/24"), Action: classify.Drop, Protocol: classify.AnyProtocol, Shadow: true, Sample: 1},
		classify.Rule{ID: 6, Protocol: classify.AnyProtocol, Action: classify.Accept, Sample: 1},
		classify.Rule{ID: 7, Protocol: 17, Action: classify.Drop, Shadow: true, Sample: 1}, // never met
	))
	h, stop := s.watchSamples(t, xdp.WatchLogs, 1_000_000)
	s.explain(t, s.uplink, frame4(17, udp(1, 2)))
	run(t, s.live, s.uplink, frame4(17, udp(1, 2)))
	run(t, s.live, s.uplink, frame4(6, tcp(1, 2))) // of two shadow rules the first is logged
	h.await(t, "two logs of each packet", func() bool { return len(h.drops) >= 4 })
	if err := stop(); err != nil {
		t.Error(err)
	}
	var got []string
	for _, l := range h.drops {
		got = append(got, fmt.Sprint(l.Protocol, " ", l.Rule, " ", l.Fate))
	}
	want := []string{fmt.Sprint(17, " 6 ", abi.EventPassed), fmt.Sprint(17, " 5 ", abi.EventShadow), fmt.Sprint(6, " 6 ", abi.EventPassed),
		fmt.Sprint(6, " 3 ", abi.EventShadow)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("logs as protocol, rule, fate:\n%s", diff)
	}
}

// BenchmarkCapture gives the time of a packet that passes, while nobody captures, while somebody captures what it is not,
// and beyond the rate.
func BenchmarkCapture(b *testing.B) {
	s := newSite(b, generation(classify.Accept))
	none, other := everything, everything
	none.Reasons, other.Ifindex = [abi.CaptureReasonWords]uint64{}, 1<<30
	for _, test := range []struct {
		name   string
		filter abi.CaptureFilter
		to     abi.Watch
	}{
		{"idle", everything, abi.Watch{}},
		{"another-reason", none, abi.Watch{UntilNs: 1 << 62, Burst: 100}},
		{"another-interface", other, abi.Watch{UntilNs: 1 << 62, Burst: 100}},
		{"beyond-the-rate", everything, abi.Watch{UntilNs: 1 << 62, Burst: 0}},
	} {
		if err := s.openMap(b, "capture-filter", 1).Put(uint32(0), test.filter); err != nil {
			b.Fatal(err)
		}
		s.watch(b, abi.WatchCapture, test.to)
		s.fastest(b, test.name+"-ns/packet", frame4(17, udp(1, 2)))
	}
}
