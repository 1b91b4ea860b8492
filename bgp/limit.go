package bgp

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"sluice/plural"
)

// Limits. GoBGP ends a session that is over its limit within the UPDATE that is one too many. Warnings are ours: counting
// walks the neighbor's table, so it is done once in countPause, while something changes.
const countPause = time.Second

// counts looks at the numbers of prefixes each time that something changed.
func (sp *speaker) counts(ctx context.Context, to *sessions) {
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			return
		case <-sp.changed:
		}
		if to.warns() {
			// An error is the speaker's end.
			_ = sp.bgp.ListPeer(ctx, &api.ListPeerRequest{}, func(p *api.Peer) {
				addr, err := netip.ParseAddr(p.GetState().GetNeighborAddress())
				for _, a := range p.AfiSafis {
					family := apiutil.ToFamily(a.GetConfig().GetFamily())
					if _, rules := flowSpecFamily(family); err == nil && !rules { // rules have a limit of their own
						to.counted(addr, family, a.GetState().GetReceived())
					}
				}
			})
		}
		select {
		case <-ctx.Done():
		case <-time.After(countPause):
		}
	}
}

// note has counts look, now or soon.
func (sp *speaker) note() {
	select {
	case sp.changed <- struct{}{}:
	default:
	}
}

// warns says whether anybody wants to be warned.
func (s *sessions) warns() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, known := range s.known {
		if l := known.n.Limit; l.Max > 0 && (l.Warn || l.WarnAt > 0) {
			return true
		}
	}
	return false
}

// counted tells once per session and family that the count is near the limit, and that it is beyond it.
func (s *sessions) counted(addr netip.Addr, family bgp.Family, received uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.known[addr]
	if known == nil || !known.up || known.n.Limit.Max == 0 {
		return
	}
	l, kind := known.n.Limit, EventKind("")
	switch {
	case received > uint64(l.Max):
		kind = EventLimit
	case l.WarnAt > 0 && received*100 >= uint64(l.Max)*uint64(l.WarnAt):
		kind = EventNearly
	}
	if told := known.warned[family]; kind == "" || kind == told || told == EventLimit || kind == EventLimit && !l.Warn {
		return
	}
	if known.warned == nil {
		known.warned = map[bgp.Family]EventKind{}
	}
	known.warned[family] = kind
	s.tell(known, kind, fmt.Sprintf("%d of at most %s of %s", received, plural.Of(l.Max, "prefix", "prefixes"), family))
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
