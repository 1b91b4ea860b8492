package classify_test

import (
	"math/big"
	"math/rand/v2"
	"testing"

	"sluice/xdp/abi"
	"sluice/xdp/classify"
)

// tokens is the token bucket of the textbook: it fills with the rate, up to the burst, and a packet takes its amount. All
// in exact fractions. What is larger than the burst takes a full bucket, and leaves it in debt.
type tokens struct {
	have, rate, burst *big.Rat // amounts, and amounts per tick
	last              uint64
}

func newTokens(l classify.Limiter) *tokens {
	perTick := big.NewRat(int64(l.Rate), 64_000_000_000)
	if l.Bits {
		perTick.Quo(perTick, big.NewRat(8, 1))
	}
	burst := new(big.Rat).SetUint64(l.Burst)
	return &tokens{have: new(big.Rat).Set(burst), rate: perTick, burst: burst}
}

func (b *tokens) take(now, amount uint64) bool {
	grown := new(big.Rat).SetUint64(now - b.last)
	b.have.Add(b.have, grown.Mul(grown, b.rate))
	if b.have.Cmp(b.burst) > 0 {
		b.have.Set(b.burst)
	}
	b.last = now
	cost := new(big.Rat).SetUint64(amount)
	need := cost
	if need.Cmp(b.burst) > 0 {
		need = b.burst
	}
	if b.have.Cmp(need) < 0 {
		return false
	}
	b.have.Sub(b.have, cost)
	return true
}

// wholeLimits have rates whose ticks are whole numbers, so that the bucket and the textbook must agree on every packet.
func wholeLimits() []classify.Limiter {
	return []classify.Limiter{
		{Rate: 1, Burst: 1}, {Rate: 1, Burst: 7}, {Rate: 64, Burst: 3}, {Rate: 10_000, Burst: 20_000}, {Rate: 1_000_000, Burst: 10},
		{Rate: 100_000_000, Burst: 1000}, {Rate: 1_000_000_000, Burst: 100_000_000},
		{Rate: 8000, Burst: 1500, Bits: true}, {Rate: 1_000_000_000, Burst: 1_000_000, Bits: true}, {Rate: 1_000_000, Burst: 64, Bits: true},
		{Rate: 64_000_000_000, Burst: 9000, Bits: true},
	}
}

// compareBuckets feeds the same arrivals to both; each is a step of time, in ticks, and an amount.
func compareBuckets(t *testing.T, l classify.Limiter, arrivals func(yield func(step, amount uint64) bool)) {
	t.Helper()
	entry, bucket, textbook := l.Entry(), classify.Bucket(0), newTokens(l)
	now, n := uint64(1)<<50, 0
	textbook.last = now
	for step, amount := range arrivals {
		now += step
		if got, want := bucket.Take(&entry, now, classify.LimitCost(&entry, amount)), textbook.take(now, amount); got != want {
			t.Fatalf("%+v, packet %d of %d after %d ticks: %v, and the textbook says %v with %s tokens", l, n, amount, step, got, want, textbook.have.FloatString(6))
		}
		n++
	}
}

func TestABucketIsTheTextbooks(t *testing.T) {
	for _, l := range wholeLimits() {
		for seed := range uint64(20) {
			rng := rand.New(rand.NewPCG(seed, 11))
			entry := l.Entry()
			// From a trickle to a flood, with pauses in which the bucket fills.
			pace := 1 + 4*classify.LimitCost(&entry, 1)>>(seed%8)
			compareBuckets(t, l, func(yield func(step, amount uint64) bool) {
				for range 400 {
					step, amount := rng.Uint64N(pace), uint64(1)
					switch rng.IntN(40) {
					case 0:
						step = rng.Uint64N(2 * entry.Burst)
					case 1:
						step = 0
					}
					if l.Bits {
						amount = 64 + rng.Uint64N(1455)
						step *= 500
					} else if rng.IntN(10) == 0 {
						amount = 1 + rng.Uint64N(45) // a GSO buffer
					}
					if !yield(step, amount) {
						return
					}
				}
			})
		}
	}
}

func FuzzBucket(f *testing.F) {
	f.Add(uint8(0), []byte{0, 0, 1, 200, 255, 7})
	f.Add(uint8(8), []byte{0, 255, 1, 9, 0, 0, 0, 90})
	all := wholeLimits()
	f.Fuzz(func(t *testing.T, which uint8, script []byte) {
		l := all[int(which)%len(all)]
		entry := l.Entry()
		unit := max(classify.LimitCost(&entry, 1)/16, 1)
		compareBuckets(t, l, func(yield func(step, amount uint64) bool) {
			for ; len(script) > 1; script = script[2:] {
				amount := uint64(script[1])
				if l.Bits {
					amount *= 16
				}
				if !yield(uint64(script[0])*unit, min(max(amount, 1), abi.LimitPackets)) {
					return
				}
			}
		})
	})
}

