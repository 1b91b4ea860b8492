package progrun_test

import (
	"math/rand/v2"
	"testing"

	"sluice/xdp/abi"
)

// once checks what holds of any bytes: one reason is counted with all the bytes, the verdict is that reason's, the twin
// says the same, and nothing is written. In a fuzz target the interface is unknown: its goroutines are in no namespace.
func (s *site) once(t *testing.T, frame []byte, ifindex int) {
	t.Helper()
	before := s.lastTally(t)
	verdict := run(t, s.live, ifindex, frame)
	s.last = s.tally(t)
	now := s.last.minus(before)
	counted := now.Reasons
	if ifindex == 0 {
		counted = now.Unknown
	}
	if len(now.Reasons)+len(now.Unknown) != 1 || len(counted) != 1 {
		t.Fatalf("%x: counted %+v", frame, now)
	}
	for reason, c := range counted {
		if c.Packets != 1 || c.Bytes != uint64(len(frame)) || verdictOf(reason) != verdict {
			t.Fatalf("%x: verdict %d and %+v of %s", frame, verdict, c, reason)
		}
		if reason == abi.ReasonNone || reason == abi.ReasonInternal || reason >= abi.ReasonMax {
			t.Fatalf("%x: %s", frame, reason)
		}
		if said := s.explain(t, ifindex, frame); abi.Reason(said.Reason) != reason {
			t.Fatalf("%x: %s, and the twin says %s", frame, reason, abi.Reason(said.Reason))
		}
	}
}

const largest = 3000 // less than a page with its headroom, which is what one buffer of a test run takes

func FuzzPacket(f *testing.F) {
	s := newSite(f, strict())
	for _, g := range goods() {
		f.Add(g.frame)
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) >= 14 && len(frame) <= largest {
			s.once(t, frame, 0)
		}
	})
}

func TestRandomlyDamagedPacketsAreJudgedOnce(t *testing.T) {
	s := newSite(t, strict())
	rng := rand.New(rand.NewPCG(7, 7))
	list := goods()
	for range 10_000 {
		frame := append([]byte{}, list[rng.IntN(len(list))].frame...)
		for range 1 + rng.IntN(4) {
			frame[12+rng.IntN(len(frame)-12)] = byte(rng.Uint32())
		}
		s.once(t, frame[:14+rng.IntN(len(frame)-13)], s.uplink)
	}
}
