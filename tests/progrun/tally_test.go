package progrun_test

import (
	"testing"

	"github.com/cilium/ebpf"

	"sluice/xdp"
	"sluice/xdp/abi"
)

// tally is every counter of a site that is not zero.
type tally struct {
	Reasons, Unknown map[abi.Reason]xdp.Count // of the uplink; of slot 0
	Rules            map[uint32]xdp.Count
}

func (s *site) tally(t testing.TB, rules ...uint32) tally {
	t.Helper()
	out := tally{map[abi.Reason]xdp.Count{}, map[abi.Reason]xdp.Count{}, map[uint32]xdp.Count{}}
	for reason := range abi.ReasonMax + 1 { // one beyond, where nothing may ever be
		put(out.Reasons, reason, count(t, s.counts, s.slot*abi.ReasonSlots+uint32(reason)))
		put(out.Unknown, reason, count(t, s.counts, uint32(reason)))
	}
	for _, id := range rules {
		put(out.Rules, id, hits(t, s.hits, id))
	}
	return out
}

func (s *site) lastTally(t testing.TB) tally {
	t.Helper()
	if s.last.Reasons == nil {
		return s.tally(t)
	}
	return s.last
}

func count(t testing.TB, m *ebpf.Map, index uint32) xdp.Count {
	t.Helper()
	var perCPU []abi.Counter
	if err := m.Lookup(index, &perCPU); err != nil {
		t.Fatal(err)
	}
	var sum xdp.Count
	for _, c := range perCPU {
		sum.Packets += c.Packets
		sum.Bytes += c.Bytes
	}
	return sum
}

func hits(t testing.TB, m *ebpf.Map, id uint32) xdp.Count {
	t.Helper()
	cpus := uint32(ebpf.MustPossibleCPU())
	var sum xdp.Count
	for cpu := range cpus {
		var c abi.RuleHit
		if err := m.Lookup(cpu*m.MaxEntries()/cpus+id, &c); err != nil {
			t.Fatal(err)
		}
		sum.Packets += c.Packets
		sum.Bytes += c.Bytes
	}
	return sum
}

func put[K comparable](m map[K]xdp.Count, k K, c xdp.Count) {
	if c != (xdp.Count{}) {
		m[k] = c
	}
}

// minus returns what was counted since before.
func (a tally) minus(before tally) tally {
	return tally{since(a.Reasons, before.Reasons), since(a.Unknown, before.Unknown), since(a.Rules, before.Rules)}
}

func since[K comparable](now, before map[K]xdp.Count) map[K]xdp.Count {
	out := map[K]xdp.Count{}
	for k, c := range now {
		put(out, k, xdp.Count{Packets: c.Packets - before[k].Packets, Bytes: c.Bytes - before[k].Bytes})
	}
	return out
}

// judged is what must have been counted for one packet of the uplink.
func judged(reason abi.Reason, size int, rules ...uint32) tally {
	one := xdp.Count{Packets: 1, Bytes: uint64(size)}
	out := tally{map[abi.Reason]xdp.Count{reason: one}, map[abi.Reason]xdp.Count{}, map[uint32]xdp.Count{}}
	for _, id := range rules {
		out.Rules[id] = one
	}
	return out
}

func verdictOf(reason abi.Reason) uint32 {
	if reason.Fate() == abi.FateDrop {
		return xdpDrop
	}
	return xdpPass
}
