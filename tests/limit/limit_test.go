package limit_test

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"sluice/xdp/abi"
	"sluice/xdp/classify"
	"sluice/xdp/table"
)

const second = 1_000_000_000

// start is when the packets of a test begin to arrive.
const start = 1000 * second

func ip(rng *rand.Rand) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, rng.Uint32())))
}

// exact is the plain model: a bucket for each key, however many there are.
type exact struct {
	entry   abi.Limiter
	buckets map[netip.Prefix]*classify.Bucket
	l       classify.Limiter
}

func newExact(l classify.Limiter) *exact {
	return &exact{l.Entry(), map[netip.Prefix]*classify.Bucket{}, l}
}

func (m *exact) take(a arrival) bool {
	var key netip.Prefix
	if m.l.PerSource {
		src, bits := netip.AddrFrom16(a.Src), m.l.IPv6Bits
		if a.Family == 4 {
			src, bits = src.Unmap(), m.l.IPv4Bits
		}
		key, _ = src.Prefix(bits)
	}
	if m.buckets[key] == nil {
		m.buckets[key] = new(classify.Bucket)
	}
	amount := uint64(max(a.Segments, 1))
	if m.l.Bits {
		header := uint64(8)
		if a.Protocol == 6 {
			header = 20
		}
		amount = uint64(a.Len) + (amount-1)*(uint64(a.L4)+header)
	}
	return m.buckets[key].Take(&m.entry, a.Now<<abi.LimitTickBits, classify.LimitCost(&m.entry, amount))
}

// TestTheProgramIsTheModel: with no more sources than the table has ways, every packet meets the fate of a bucket of its
// own. Rules share the table and not the buckets.
func TestTheProgramIsTheModel(t *testing.T) {
	limiters := []classify.Limiter{
		{Rule: 1, Beyond: 11, Rate: 1000, Burst: 20},
		{Rule: 2, Beyond: 12, Rate: 1_000_000, Burst: 3000, Bits: true},
		{Rule: 3, Beyond: 13, Rate: 10, Burst: 5, PerSource: true, IPv4Bits: 32, IPv6Bits: 128},
		{Rule: 4, Beyond: 14, Rate: 10, Burst: 5, PerSource: true, IPv4Bits: 20, IPv6Bits: 56},
		{Rule: 5, Beyond: 15, Rate: 100_000, Burst: 1000, Bits: true, PerSource: true, IPv4Bits: 24, IPv6Bits: 64},
		{Rule: 6, Beyond: 16, Rate: 33_333_333, Burst: 7},
	}
	h := newHarness(t, limiting, batch, limiters...)
	rng := rand.New(rand.NewPCG(1, 21))
	var sources []netip.Addr
	for range 100 {
		near := binary.BigEndian.AppendUint32(nil, 0xc6336400|rng.Uint32N(1<<13))
		sources = append(sources, netip.AddrFrom4([4]byte(near)))
		six := [16]byte{0: 0x20, 1: 1, 2: 0xd, 3: 0xb8, 6: byte(rng.Uint32N(2)), 7: byte(rng.Uint32N(4)), 15: byte(rng.Uint32N(3))}
		sources = append(sources, netip.AddrFrom16(six))
	}
	var all []arrival
	now := uint64(start)
	for range 4 * batch {
		now += rng.Uint64N(400_000) >> rng.Uint32N(16)
		a := packet(now, sources[rng.IntN(len(sources))])
		a.Limiter, a.Len = rng.Uint32N(uint32(len(limiters))), 60+rng.Uint32N(1454)
		if rng.IntN(10) == 0 {
			a.Segments, a.Protocol, a.Len = 2+uint16(rng.Uint32N(44)), 6, 9000+rng.Uint32N(50000)
		}
		all = append(all, a)
	}
	models := make([]*exact, len(limiters))
	dropped := map[uint32]uint64{}
	for i, l := range limiters {
		models[i] = newExact(l)
	}
	for i, got := range h.arrive(t, all) {
		if want := models[all[i].Limiter].take(all[i]); got != want {
			t.Fatalf("packet %d, %+v: %v, want %v", i, all[i], got, want)
		}
		if !got {
			dropped[limiters[all[i].Limiter].Beyond]++
		}
	}
	for _, l := range limiters {
		if got := h.dropped(t, l.Beyond); got != dropped[l.Beyond] || got == 0 {
			t.Errorf("rule %d: %d counted beyond the limit, %d dropped", l.Rule, got, dropped[l.Beyond])
		}
	}
	if p := h.pressure(t); p != (abi.LimitPressure{}) {
		t.Errorf("pressure %+v among %d sources", p, len(sources))
	}
}

