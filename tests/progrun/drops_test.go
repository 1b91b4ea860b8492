package progrun_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"sluice/xdp"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
)

// heard is what a watch reported.
type heard struct {
	mu     sync.Mutex
	drops  []xdp.Sample
	unseen xdp.Unseen
	ticks  int
}

func (s *site) watchDrops(t *testing.T, rate int) (*heard, func() error) {
	t.Helper()
	return s.watchSamples(t, xdp.WatchDrops, rate)
}

// watchSamples samples until the returned function is called, and returns when the programs have been told.
func (s *site) watchSamples(t *testing.T, watch func(context.Context, string, int, func(xdp.Sample), func(xdp.Unseen)) error, rate int) (*heard, func() error) {
	t.Helper()
	h := &heard{}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- watch(ctx, s.dir, rate, func(d xdp.Sample) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.drops = append(h.drops, d)
		}, func(u xdp.Unseen) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.unseen = u
			h.ticks++
		})
	}()
	t.Cleanup(cancel)
	h.await(t, "the beginning", func() bool { return h.ticks > 1 })
	return h, func() error { cancel(); return <-ended }
}

func (h *heard) await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		h.mu.Lock()
		done := ok()
		h.mu.Unlock()
		if done {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waiting for %s: %+v", what, h)
		}
	}
}

func TestADroppedPacketIsToldAsItWas(t *testing.T) {
	s := newSite(t, strict())
	run(t, s.live, s.uplink, frame4(17, udp(7, 7))) // nobody listens yet
	h, stop := s.watchDrops(t, 1_000_000)
	begin := booted(t)
	frames := []struct {
		frame []byte
		want  xdp.Sample
	}{
		{frame4(6, tcp(1, 2)), xdp.Sample{Reason: abi.ReasonRuleDrop, Rule: dropID, Protocol: 6, Ports: true, TCPFlags: 2}},
		{from4(outside, frame4(17, udp(1, 2))), xdp.Sample{Reason: abi.ReasonDefaultDrop, Protocol: 17, Ports: true}},
		{ether(typeIP6, ip6(17, 64, src6, udp(3, 4)), 100), xdp.Sample{Reason: abi.ReasonRuleDrop, Rule: dropID, Protocol: 17, Ports: true, VLAN: 100}},
		{from4(outside, frame4(1, icmp(8, 0, 5))), xdp.Sample{Reason: abi.ReasonDefaultDrop, Protocol: 1, ICMPType: 8}},
		{from4(outside, ether(typeIP4, ip4Fragment(17, 100, nil, make([]byte, 16)))), xdp.Sample{Reason: abi.ReasonDefaultDrop, Protocol: 17, Fragment: true}},
		{ether(typeIP4, []byte{0x45, 0}), xdp.Sample{Reason: abi.ReasonIP4Truncated}},
	}
	for _, f := range frames {
		run(t, s.live, s.uplink, f.frame)
		s.explain(t, s.uplink, f.frame)                           // tells nobody
		run(t, s.live, s.uplink, ether(0x0806, make([]byte, 46))) // nor does what passes
	}
	h.await(t, "all of them", func() bool { return len(h.drops) >= len(frames) })
	if err := stop(); err != nil {
		t.Error(err)
	}
	if len(h.drops) != len(frames) {
		t.Fatalf("told of %d, want %d: %+v", len(h.drops), len(frames), h.drops)
	}
	for i, f := range frames {
		got := h.drops[i]
		if got.Time < begin || got.Time > booted(t) {
			t.Errorf("drop %d was at %s, not between %s and now", i, got.Time, begin)
		}
		if got.Reason != abi.ReasonIP4Truncated && (!got.Src.IsValid() || !got.Dst.IsValid()) {
			t.Errorf("drop %d has no addresses: %+v", i, got)
		}
		if i == 1 && (got.Src.String() != outside+":1" || got.Dst.String() != dst4.String()+":2") ||
			i == 2 && got.Src.String() != "[2001:db8::7]:3" {
			t.Errorf("drop %d went from %s to %s", i, got.Src, got.Dst)
		}
		got.Time, got.Src, got.Dst = 0, f.want.Src, f.want.Dst
		f.want.Hook, f.want.Ifindex, f.want.Len, f.want.Fate = abi.HookXdp, s.uplink, len(f.frame), abi.EventDropped
		if got != f.want {
			t.Errorf("drop %d\n got %+v\nwant %+v", i, got, f.want)
		}
	}
}

