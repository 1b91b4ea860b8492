package bgp

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

const (
	// sweepAfter bounds the wait for End-of-RIB: a neighbor may be gone for good, or not send it.
	sweepAfter = 120 * time.Second
	// sweepQuiet is how long one has said nothing by then, or it is waited for: a million routes took a busy machine three minutes, and what was
	// still to come was swept.
	sweepQuiet = 30 * time.Second
	// sweepAtLast is the end of all waiting, for who changes all the time and never sends it.
	sweepAtLast = 15 * time.Minute
)

// sweeper calls sweep once: when every neighbor has sent End-of-RIB for every family, or when those that have not are no longer waited for.
type sweeper struct {
	done atomic.Bool // for who hears of each route
	kept func() bool // there is something to sweep

	mu         sync.Mutex
	sweep      func()
	timer      *time.Timer
	pending    map[endOfRIB]struct{}
	born, last time.Time
}

type endOfRIB struct {
	neighbor netip.Addr
	family   bgp.Family
}

func newSweeper(sweep func(), kept func() bool) *sweeper {
	s := &sweeper{kept: kept, pending: map[endOfRIB]struct{}{}, born: time.Now()}
	s.sweep = sync.OnceFunc(func() {
		s.done.Store(true)
		sweep()
	})
	s.timer = time.AfterFunc(sweepAfter, s.expire)
	return s
}

func (s *sweeper) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); now.Sub(s.last) < sweepQuiet && now.Sub(s.born) < sweepAtLast {
		s.timer.Reset(sweepQuiet)
		return
	}
	s.sweep()
}

// listens says whether it matters that a neighbor goes on telling: each UPDATE is a line of a log for that.
func (s *sweeper) listens() bool { return !s.done.Load() && s.kept() }

// heard notes that a neighbor goes on telling its routes: an UPDATE came, whatever becomes of it, or what waited in between was learned.
func (s *sweeper) heard(neighbor netip.Addr) {
	if !s.listens() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for e := range s.pending {
		if e.neighbor == neighbor {
			s.last = time.Now()
			return
		}
	}
}

func (s *sweeper) expect(neighbor netip.Addr, families []bgp.Family) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range families {
		s.pending[endOfRIB{neighbor, f}] = struct{}{}
	}
}

func (s *sweeper) received(neighbor netip.Addr, family bgp.Family) {
	s.settle(func(e endOfRIB) bool { return e == endOfRIB{neighbor, family} })
}

func (s *sweeper) forget(neighbor netip.Addr) {
	s.settle(func(e endOfRIB) bool { return e.neighbor == neighbor })
}

// settle strikes off what matches, and sweeps when it was the last.
func (s *sweeper) settle(match func(endOfRIB) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	struck := false
	for e := range s.pending {
		if match(e) {
			delete(s.pending, e)
			struck = true
		}
	}
	if struck && len(s.pending) == 0 {
		s.timer.Stop()
		s.sweep()
	}
}

func (s *sweeper) stop() { s.timer.Stop() }