// TestAFloodOfSpoofedSourcesThrottlesNobody: two hundred sources send at half their rate, twenty at ten times it, while
// addresses that never come again pass through the table. At 10 pps the debts of 60,000 of them stand at once, at 1 pps
// those of 600,000, which is more than twice the ways there are.
func TestAFloodOfSpoofedSourcesThrottlesNobody(t *testing.T) {
	const (
		honest, greedy = 200, 20
		seconds        = 4
		flood          = 600 // per ms
	)
	for _, rate := range []uint64{10, 1} {
		l := classify.Limiter{Rule: 1, Beyond: 2, Rate: rate, Burst: 20, PerSource: true, IPv4Bits: 32, IPv6Bits: 128}
		h := newHarness(t, limiting, batch, l)
		rng := rand.New(rand.NewPCG(2, 21))
		mine := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}) }
		begged := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 51, 100, byte(i)}) }
		var all []arrival
		for ms := range uint64(seconds * 1000) {
			now := start + ms*1_000_000
			for i := range uint64(flood) {
				spoofed := ip(rng).As4()
				spoofed[0] |= 1 // 192 is for those who are watched
				all = append(all, packet(now+i, netip.AddrFrom4(spoofed)))
			}
			if ms%(2000/rate) == 0 {
				for i := range honest {
					all = append(all, packet(now+5000, mine(i)))
				}
			}
			if ms%(100/rate) == 0 {
				for i := range greedy {
					all = append(all, packet(now+6000, begged(i)))
				}
			}
		}
		passed := map[netip.Addr]int{}
		for i, accepted := range h.arrive(t, all) {
			if src := netip.AddrFrom16(all[i].Src).Unmap(); accepted && src.As4()[0] == 192 {
				passed[src]++
			}
		}
		for i := range honest {
			if got, want := passed[mine(i)], seconds*int(rate)/2; got != want {
				t.Errorf("%d pps: %d of %d packets of the honest %s passed", rate, got, want, mine(i))
			}
		}
		for i := range greedy { // one that is not proven yet may lose its way, with its debt, and once more its burst
			if got, want := passed[begged(i)], 20+int(rate)*seconds; got > want+abi.LimitProven || got < want-1 {
				t.Errorf("%d pps: %d packets of the greedy %s passed, want %d", rate, got, begged(i), want)
			}
		}
		p := h.pressure(t)
		t.Logf("%d pps, %d packets: %+v", rate, len(all), p)
		if p.Shared != 0 {
			t.Errorf("%d pps: %d packets found no way, though hardly a source is proven", rate, p.Shared)
		}
	}
}

// TestAFullTableIsSharedAndToldOf: once more proven sources are in debt than the table has ways, the ones that find none
// share the bucket of the rule; those who have a way keep it.
func TestAFullTableIsSharedAndToldOf(t *testing.T) {
	l := classify.Limiter{Rule: 1, Beyond: 2, Rate: 1, Burst: 1000, PerSource: true, IPv4Bits: 32, IPv6Bits: 128}
	h := newHarness(t, limiting, batch, l)
	source := func(i uint32) netip.Addr {
		return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 0x0a000000+i)))
	}
	var all []arrival
	for i := range uint32(600_000) {
		for range abi.LimitProven {
			all = append(all, packet(start, source(i)))
		}
	}
	h.arrive(t, all)
	before := h.pressure(t)
	if before.Shared == 0 {
		t.Fatal("600,000 sources found a way in a table of 262,144")
	}
	all = all[:0]
	for i := range uint32(5000) {
		all = append(all, packet(start, source(1_000_000+i)))
	}
	passed := 0
	for _, accepted := range h.arrive(t, all) {
		if accepted {
			passed++
		}
	}
	after := h.pressure(t)
	// Nearly every set is full by now; the bucket of the rule gave its 1000 long ago.
	if after.Shared-before.Shared < 4500 || passed > 500 {
		t.Errorf("of 5000 newcomers %d shared a bucket that is empty, and %d passed", after.Shared-before.Shared, passed)
	}
	all = all[:0]
	for i := range uint32(1000) {
		all = append(all, packet(start, source(i)))
	}
	for i, accepted := range h.arrive(t, all) {
		if !accepted {
			t.Fatalf("source %d has used 4 of its 1000, and is throttled", i)
		}
	}
}