// TestSamplesAreBoundedAndTheCountersHaveEveryDrop drops far more packets than are sampled.
func TestSamplesAreBoundedAndTheCountersHaveEveryDrop(t *testing.T) {
	s := newSite(t, generation(classify.Drop))
	before := s.tally(t)
	h, stop := s.watchDrops(t, 1000)
	const packets = 500_000
	began := booted(t)
	if _, _, err := s.live.Benchmark(frame4(17, udp(1, 2)), packets, nil); err != nil {
		t.Fatal(err)
	}
	windows := uint64((booted(t)-began)/(abi.WatchWindowNs)) + 2
	// Benchmark runs the program once more to warm up, or not: the counters say.
	var dropped uint64
	for _, c := range s.tally(t).minus(before).Unknown {
		dropped += c.Packets
	}
	for _, c := range s.tally(t).minus(before).Reasons {
		dropped += c.Packets
	}
	if dropped < packets {
		t.Errorf("%d drops were counted, want %d", dropped, packets)
	}
	h.await(t, "every drop to be told or counted", func() bool {
		return uint64(len(h.drops))+h.unseen.Suppressed+h.unseen.Lost == dropped
	})
	if limit := windows * 100; uint64(len(h.drops)) > limit || len(h.drops) == 0 {
		t.Errorf("%d samples in %d windows, at most %d were to be", len(h.drops), windows, limit)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if got := s.watched(t, abi.WatchDrops); got != (abi.Watch{}) {
		t.Errorf("after the end the programs are told %+v", got)
	}
}

// watched is what the programs are told of a watcher.
func (s *site) watched(t testing.TB, w abi.Watcher) abi.Watch {
	t.Helper()
	var all [abi.WatchMax]abi.Watch
	if err := s.openMap(t, "watches", 2).Lookup(uint32(0), &all); err != nil {
		t.Fatal(err)
	}
	return all[w]
}

func (s *site) watch(t testing.TB, w abi.Watcher, lease abi.Watch) {
	t.Helper()
	var all [abi.WatchMax]abi.Watch
	all[w] = lease
	if err := s.openMap(t, "watches", 2).Put(uint32(0), all); err != nil {
		t.Fatal(err)
	}
}

// spent sums what the CPUs spent on a watcher.
func (s *site) spent(t testing.TB, w abi.Watcher) (sum abi.WatchBudget) {
	t.Helper()
	var perCPU []abi.WatchBudget
	if err := s.openMap(t, "watch-budgets", 2).Lookup(uint32(w), &perCPU); err != nil {
		t.Fatal(err)
	}
	for _, c := range perCPU {
		sum.Wanted += c.Wanted
		sum.Suppressed += c.Suppressed
		sum.Lost += c.Lost
	}
	return sum
}

// TestALeaseThatNobodyRenewsEnds: a daemon that was killed leaves the programs told to sample. The first packet after the
// end takes the lease away, so that the next ones do not even ask.
func TestALeaseThatNobodyRenewsEnds(t *testing.T) {
	s := newSite(t, generation(classify.Drop))
	for _, w := range []abi.Watcher{abi.WatchDrops, abi.WatchCapture} {
		if err := s.openMap(t, "capture-filter", 1).Put(uint32(0), everything); err != nil {
			t.Fatal(err)
		}
		for _, test := range []struct {
			until time.Duration
			want  uint64
		}{{booted(t) - time.Second, 0}, {booted(t) + time.Hour, 1}} {
			before := s.spent(t, w).Wanted
			lease := abi.Watch{UntilNs: uint64(test.until), Burst: 1000}
			s.watch(t, w, lease)
			run(t, s.live, s.uplink, frame4(17, udp(1, 2)))
			if got := s.spent(t, w).Wanted - before; got != test.want {
				t.Errorf("watcher %d: %d packets were taken, want %d", w, got, test.want)
			}
			if test.want == 0 {
				lease.UntilNs = 0
			}
			if got := s.watched(t, w); got != lease {
				t.Errorf("watcher %d: then the programs are told %+v, want %+v", w, got, lease)
			}
		}
	}
	// The next watch does not take what an earlier one left for its own.
	h, stop := s.watchDrops(t, 1000)
	run(t, s.live, s.uplink, frame4(17, udp(9, 9)))
	h.await(t, "a drop", func() bool { return len(h.drops) > 0 })
	if h.drops[0].Src.Port() != 9 {
		t.Errorf("told of %+v, which was dropped before", h.drops[0])
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// BenchmarkDrops gives the time of a dropped packet with and without somebody who listens.
func BenchmarkDrops(b *testing.B) {
	s := newSite(b, generation(classify.Drop))
	for _, test := range []struct {
		name string
		to   abi.Watch
	}{{"nobody", abi.Watch{}}, {"listening", abi.Watch{UntilNs: 1 << 62, Burst: 100}}} {
		s.watch(b, abi.WatchDrops, test.to)
		s.fastest(b, test.name+"-ns/drop", frame4(17, udp(1, 2)))
	}
}
