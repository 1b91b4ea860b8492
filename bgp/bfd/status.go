package bfd

import (
	"net/netip"
	"slices"
	"time"
)

// Status is a session as it is.
type Status struct {
	Peer          netip.Addr    `json:"peer"`
	Interface     string        `json:"interface,omitempty"`
	State         State         `json:"state"`
	Diag          Diag          `json:"diag"` // why it last left up
	RemoteState   State         `json:"remote_state"`
	RemoteDiag    Diag          `json:"remote_diag"`
	Discriminator uint32        `json:"discriminator"` // ours
	Independent   bool          `json:"independent"`   // the peer's last word was C: its BFD outlives its control plane
	Interval      time.Duration `json:"interval_ns"`   // between our packets, before jitter
	Detection     time.Duration `json:"detection_ns"`
	Since         time.Time     `json:"since"`
	Failures      uint64        `json:"failures"` // how often it went from up to down; not where the peer was switched off on purpose
	Sent          uint64        `json:"sent"`
	Received      uint64        `json:"received"`
	Error         string        `json:"error,omitempty"` // why packets cannot be sent
}

// Status returns the sessions, sorted, and among them those that are still being taken leave of.
func (s *Server) Status() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Status, 0, len(s.sessions))
	for _, e := range s.sessions {
		out = append(out, Status{
			Peer: e.config.Peer, Interface: e.config.Interface, State: e.state, Diag: e.diag, RemoteState: e.remote.state,
			RemoteDiag: e.remote.diag, Discriminator: e.mine, Independent: e.received > 0 && !e.fate, Interval: max(e.usedTx, e.remote.minRx),
			Detection: e.detectionTime(), Since: e.since, Failures: e.failures, Sent: e.sent, Received: e.received, Error: e.lastError,
		})
	}
	slices.SortFunc(out, func(a, b Status) int { return key{a.Peer, a.Interface}.compare(key{b.Peer, b.Interface}) })
	return out
}

// Idle reports whether no session is left, also none that is being taken leave of.
func (s *Server) Idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sessions) == 0
}

// Discards counts the packets that were not believed, by the reason's label.
func (s *Server) Discards() map[string]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]uint64{}
	for d := Accepted + 1; d < discards; d++ {
		out[d.String()] = s.discards[d]
	}
	return out
}