// TestNoDebtIsForgiven: CPUs that force their updates may together leave any debt, such as three that take 64 KB each.
func TestNoDebtIsForgiven(t *testing.T) {
	l := classify.Limiter{Rule: 1, Beyond: 2, Rate: 8_000_000, Burst: 100_000, Bits: true} // a byte in 1 us
	h := newHarness(t, limiting, batch, l)
	entry := l.Entry()
	for _, cpus := range []uint64{1, 3, 1024} {
		debt := entry.Burst + cpus*classify.LimitCost(&entry, 1<<16)
		bucket := abi.LimitBucket{Tat: start<<abi.LimitTickBits + debt, Mark: entry.Mark}
		if err := h.maps[table.LimitBuckets].Put(uint32(1), bucket); err != nil {
			t.Fatal(err)
		}
		paid := start + (debt-entry.Burst)>>abi.LimitTickBits + 64_000 // and as much as the packet
		got := h.arrive(t, []arrival{packet(start, ip(rand.New(rand.NewPCG(1, 2)))), packet(paid-1000, netip.MustParseAddr("192.0.2.7")),
			packet(paid, netip.MustParseAddr("192.0.2.7"))})
		if !slices.Equal(got, []bool{false, false, true}) {
			t.Errorf("%d CPUs passed 64 KB each beyond the burst, and at once, shortly before the debt was paid, and then: %v", cpus, got)
		}
	}
}

// TestAnotherLimitOfARuleBeginsFull: its rate was changed, or its id is another rule's by now.
func TestAnotherLimitOfARuleBeginsFull(t *testing.T) {
	for _, perSource := range []bool{false, true} {
		first := classify.Limiter{Rule: 1, Beyond: 2, Rate: 1, Burst: 10, PerSource: perSource, IPv4Bits: 32, IPv6Bits: 128}
		other := first
		other.Burst = 8
		h := newHarness(t, limiting, batch, first, other)
		send := func(limiter uint32, want int) {
			t.Helper()
			var all []arrival
			for range 20 {
				a := packet(start, netip.MustParseAddr("192.0.2.7"))
				a.Limiter = limiter
				all = append(all, a)
			}
			passed := 0
			for _, accepted := range h.arrive(t, all) {
				if accepted {
					passed++
				}
			}
			if passed != want {
				t.Errorf("%+v: %d of 20 packets pass, want %d", []classify.Limiter{first, other}[limiter], passed, want)
			}
		}
		send(0, 10)
		send(0, 0)
		send(1, 8)
		send(1, 0)
	}
}

// TestTheKeyDecidesWhereASourceStands: whoever does not know it cannot aim at the set of another.
func TestTheKeyDecidesWhereASourceStands(t *testing.T) {
	l := classify.Limiter{Rule: 1, Beyond: 2, Rate: 1, Burst: 10, PerSource: true, IPv4Bits: 32, IPv6Bits: 128}
	h := newHarness(t, limiting, batch, l)
	place := func(key uint64, a netip.Addr) uint32 {
		t.Helper()
		if err := h.maps[table.LimitSeed].Put(uint32(0), key); err != nil {
			t.Fatal(err)
		}
		h.arrive(t, []arrival{packet(start, a)})
		var at uint32
		var set abi.LimitSet
		for sets := h.maps[table.LimitSources].Iterate(); sets.Next(&at, &set); {
			if set.Way[0].Owner != 0 {
				if err := h.maps[table.LimitSources].Put(at, abi.LimitSet{}); err != nil {
					t.Fatal(err)
				}
				return at
			}
		}
		t.Fatalf("%s stands nowhere", a)
		return 0
	}
	for _, a := range []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7")} {
		one, same, other := place(1, a), place(1, a), place(2, a)
		if one != same || one == other {
			t.Errorf("%s stands at %d, again at %d, and by another key at %d", a, one, same, other)
		}
	}
}

// TestCPUsShareOneBucketExactly: the one packet that a CPU may pass without a look is the only slack.
func TestCPUsShareOneBucketExactly(t *testing.T) {
	const workers, each, burst = 4, 200_000, 100_000
	for _, l := range []classify.Limiter{
		{Rule: 1, Beyond: 2, Rate: 2, Burst: burst},
		{Rule: 1, Beyond: 2, Rate: 2, Burst: burst, PerSource: true, IPv4Bits: 32, IPv6Bits: 128},
	} {
		h := newHarness(t, limiting, 1, l)
		h.arrivals[0] = packet(start, netip.MustParseAddr("192.0.2.7"))
		var group sync.WaitGroup
		for range workers {
			group.Go(func() { h.run(t, each) })
		}
		group.Wait()
		var perCPU []uint64
		if err := h.maps["accepted"].Lookup(uint32(0), &perCPU); err != nil {
			t.Fatal(err)
		}
		passed := uint64(0)
		for _, n := range perCPU {
			passed += n
		}
		if passed < burst || passed > burst+uint64(len(perCPU))+workers {
			t.Errorf("%+v: %d of a burst of %d passed", l, passed, burst)
		}
		if got := h.dropped(t, 2); got != workers*each-passed {
			t.Errorf("%+v: %d passed and %d are counted beyond the limit, of %d", l, passed, got, workers*each)
		}
	}
}
