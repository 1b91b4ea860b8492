package progrun_test

import (
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"

	"sluice/xdp"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
	"sluice/xdp/pin"
)

const (
	hitShadow  = 41
	hitDrop    = 42
	hitNever   = 43
	hitDefault = 44
)

func counting() xdp.Generation {
	g := generation(classify.Drop,
		classify.Rule{ID: hitShadow, Protocol: 17, Action: classify.Drop, Shadow: true},
		classify.Rule{ID: hitDrop, Protocol: 17, Ports: []classify.PortRange{{First: 2, Last: 2}}, Action: classify.Drop},
		classify.Rule{ID: hitNever, Protocol: 6, Action: classify.Accept})
	g.Ingress.DefaultID = hitDefault
	return g
}

func hitsOf(t *testing.T, s *site) map[uint32]xdp.RuleHit {
	t.Helper()
	hits, err := xdp.RuleHits(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	return hits
}

func TestRulesCountWithTheirLastHit(t *testing.T) {
	s := newSite(t, counting())
	if hits := hitsOf(t, s); len(hits) != 0 {
		t.Errorf("before the first packet: %v", hits)
	}
	s.explain(t, s.uplink, frame4(17, udp(1, 2))) // the twin counts nothing
	dropped, other := frame4(17, udp(1, 2)), frame4(17, udp(1, 3))
	begin := time.Now()
	for _, frame := range [][]byte{dropped, dropped, other} {
		run(t, s.live, s.uplink, frame)
	}
	hits := hitsOf(t, s)
	end := time.Now()
	want := map[uint32]xdp.Count{
		hitShadow:  {Packets: 3, Bytes: uint64(2*len(dropped) + len(other))}, // what it would have dropped
		hitDrop:    {Packets: 2, Bytes: uint64(2 * len(dropped))},
		hitDefault: {Packets: 1, Bytes: uint64(len(other))},
	}
	got := map[uint32]xdp.Count{}
	for id, h := range hits {
		got[id] = h.Count
		// A tick is 10 ms at the most, and both ends may be off by one.
		if h.Last.Before(begin.Add(-20*time.Millisecond)) || h.Last.After(end) {
			t.Errorf("rule %d was last hit at %v, not between %v and %v", id, h.Last, begin, end)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("counters:\n%s", diff)
	}

	first := hits[hitDrop].Last
	deadline := time.Now().Add(10 * time.Second)
	for !hitsOf(t, s)[hitDrop].Last.After(first.Add(50 * time.Millisecond)) { // ticks go by, and the last one is shown
		if time.Now().After(deadline) {
			t.Fatal("the last hit does not move")
		}
		run(t, s.live, s.uplink, dropped)
	}
	if idle := hitsOf(t, s)[hitDefault].Last; idle.Sub(hits[hitDefault].Last).Abs() > 20*time.Millisecond {
		t.Errorf("a default that met no packet was last hit at %v, and then at %v", hits[hitDefault].Last, idle)
	}

	if err := xdp.ClearRuleHits(s.dir, []uint32{hitDrop, hitNever, 1 << 20}); err != nil {
		t.Fatal(err)
	}
	if ids := slices.Sorted(maps.Keys(hitsOf(t, s))); !slices.Equal(ids, []uint32{hitShadow, hitDefault}) {
		t.Errorf("after a clear there are counters of %v", ids)
	}
}

// TestAnEstablishedReplyIsNotTheDefaults: the default of drop counts what it really met.
func TestAnEstablishedReplyIsNotTheDefaults(t *testing.T) {
	s := newSite(t, counting())
	frame := frame4(17, udp(53, 4000))
	putFlow(t, s.openMap(t, "fresh-out", 3), key(dst4, src4, 4000, 53, 17), time.Second, abi.FlowNew)
	if verdict := run(t, s.live, s.uplink, frame); verdict != xdpPass {
		t.Fatalf("the reply got %d", verdict)
	}
	if hits := hitsOf(t, s); hits[hitDefault].Packets != 0 || hits[hitShadow].Packets != 1 {
		t.Errorf("counters %v", hits)
	}
}

// TestCountersOutliveGrowthAndAnEarlierLayout: an id beyond the map's end makes it grow, and a pin of layout version 2
// is taken over, CPU by CPU.
func TestCountersOutliveGrowthAndAnEarlierLayout(t *testing.T) {
	s := newSite(t, counting())
	frame := frame4(17, udp(1, 2))
	run(t, s.live, s.uplink, frame)
	before := hitsOf(t, s)
	if n := s.hits.MaxEntries() / uint32(ebpf.MustPossibleCPU()); n != 1024 {
		t.Errorf("room for %d ids", n)
	}
	g := counting()
	g.RuleSlots = 4000
	s.load(t, g)
	if n := s.hits.MaxEntries() / uint32(ebpf.MustPossibleCPU()); n != 4096 {
		t.Errorf("room for %d ids after it grew", n)
	}
	if after := hitsOf(t, s); after[hitDrop].Count != before[hitDrop].Count || after[hitDrop].Last.Sub(before[hitDrop].Last).Abs() > 20*time.Millisecond {
		t.Errorf("%v became %v", before[hitDrop], after[hitDrop])
	}
	s.load(t, counting())
	if n := s.hits.MaxEntries() / uint32(ebpf.MustPossibleCPU()); n != 4096 {
		t.Errorf("it shrank to %d ids", n)
	}
	run(t, s.live, s.uplink, frame)
	if n := hitsOf(t, s)[hitDrop].Packets; n != 2 {
		t.Errorf("%d packets, want 2", n)
	}

	dir := pin.At(s.dir)
	if err := dir.RemoveStateMap("rule-hits", 3); err != nil {
		t.Fatal(err)
	}
	old, err := dir.StateMap(&ebpf.MapSpec{Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 16, MaxEntries: abi.RuleIDs}, "rule-hits", 2)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	perCPU := make([]abi.Counter, ebpf.MustPossibleCPU())
	var want xdp.Count
	for i := range perCPU {
		perCPU[i] = abi.Counter{Packets: uint64(i + 1), Bytes: uint64(100 * (i + 1))}
		want.Packets, want.Bytes = want.Packets+perCPU[i].Packets, want.Bytes+perCPU[i].Bytes
	}
	for _, id := range []uint32{hitDrop, 5000} { // 5000 is of a rule that is gone: there is no room for it
		if err := old.Put(id, perCPU); err != nil {
			t.Fatal(err)
		}
	}
	s.load(t, counting())
	if hits := hitsOf(t, s); len(hits) != 1 || hits[hitDrop] != (xdp.RuleHit{Count: want}) {
		t.Errorf("of version 2 came %v, want %v", hits, want)
	}
	if _, err := os.Stat(dir.StateMapPath("rule-hits", 2)); !os.IsNotExist(err) {
		t.Errorf("the old pin is still there: %v", err)
	}
}
