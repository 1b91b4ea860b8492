package bgp

import (
	"cmp"
	"net/netip"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"sluice/plural"
)

// session is what GoBGP forgets, or does not know, of a neighbor.
type session struct {
	n     Neighbor
	up    bool
	since time.Time     // of up
	flaps uint64        // sessions lost
	error string        // why it was last lost, or refused; "" while nothing went wrong
	last  *Notification // the last one in either direction
	dial  *Dial         // nil: none failed since the last connection
	link  int           // that the session of an up neighbor is over; 0: it is behind a router
	life  life

	warned map[bgp.Family]EventKind // the worst that was told of this session
	bound  bool                     // GoBGP knows of the limit
	spoilt bool                     // a FlowSpec rule ended the session, see unreadable
	plain  bool                     // FlowSpec is left out for that
	over   bool                     // shut down for too many prefixes
	retry  *time.Timer              // of over; nil: nobody will
	tally  *tally
	closed time.Time // when it was logged that a connection of the neighbor's was closed
}

// add makes a neighbor known, or tells what changed of it.
func (s *sessions) add(n Neighbor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.known[n.Address]; known != nil {
		if known.n.Limit != n.Limit {
			known.warned = nil
		}
		known.n = n
		known.tally.limited.Store(n.Limit.Max > 0)
		return
	}
	known := &session{n: n, tally: newTally(s.doubt)}
	known.tally.limited.Store(n.Limit.Max > 0)
	s.known[n.Address] = known
}

func (s *sessions) remove(addr netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.known[addr]; known != nil {
		s.end(known, "removed")
	}
	delete(s.known, addr)
}

func (s *sessions) reset(why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, known := range s.known {
		s.end(known, why)
	}
	clear(s.known)
}

func (s *sessions) end(known *session, why string) {
	known.lift()
	if known.up {
		known.up = false
		s.tell(known, EventDown, why)
	}
}

// notified takes a NOTIFICATION, which GoBGP tells of before the change of state that follows, if one follows.
func (s *sessions) notified(addr netip.Addr, n Notification, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.known[addr]; known != nil {
		known.last = &n
		known.spoilt = known.spoilt || !known.plain && unreadable(n, data) && (known.n.FlowSpec4 || known.n.FlowSpec6)
		if !known.up && !known.over {
			known.error = n.String()
		}
	}
}

// state takes a state change of GoBGP's machine, which passes idle, active, opensent and openconfirm on its way.
func (s *sessions) state(addr netip.Addr, state bgp.FSMState, at time.Time, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.known[addr]
	if known == nil {
		return
	}
	up := state == bgp.BGP_FSM_ESTABLISHED
	switch {
	case up && !known.up:
		known.up, known.since, known.error, known.warned = true, at, "", nil
		signal(s.doubt) // what came before this was heard was not judged
		s.tell(known, EventUp, "")
	case !up && known.up:
		known.up = false
		known.flaps++
		known.error = cmp.Or(known.limitError(), known.said(known.since), words(reason))
		s.tell(known, EventDown, known.error)
	case state == bgp.BGP_FSM_IDLE && reason != "" && !known.over:
		known.life.restarting = known.life.restarting && reason != restartExpired
		known.error = cmp.Or(known.said(at.Add(-time.Second)), words(reason))
	}
}

// runsOver notes the link of a session that is up.
func (s *sessions) runsOver(addr netip.Addr, link int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.known[addr]; known != nil {
		known.link = link
	}
}

// linkOf is the link that an established session is over; -1: none is.
func (s *sessions) linkOf(addr netip.Addr) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.known[addr]; known != nil && known.life.up {
		return known.link
	}
	return -1
}

// closedEvery is how often it is logged that a neighbor's connections are closed, while it dials in vain.
const closedEvery = time.Minute

// insists says whether a neighbor's connection was closed so soon after another that it is no news.
func (s *sessions) insists(addr netip.Addr, at time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.known[addr]
	if known == nil {
		return false
	}
	if at.Sub(known.closed) < closedEvery {
		return true
	}
	known.closed = at
	return false
}

// said is the notification since then.
func (k *session) said(since time.Time) string {
	if k.last == nil || k.last.Time.Before(since) {
		return ""
	}
	return k.last.String()
}

// restartExpired is GoBGP's name for the end of what it keeps.
const restartExpired = "restart-timer-expired"

// words are for ends without a notification, which GoBGP has names for.
func words(reason string) string {
	switch reason {
	case "read-failed", "write-failed":
		return "the connection broke"
	case "graceful-restart":
		return "the connection broke; its routes are kept while it restarts"
	case restartExpired:
		return "the neighbor did not come back in its restart time"
	case "admin-down":
		return "shut down"
	case "hold-timer-expired":
		return "Hold Timer Expired"
	}
	return reason
}

func (k *session) limitError() string {
	if !k.over {
		return ""
	}
	return "more than " + plural.Of(k.n.Limit.Max, "prefix", "prefixes") + " of one family: the session is shut down"
}

// name is that of a neighbor, or its address.
func (s *sessions) name(addr netip.Addr) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.known[addr]; known != nil {
		return known.n.Name
	}
	return addr.String()
}

// shownSession is a copy of what is shown of one.
type shownSession struct {
	error string
	over  bool
	flaps uint64
	last  *Notification
	dial  *Dial
}

func (s *sessions) shown(addr netip.Addr) shownSession {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.known[addr]
	if known == nil {
		return shownSession{}
	}
	return shownSession{cmp.Or(known.limitError(), known.plainError(), known.error), known.over, known.flaps, known.last, known.dial}
}
