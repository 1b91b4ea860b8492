package bgp

import (
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// eventBuffer is how many events wait for a slow reader; the oldest go first.
const eventBuffer = 64

// Event is a session, of BGP or of BFD, that came up or went down.
type Event struct {
	Time     time.Time  `json:"time"`
	Neighbor string     `json:"neighbor"`
	Address  netip.Addr `json:"address"`
	BFD      bool       `json:"bfd,omitempty"` // it is the BFD session with the neighbor, not that of BGP
	Up       bool       `json:"up"`
	Reason   string     `json:"reason,omitempty"` // of a session that went down
}

// sessions knows which are up, and tells.
type sessions struct {
	log    *slog.Logger
	events chan Event

	mu      sync.Mutex
	known   map[netip.Addr]*session
	dropped uint64
}

type session struct {
	name  string
	up    bool
	error string // why it was last lost, or refused; "" while nothing went wrong
}

func newSessions(log *slog.Logger) *sessions {
	return &sessions{log: log, events: make(chan Event, eventBuffer), known: map[netip.Addr]*session{}}
}

// Events carries the ups and downs. It is never closed. When nobody reads, the oldest are dropped (DroppedEvents).
func (s *Subsystem) Events() <-chan Event { return s.sessions.events }

// DroppedEvents counts events that nobody read in time.
func (s *Subsystem) DroppedEvents() uint64 {
	s.sessions.mu.Lock()
	defer s.sessions.mu.Unlock()
	return s.sessions.dropped
}

// add makes a neighbor known, or renames it.
func (s *sessions) add(n Neighbor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.known[n.Address]; known != nil {
		known.name = n.Name
		return
	}
	s.known[n.Address] = &session{name: n.Name}
}

func (s *sessions) remove(addr netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.known[addr]; known != nil && known.up {
		s.tell(addr, known, false, "removed")
	}
	delete(s.known, addr)
}

func (s *sessions) reset(why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for addr, known := range s.known {
		if known.up {
			s.tell(addr, known, false, why)
		}
	}
	clear(s.known)
}

// state takes a state change of GoBGP's machine, which passes idle, active, opensent and openconfirm on its way.
func (s *sessions) state(addr netip.Addr, state bgp.FSMState, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.known[addr]
	if known == nil {
		return
	}
	up := state == bgp.BGP_FSM_ESTABLISHED
	if state == bgp.BGP_FSM_IDLE && reason != "" {
		known.error = reason
	}
	if up != known.up {
		s.tell(addr, known, up, reason)
	}
}

// tell is called with s.mu held.
func (s *sessions) tell(addr netip.Addr, known *session, up bool, reason string) {
	e := Event{Time: time.Now(), Neighbor: known.name, Address: addr, Up: up}
	if known.up = up; up {
		known.error = ""
		s.log.Info("BGP session up", "neighbor", known.name, "address", addr)
	} else {
		e.Reason = reason
		s.log.Warn("BGP session down", "neighbor", known.name, "address", addr, "reason", reason)
	}
	s.send(e)
}

// send is called with s.mu held and never blocks.
func (s *sessions) send(e Event) {
	for {
		select {
		case s.events <- e:
			return
		default:
		}
		select {
		case <-s.events:
			s.dropped++
		default:
		}
	}
}

func (s *sessions) lastError(addr netip.Addr) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.known[addr]; known != nil {
		return known.error
	}
	return ""
}