// TestEveryRateIsKeptWithinOnePercent feeds ten bursts' worth at twice the rate, and counts what passes.
func TestEveryRateIsKeptWithinOnePercent(t *testing.T) {
	for _, c := range []struct {
		l      classify.Limiter
		amount uint64
	}{
		{classify.Limiter{Rate: 3, Burst: 100}, 1}, {classify.Limiter{Rate: 999_999, Burst: 1000}, 1},
		{classify.Limiter{Rate: 99_000_000, Burst: 1000}, 1}, {classify.Limiter{Rate: 100_000_000, Burst: 1000}, 1},
		{classify.Limiter{Rate: 148_809_523, Burst: 1000}, 1}, {classify.Limiter{Rate: 985_000_000, Burst: 1000}, 1},
		{classify.Limiter{Rate: 1000, Burst: 100_000, Bits: true}, 64}, {classify.Limiter{Rate: 100_000_000_000, Burst: 100_000, Bits: true}, 64},
		{classify.Limiter{Rate: 100_000_000_000, Burst: 1_000_000, Bits: true}, 1514},
		{classify.Limiter{Rate: 400_000_000_000, Burst: 100_000, Bits: true}, 60},
	} {
		entry, bucket := c.l.Entry(), classify.Bucket(0)
		perSecond := float64(c.l.Rate)
		if c.l.Bits {
			perSecond /= 8
		}
		packets := 20 * c.l.Burst / c.amount
		start, passed := uint64(1)<<50, uint64(0)
		// Packet i comes at i / (twice the rate).
		tick := func(i uint64) uint64 { return start + uint64(float64(i*c.amount)/(2*perSecond)*64e9) }
		for i := range packets {
			if bucket.Take(&entry, tick(i), classify.LimitCost(&entry, c.amount)) {
				passed += c.amount
			}
		}
		seconds := float64(tick(packets)-start) / 64e9
		want := float64(c.l.Burst) + seconds*perSecond
		if got := float64(passed) / want; got < 0.99 || got > 1.01 {
			t.Errorf("%+v: %d passed in %g s, want %.0f", c.l, passed, seconds, want)
		}
	}
}

// TestLimitsThatAllowTheSameShareAMark: a bucket bears it, and who finds another's begins with a full one.
func TestLimitsThatAllowTheSameShareAMark(t *testing.T) {
	l := classify.Limiter{Rule: 1, Beyond: 2, Rate: 1000, Burst: 20, PerSource: true, IPv4Bits: 32, IPv6Bits: 128}
	renumbered := l
	renumbered.Rule, renumbered.Beyond = 3, 4
	if l.Entry().Mark != renumbered.Entry().Mark {
		t.Error("ids of rules are in the mark")
	}
	marks := map[uint64]string{l.Entry().Mark: "the limit itself"}
	for name, change := range map[string]func(*classify.Limiter){
		"rate": func(l *classify.Limiter) { l.Rate++ }, "burst": func(l *classify.Limiter) { l.Burst++ },
		"unit": func(l *classify.Limiter) { l.Bits = true }, "per source": func(l *classify.Limiter) { l.PerSource = false },
		"IPv4 prefixes": func(l *classify.Limiter) { l.IPv4Bits = 24 }, "IPv6 prefixes": func(l *classify.Limiter) { l.IPv6Bits = 64 },
	} {
		other := l
		change(&other)
		mark := other.Entry().Mark
		if had, ok := marks[mark]; ok || mark == 0 {
			t.Errorf("another %s has the mark %#x of %s", name, mark, had)
		}
		marks[mark] = "another " + name
	}
}

func TestAPacketLargerThanTheBurstIsPaidFor(t *testing.T) {
	l := classify.Limiter{Rate: 8000, Burst: 1000, Bits: true}.Entry() // 1000 bytes per second
	const second = 64_000_000_000
	bucket, now := classify.Bucket(0), uint64(1)<<50
	if !bucket.Take(&l, now, classify.LimitCost(&l, 3000)) {
		t.Fatal("a full bucket refuses it: then nothing of its size ever passes")
	}
	if bucket.Take(&l, now+second*5/2, classify.LimitCost(&l, 1000)) {
		t.Error("the debt was not paid yet")
	}
	if !bucket.Take(&l, now+3*second, classify.LimitCost(&l, 1000)) {
		t.Error("the debt was paid")
	}
}

// TestNoLimitLeavesTheArithmetic: at the bounds of rates and bursts nothing overflows.
func TestNoLimitLeavesTheArithmetic(t *testing.T) {
	for _, l := range []classify.Limiter{
		{Rate: 1, Burst: classify.MaxBurstSeconds}, {Rate: classify.MaxPacketRate, Burst: classify.MaxPacketRate * classify.MaxBurstSeconds},
		{Rate: classify.MinBitRate, Burst: classify.MinBitRate / 8 * classify.MaxBurstSeconds, Bits: true},
		{Rate: classify.MaxBitRate, Burst: classify.MaxBitRate / 8 * classify.MaxBurstSeconds, Bits: true}, {Rate: 1, Burst: 1}, {Rate: classify.MaxPacketRate, Burst: 1},
	} {
		e := l.Entry()
		if e.Mult == 0 || e.Mult >= 1<<44 || e.Burst == 0 || e.Burst > classify.MaxBurstSeconds*64_000_000_000*2 {
			t.Errorf("%+v became %+v", l, e)
		}
		bucket, now := classify.Bucket(0), uint64(1)<<50
		if !bucket.Take(&e, now, classify.LimitCost(&e, 1<<20)) || !bucket.Take(&e, now+e.Burst+classify.LimitCost(&e, 1<<20), classify.LimitCost(&e, 1)) {
			t.Errorf("%+v: a full bucket refuses a packet", l)
		}
	}
}

func TestMasksOfSources(t *testing.T) {
	e := classify.Limiter{Rate: 1, Burst: 1, PerSource: true, IPv4Bits: 20, IPv6Bits: 61}.Entry()
	if e.Mask4 != [4]byte{255, 255, 240, 0} || e.Mask6 != (abi.Addr{255, 255, 255, 255, 255, 255, 255, 0xf8}) || e.Flags != abi.LimitBySource {
		t.Errorf("%+v", e)
	}
}
