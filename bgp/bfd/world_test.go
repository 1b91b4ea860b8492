package bfd

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

// world is two sessions and the link between them, on a clock of its own.
type world struct {
	now  time.Time
	ends [2]*session
	wire []flight
	// lost says whether a packet sent by an end is lost; nil: none is.
	lost  func(from int) bool
	delay time.Duration
	// sent is called for every packet that an end sends, lost or not.
	sent func(from int, p packet)
}

type flight struct {
	to      int
	arrives time.Time
	p       packet
}

func config(interval time.Duration, multiplier uint8) Config {
	return Config{Peer: netip.MustParseAddr("192.0.2.1"), MinTx: interval, MinRx: interval, Multiplier: multiplier}
}

func newWorld(seed uint64, a, b Config) *world {
	r := rand.New(rand.NewPCG(seed, 1))
	w := &world{now: time.Unix(1000, 0), delay: time.Millisecond, sent: func(int, packet) {}}
	for i, c := range []Config{a, b} {
		w.ends[i] = newSession(c, uint32(i+1), true, r.Float64, w.now)
	}
	return w
}

func (w *world) put(from int, packets []packet) {
	for _, p := range packets {
		w.sent(from, p)
		if w.lost == nil || !w.lost(from) {
			w.wire = append(w.wire, flight{1 - from, w.now.Add(w.delay), p})
		}
	}
}

// step goes to the next moment at which something happens, and does it.
func (w *world) step() {
	next := time.Time{}
	for _, s := range w.ends {
		if due := s.due(); !due.IsZero() && (next.IsZero() || due.Before(next)) {
			next = due
		}
	}
	if len(w.wire) > 0 && (next.IsZero() || !w.wire[0].arrives.After(next)) {
		f := w.wire[0]
		w.wire, w.now = w.wire[1:], f.arrives
		packets, _ := w.ends[f.to].receive(w.now, f.p)
		w.put(f.to, packets)
		return
	}
	if next.After(w.now) {
		w.now = next
	}
	for i, s := range w.ends {
		w.put(i, s.tick(w.now))
	}
}

// until steps until ok, and reports how long that took; it fails after a minute of the world's time.
func (w *world) until(t *testing.T, what string, ok func() bool) time.Duration {
	t.Helper()
	begin := w.now
	for !ok() {
		if w.step(); w.now.Sub(begin) > time.Minute {
			t.Fatalf("%s: not within a minute: %s (%s), %s (%s)", what, w.ends[0].state, w.ends[0].diag, w.ends[1].state, w.ends[1].diag)
		}
	}
	return w.now.Sub(begin)
}

func (w *world) run(d time.Duration) {
	for end := w.now.Add(d); w.now.Before(end); {
		w.step()
	}
}

func (w *world) up() bool { return w.ends[0].state == Up && w.ends[1].state == Up }

// settled is up, with no poll on.
func (w *world) settled() bool { return w.up() && !w.ends[0].polling && !w.ends[1].polling }
