package bgp

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"sluice/plural"
)

// countPause is between two counts.
const countPause = time.Second

// tally bounds how many prefixes a neighbor announces. GoBGP would count its table with each UPDATE, by a copy of it, which is quadratic for a full
// table. So it knows of none: what each UPDATE brings is added here, as if all were new, and only where that may have reached a threshold is
// the table counted. Families are those of limits: IPv4 and IPv6 unicast.
type tally struct {
	limited atomic.Bool
	up      atomic.Bool // the session is: what its peer logs of connecting is over
	doubt   chan struct{}
	of      [2]struct{ counted, since, next atomic.Uint64 }
}

func newTally(doubt chan struct{}) *tally { return &tally{doubt: doubt} }

// unicastFamilies are those of a tally, in its order.
var unicastFamilies = [2]bgp.Family{bgp.RF_IPv4_UC, bgp.RF_IPv6_UC} // never changed

// received takes a part of an UPDATE, as the log has it. It is called in the neighbor's own goroutine, before the table has what came.
func (t *tally) received(part any, name string) {
	switch part := part.(type) {
	case []bgp.PathNLRI:
		if name == "nlri" {
			t.add(bgp.RF_IPv4_UC, len(part))
		}
	case []bgp.PathAttributeInterface:
		for _, a := range part {
			if reach, is := a.(*bgp.PathAttributeMpReachNLRI); is {
				t.add(bgp.NewFamily(reach.AFI, reach.SAFI), len(reach.Value))
			}
		}
	}
}

func (t *tally) add(family bgp.Family, n int) {
	i := slices.Index(unicastFamilies[:], family)
	if i < 0 || n == 0 {
		return
	}
	if of := &t.of[i]; of.since.Add(uint64(n))+of.counted.Load() >= of.next.Load() {
		signal(t.doubt)
	}
}

// since is what came since the last count.
func (t *tally) since() (out [2]uint64) {
	for i := range t.of {
		out[i] = t.of[i].since.Load()
	}
	return out
}

// counted takes a count that was made after the tally had so much.
func (t *tally) counted(i int, since, n uint64) {
	t.of[i].counted.Store(n)
	t.of[i].since.Add(-since)
}

// count counts the tables of neighbors whose limits may be reached, until ctx ends.
func (s *Subsystem) count(ctx context.Context, sp *speaker) {
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			return
		case <-s.sessions.doubt:
		}
		began := time.Now()
		for addr, t := range s.sessions.doubtful() {
			over, since := false, t.since() // the count waits until what came before is in the table
			// An error is the speaker's end.
			_ = sp.bgp.ListPeer(ctx, &api.ListPeerRequest{Address: addr.String()}, func(p *api.Peer) {
				for _, a := range p.AfiSafis {
					if i := slices.Index(unicastFamilies[:], apiutil.ToFamily(a.GetConfig().GetFamily())); i >= 0 {
						n := a.GetState().GetReceived()
						t.counted(i, since[i], n)
						over = s.sessions.counted(addr, i, n) || over
					}
				}
			})
			if over {
				s.limit(sp, addr, true)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(max(countPause, restAfter(time.Since(began)))):
		}
		for _, addr := range s.sessions.bounded() { // what was too much went before GoBGP looked
			s.limit(sp, addr, false)
		}
	}
}

// limit tells GoBGP of a neighbor's limit, by which it ends a session that is over it, or that there is none.
func (s *Subsystem) limit(sp *speaker, addr netip.Addr, is bool) {
	s.change.Lock()
	defer s.change.Unlock()
	n, ok := s.neighbor(addr)
	if s.speaker != sp || !ok {
		return
	}
	peer := s.offered(n).peer(sp.passwords[addr], false)
	if is {
		peer = s.offered(n).overLimit(sp.passwords[addr])
	}
	if _, err := sp.bgp.UpdatePeer(context.Background(), &api.UpdatePeerRequest{Peer: peer}); err != nil {
		s.log.Error("BGP neighbor over its limit", "neighbor", n.Name, "error", err)
		return
	}
	s.sessions.bound(addr, is)
}

// bound notes that GoBGP knows of a neighbor's limit, or does not.
func (s *sessions) bound(addr netip.Addr, is bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.known[addr]; known != nil {
		known.bound = is
	}
}

// bounded are the neighbors with a session and a limit that GoBGP knows of.
func (s *sessions) bounded() (out []netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for addr, known := range s.known {
		if known.bound && known.life.up {
			out = append(out, addr)
		}
	}
	return out
}

// tally is that of a neighbor; nil: it is not known.
func (s *sessions) tally(addr netip.Addr) *tally {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.known[addr]; known != nil {
		return known.tally
	}
	return nil
}

// doubtful are the neighbors that may have reached a threshold.
func (s *sessions) doubtful() map[netip.Addr]*tally {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[netip.Addr]*tally{}
	for addr, known := range s.known {
		for i, family := range unicastFamilies {
			of := &known.tally.of[i]
			of.next.Store(known.threshold(family))
			if of.counted.Load()+of.since.Load() >= of.next.Load() {
				out[addr] = known.tally
			}
		}
	}
	return out
}

// threshold is the number of prefixes of a family that there is something to do at.
func (k *session) threshold(family bgp.Family) uint64 {
	l, told := k.n.Limit, k.warned[family]
	switch {
	case l.Max == 0 || told == EventLimit && l.Warn:
		return math.MaxUint64
	case l.WarnAt > 0 && told == "":
		return (uint64(l.Max)*uint64(l.WarnAt) + 99) / 100
	}
	return uint64(l.Max) + 1
}

// counted tells once per session and family that the count is near the limit, and that it is beyond it. True: that ends the session.
func (s *sessions) counted(addr netip.Addr, i int, received uint64) (over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known, family := s.known[addr], unicastFamilies[i]
	if known == nil || !known.up || known.n.Limit.Max == 0 {
		return false
	}
	defer func() { known.tally.of[i].next.Store(known.threshold(family)) }()
	l, told := known.n.Limit, known.warned[family]
	over = received > uint64(l.Max)
	kind := EventNearly
	switch {
	case over && !l.Warn:
		return true // who ends it tells
	case over:
		kind = EventLimit
	case l.WarnAt == 0 || received*100 < uint64(l.Max)*uint64(l.WarnAt):
		return false
	}
	if kind == told || told == EventLimit {
		return false
	}
	if known.warned == nil {
		known.warned = map[bgp.Family]EventKind{}
	}
	known.warned[family] = kind
	s.tell(known, kind, fmt.Sprintf("%d of at most %s of %s", received, plural.Of(l.Max, "prefix", "prefixes"), family))
	return false
}

// exceeded notes that GoBGP shut a session down for its limit. False: that was known.
func (s *sessions) exceeded(addr netip.Addr, retry func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.known[addr]
	if known == nil || known.over {
		return false
	}
	known.over = true
	if after := known.n.Limit.RestartAfter; after > 0 {
		known.retry = time.AfterFunc(after, retry)
	}
	reason := known.limitError()
	if known.retry != nil {
		reason += " for " + known.n.Limit.RestartAfter.String()
	}
	s.tell(known, EventLimit, reason)
	return true
}

func (s *sessions) over(addr netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known[addr] != nil && s.known[addr].over
}

// lift forgets that a session was over its limit, and says whether it was.
func (s *sessions) lift(addr netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known[addr] != nil && s.known[addr].lift()
}

func (k *session) lift() bool {
	if k.retry != nil {
		k.retry.Stop()
	}
	was := k.over
	k.over, k.retry = false, nil
	return was
}
