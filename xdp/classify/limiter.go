package classify

import (
	"encoding/binary"
	"hash/fnv"
	"math/bits"
	"net"

	"sluice/xdp/abi"
)

// Limiter is what a rule with Limit allows. Its buckets go by the id of the rule, so they outlive a generation.
type Limiter struct {
	Rule   uint32 // stable id
	Beyond uint32 // stable id of the counter of what it drops
	Rate   uint64 // packets, or with Bits bits, per second; at most MaxPacketRate, or MinBitRate to MaxBitRate
	Burst  uint64 // packets, or with Bits bytes; at most MaxBurstSeconds of the rate
	Bits   bool
	// PerSource gives every source address a bucket of its own, or every prefix of these lengths.
	PerSource          bool
	IPv4Bits, IPv6Bits int
}

// Limited is one more than the highest id of a rule with a limit; 0: there is none.
func Limited(limiters []Limiter) (ids uint32) {
	for _, l := range limiters {
		ids = max(ids, l.Rule+1)
	}
	return ids
}

// The bounds of limits. Above them, ticks of 1/64 ns are too long for an error below 1 %.
const (
	MaxPacketRate   = 1_000_000_000
	MaxBitRate      = 400_000_000_000
	MinBitRate      = 1000
	MaxBurstSeconds = 86400
)

const ticksPerSecond = 1_000_000_000 << abi.LimitTickBits

// perUnit is how many ticks Rate units take: a unit is a packet, or a byte.
func (l Limiter) perUnit() uint64 {
	if l.Bits {
		return 8 * ticksPerSecond
	}
	return ticksPerSecond
}

// Entry is the limiter as the programs have it.
func (l Limiter) Entry() abi.Limiter {
	e := abi.Limiter{Rule: l.Rule, Beyond: l.Beyond}
	if l.Bits {
		e.Flags |= abi.LimitByBytes
	}
	// As many fractions as leave room for the largest amount: mult below 2^44, and the amount at most 2^17.
	for e.Shift = 43; ; e.Shift-- {
		hi, lo := bits.Mul64(l.perUnit(), 1<<e.Shift)
		if hi >= l.Rate {
			continue
		}
		if e.Mult, _ = bits.Div64(hi, lo, l.Rate); e.Mult < 1<<44 {
			break
		}
	}
	hi, lo := bits.Mul64(l.perUnit(), l.Burst)
	e.Burst, _ = bits.Div64(hi, lo, l.Rate)
	if !l.Bits {
		e.Burst = l.Burst * LimitCost(&e, 1) // a burst of packets is exact, whatever a packet's time is rounded to
	}
	if l.PerSource {
		e.Flags |= abi.LimitBySource
		e.Mask4 = [4]byte(net.CIDRMask(l.IPv4Bits, 32))
		e.Mask6 = abi.Addr(net.CIDRMask(l.IPv6Bits, 128))
	}
	e.Mark = limitMark(e)
	return e
}

// limitMark tells limits apart that allow different things.
func limitMark(e abi.Limiter) uint64 {
	e.Rule, e.Beyond = 0, 0
	h := fnv.New64a()
	_ = binary.Write(h, binary.NativeEndian, e) // a hash takes everything, and the struct is of fixed size
	return h.Sum64() | 1
}

// LimitCost is limit_cost of limit.h for an amount of packets or bytes: ticks.
func LimitCost(l *abi.Limiter, amount uint64) uint64 {
	most := uint64(abi.LimitPackets)
	if l.Flags&abi.LimitByBytes != 0 {
		most = abi.LimitBytes
	}
	return (min(amount, most)*l.Mult + (1<<l.Shift)/2) >> l.Shift
}

// Bucket is a token bucket as the programs have it: the time, in ticks, at which it is full again. The zero Bucket is
// full.
type Bucket uint64

// Take is limit_take of limit.h: whether a packet that costs so many ticks conforms now, in ticks of CLOCK_MONOTONIC. Then
// it is paid for.
func (b *Bucket) Take(l *abi.Limiter, now, cost uint64) bool {
	ahead := max(int64(uint64(*b)-now), 0)
	if uint64(ahead)+min(cost, l.Burst) > l.Burst {
		return false
	}
	*b = Bucket(now + uint64(ahead) + cost)
	return true
}
