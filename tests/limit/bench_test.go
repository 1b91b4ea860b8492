package limit_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"sluice/xdp/classify"
)

// BenchmarkLimit gives the nanoseconds that a limit adds to one packet, over a program that only reads its key: per rule,
// per source, and by an LRU_HASH of buckets of the same size, for one hot source and for spoofed ones; within the limit and
// beyond it. Lanes run in shuffled rounds, and the median of the paired differences is told.
func BenchmarkLimit(b *testing.B) {
	const rounds, repeat, sources = 9, 1 << 18, 1 << 22
	rng := rand.New(rand.NewPCG(3, 21))
	never := classify.Limiter{Rule: 1, Beyond: 2, Rate: 1_000_000_000, Burst: 1_000_000_000}
	always := classify.Limiter{Rule: 1, Beyond: 2, Rate: 1, Burst: 1}
	busy := classify.Limiter{Rule: 1, Beyond: 2, Rate: 1, Burst: 1000} // spoofed sources stay in debt: every set is full
	perSource := func(l classify.Limiter) classify.Limiter {
		l.PerSource, l.IPv4Bits, l.IPv6Bits = true, 32, 128
		return l
	}
	type one struct {
		name string
		l    lane
		by   classify.Limiter
		n    int // different sources, a power of two
	}
	all := []one{
		{"nothing/hot", nothing, never, 1}, {"nothing/spoofed", nothing, never, sources},
		{"rule/conforming", limiting, never, 1}, {"rule/beyond", limiting, always, 1},
		{"source/hot-conforming", limiting, perSource(never), 1}, {"source/hot-beyond", limiting, perSource(always), 1},
		{"source/spoofed-10kpps", limiting, perSource(classify.Limiter{Rule: 1, Beyond: 2, Rate: 10_000, Burst: 20_000}), sources},
		{"source/spoofed-1pps", limiting, perSource(busy), sources},
		{"lru/hot-conforming", lru, never, 1}, {"lru/spoofed", lru, busy, sources},
	}
	programs := make([]*ebpf.Program, len(all))
	for i, o := range all {
		h := newHarness(b, o.l, o.n, o.by)
		for j := range h.arrivals {
			h.arrivals[j] = packet(0, ip(rng))
		}
		if o.n == 1 {
			h.arrivals[0] = packet(0, netip.MustParseAddr("192.0.2.7"))
		}
		programs[i] = h.program
		h.run(b, 1<<20) // full tables
	}
	for b.Loop() {
		times := make([][]time.Duration, len(all))
		for range rounds {
			for _, i := range rng.Perm(len(all)) {
				_, each, err := programs[i].Benchmark(make([]byte, 64), repeat, nil)
				if err != nil {
					b.Fatal(err)
				}
				times[i] = append(times[i], each)
			}
		}
		for i, o := range all {
			floor := times[0]
			if o.n > 1 {
				floor = times[1]
			}
			var added []float64
			for r := range rounds {
				added = append(added, float64(times[i][r]-floor[r]))
			}
			slices.Sort(added)
			b.ReportMetric(added[rounds/2], fmt.Sprintf("%s-ns", o.name))
		}
	}
}
