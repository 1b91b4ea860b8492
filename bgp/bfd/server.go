package bfd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Server holds sessions. Its methods may be called from any goroutine.
type Server struct {
	log         *slog.Logger
	independent bool
	listeners   []*listener
	changed     chan struct{}
	readers     sync.WaitGroup

	mu       sync.Mutex
	sessions map[key]*entry
	byMine   map[uint32]*entry // by our discriminator
	before   map[key]uint32    // our discriminators in sessions that a process before this one held
	discards [discards]uint64
	closed   bool
}

// entry is a session with its socket and its timer.
type entry struct {
	*session
	sender
	listener       *listener // of its family
	timer          *time.Timer
	noticed        time.Time // when it was seen that the detection time is over
	since          time.Time // of its state
	failures       uint64
	sent, received uint64
	lastError      string // of sending; "" while that works
	fate           bool   // the peer's last packet was without C: it shares the fate of its control plane
}

// Listen opens the listeners of both families in the network namespace of the calling thread. independent sets C in what is
// sent: BFD goes on while the control plane restarts.
func Listen(log *slog.Logger, independent bool) (*Server, error) {
	s := &Server{
		log: log, independent: independent, changed: make(chan struct{}, 1), sessions: map[key]*entry{}, byMine: map[uint32]*entry{},
	}
	for _, network := range []string{"udp4", "udp6"} {
		l, err := listen(network)
		if network == "udp6" && errors.Is(err, unix.EAFNOSUPPORT) {
			continue
		}
		if err != nil {
			s.Close()
			return nil, err
		}
		s.listeners = append(s.listeners, l)
	}
	for _, l := range s.listeners {
		s.readers.Go(func() { s.read(l) })
	}
	return s, nil
}

// Close ends everything without a word: peers take it for a failure. Set(nil) before, and waiting until Idle, is the polite end.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	for _, e := range s.sessions {
		s.drop(e)
	}
	s.mu.Unlock()
	for _, l := range s.listeners {
		_ = l.Close()
	}
	s.readers.Wait()
}

// Changed holds a value once a state has changed since the last was taken.
func (s *Server) Changed() <-chan struct{} { return s.changed }

// Resume says by which of our discriminators peers may still have sessions up that are wanted next.
func (s *Server) Resume(before map[Config]uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = map[key]uint32{}
	for c, mine := range before {
		s.before[c.key()] = mine
	}
}

// Set makes the sessions those of wanted. One that stays goes on: changed intervals are announced by a poll. One that goes is
// administratively down for a while, so that its peer does not take it for a failure. On an error nothing changes.
func (s *Server) Set(wanted []Config) error {
	byKey := map[key]Config{}
	for _, c := range wanted {
		if err := c.check(); err != nil {
			return err
		}
		if _, twice := byKey[c.key()]; twice {
			return fmt.Errorf("BFD peer %s is there twice", c.key())
		}
		if s.family(c) == nil {
			return fmt.Errorf("BFD peer %s: this kernel has no IPv6", c.Peer)
		}
		byKey[c.key()] = c
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	now := time.Now()
	for k, e := range s.sessions {
		if _, stays := byKey[k]; !stays {
			s.step(e, now, func() []packet { return e.disable(now) })
		}
	}
	for k, c := range byKey {
		s.want(s.sessions[k], c, now)
	}
	return nil
}

// want makes, changes or takes back a session.
func (s *Server) want(e *entry, c Config, now time.Time) {
	switch {
	case e == nil:
		e = s.add(c, now)
	case e.config == c && e.state != AdminDown:
		return
	case e.config.Local != c.Local:
		e.sender.close()
	}
	s.step(e, now, func() []packet {
		if e.state == AdminDown {
			e.enable(now, c)
		} else {
			e.configure(now, c)
		}
		return e.tick(now)
	})
}

func (s *Server) add(c Config, now time.Time) *entry {
	mine, resumes := s.before[c.key()]
	delete(s.before, c.key())
	if resumes = resumes && s.byMine[mine] == nil; !resumes {
		mine = rand.Uint32()
	}
	for mine == 0 || s.byMine[mine] != nil {
		mine = rand.Uint32()
	}
	e := &entry{session: newSession(c, mine, s.independent, rand.Float64, now), listener: s.family(c), since: now}
	if resumes {
		e.resume(now)
	}
	e.timer = time.AfterFunc(0, func() { s.fire(e) })
	s.sessions[c.key()], s.byMine[mine] = e, e
	return e
}

func (s *Server) drop(e *entry) {
	e.timer.Stop()
	e.sender.close()
	delete(s.sessions, e.config.key())
	delete(s.byMine, e.mine)
}

// family is the listener for a session; nil: the kernel lacks it.
func (s *Server) family(c Config) *listener {
	if i := slices.Index([]bool{true, false}, c.Peer.Is4()); i < len(s.listeners) {
		return s.listeners[i]
	}
	return nil
}

// Where this process did not run for a while, packets of the peer wait in the socket: they are heard before the peer is
// taken for dead, as long as they are read within grace.
const (
	grace = 50 * time.Millisecond
	soon  = time.Millisecond
)

// fire is the timer of a session.
func (s *Server) fire(e *entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	switch end := e.detection(); {
	case s.byMine[e.mine] != e: // dropped meanwhile
	case e.state == AdminDown && !now.Before(e.retire):
		s.drop(e)
		s.tell()
	case !end.IsZero() && !now.Before(end) && e.listener.queued() && e.lateSince(end, now) < grace:
		e.timer.Reset(soon)
	default:
		s.step(e, now, func() []packet { return e.tick(now) })
	}
}

// lateSince is how long it has been known that the detection time ended at end.
func (e *entry) lateSince(end, now time.Time) time.Duration {
	if e.noticed.Before(end) {
		e.noticed = now
	}
	return now.Sub(e.noticed)
}

// step runs f on a session, sends what it returns, tells of a new state and sets the timer. s.mu is held.
func (s *Server) step(e *entry, now time.Time, f func() []packet) {
	before := e.state
	packets := f()
	for _, p := range packets {
		s.send(e, p)
	}
	if e.state != before {
		s.turned(e, before, now)
	}
	due := e.due()
	if e.state == AdminDown && (due.IsZero() || e.retire.Before(due)) {
		due = e.retire
	}
	if due.IsZero() {
		e.timer.Stop()
		return
	}
	e.timer.Reset(time.Until(due))
}

func (s *Server) send(e *entry, p packet) {
	err := e.sender.send(e.config, p.append(make([]byte, 0, packetSize)))
	switch {
	case err == nil:
		e.sent, e.lastError = e.sent+1, ""
	case e.lastError != err.Error():
		e.lastError = err.Error()
		s.log.Warn("BFD packet not sent", "peer", e.config.key(), "error", err)
	}
}

// turned tells of a state that changed. A peer that is off on purpose has not failed (RFC 5882 section 3.2).
func (s *Server) turned(e *entry, before State, now time.Time) {
	e.since = now
	level := slog.LevelDebug
	switch {
	case e.state == Up:
		level = slog.LevelInfo
	case before == Up && e.state == Down && e.remote.state != AdminDown:
		e.failures++
		level = slog.LevelWarn
	}
	s.log.Log(context.Background(), level, "BFD session "+e.state.String(), "peer", e.config.key(), "diag", e.diag, "peer_state", e.remote.state)
	s.tell()
}

func (s *Server) tell() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}
