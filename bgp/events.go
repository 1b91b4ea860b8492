package bgp

import (
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"sluice/plural"
)

// eventBuffer is how many events wait for a slow reader; the oldest go first.
const eventBuffer = 64

// EventKind is what happened to a session.
type EventKind string

// What happens to sessions.
const (
	EventUp     EventKind = "up"
	EventDown   EventKind = "down"
	EventNearly EventKind = "prefixes-warning" // the percentage of max_prefixes that a warning was wanted at
	EventLimit  EventKind = "prefixes-limit"   // more than max_prefixes
	EventLive   EventKind = "bfd-up"           // of the BFD session with the neighbor, as the next
	EventDead   EventKind = "bfd-down"
	EventTaken  EventKind = "routes-taken" // learned routes that another program deleted or changed; of no neighbor
)

// Event is a session that came up or went down, or whose neighbor announces much, or what befell routes.
type Event struct {
	Time     time.Time  `json:"time"`
	Neighbor string     `json:"neighbor,omitempty"`
	Address  netip.Addr `json:"address,omitzero"`
	Kind     EventKind  `json:"kind"`
	Up       bool       `json:"up"`               // whether the session is, after the event
	Reason   string     `json:"reason,omitempty"` // of what is no good news
}

// sessions knows which are up, and tells.
type sessions struct {
	log    *slog.Logger
	events chan Event
	doubt  chan struct{} // signalled when a neighbor may have reached a threshold of its limit

	mu      sync.Mutex
	known   map[netip.Addr]*session
	dropped uint64
}

func newSessions(log *slog.Logger) *sessions {
	return &sessions{log: log, events: make(chan Event, eventBuffer), doubt: make(chan struct{}, 1), known: map[netip.Addr]*session{}}
}

// Events carries what happens. It is never closed. When nobody reads, the oldest are dropped (DroppedEvents).
func (s *Subsystem) Events() <-chan Event { return s.sessions.events }

// DroppedEvents counts events that nobody read in time.
func (s *Subsystem) DroppedEvents() uint64 {
	s.sessions.mu.Lock()
	defer s.sessions.mu.Unlock()
	return s.sessions.dropped
}

// tell is called with s.mu held and never blocks.
func (s *sessions) tell(known *session, kind EventKind, reason string) {
	e := Event{Time: time.Now(), Neighbor: known.n.Name, Address: known.n.Address, Kind: kind, Up: known.up, Reason: reason}
	if kind == EventUp {
		s.log.Info("BGP session up", "neighbor", e.Neighbor, "address", e.Address)
	} else {
		text := map[EventKind]string{EventDown: "BGP session down", EventNearly: "BGP neighbor near its prefix limit",
			EventLimit: "BGP neighbor over its prefix limit"}[kind]
		s.log.Warn(text, "neighbor", e.Neighbor, "address", e.Address, "reason", reason)
	}
	s.send(e)
}

// taken tells of learned routes that another program took.
func (s *sessions) taken(prefixes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	reason := "routes to " + plural.Of(prefixes, "learned prefix", "learned prefixes") + " were deleted or changed by another program, and come back"
	s.send(Event{Time: time.Now(), Kind: EventTaken, Reason: reason})
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
