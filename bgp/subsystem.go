package bgp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Options are what a process knows and a State does not.
type Options struct {
	// Restarting says that an earlier process announced for us, and that the data path went on forwarding
	// meanwhile: the first sessions tell the peers to keep our routes (RFC 4724 section 4.1).
	Restarting bool
}

// Subsystem drives one speaker and its writer to the kernel. Its methods may be called from any goroutine.
type Subsystem struct {
	log      *slog.Logger
	born     time.Time
	options  Options
	sessions *sessions
	flows    *flows

	mu      sync.Mutex
	have    State
	speaker *speaker // nil: not running
}

// New returns a Subsystem without a speaker. Nothing happens before Apply.
func New(log *slog.Logger, options Options) *Subsystem {
	s := &Subsystem{log: log, born: time.Now(), options: options, sessions: newSessions(log)}
	s.flows = newFlows(log, s.sessions.name)
	return s
}

// Observe returns what the speaker of this process holds.
func (s *Subsystem) Observe(context.Context) (State, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.have.normal(), nil
}

// Diff is the package's Diff.
func (s *Subsystem) Diff(have, want State) []Op { return Diff(have, want) }

// Apply does one step. A step that has been done already changes nothing and resets no session; only start always
// starts anew. After an error Observe tells what is left.
func (s *Subsystem) Apply(ctx context.Context, op Op) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if op.kind != start && op.kind != stop && s.speaker == nil {
		if op.Teardown() {
			return nil
		}
		return fmt.Errorf("bgp: %s: the speaker is not running", op)
	}
	if err := s.do(ctx, op); err != nil {
		return fmt.Errorf("bgp: %s: %w", op, err)
	}
	s.have = op.on(s.have)
	return nil
}

func (s *Subsystem) do(ctx context.Context, op Op) error {
	switch op.kind {
	case start:
		return s.start(ctx, op.speaker)
	case learn:
		return s.learn(ctx, op.learn)
	case filter:
		s.filter(op.flowSpec)
		return nil
	case originate:
		return s.originate(ctx, op)
	case withdraw:
		return s.withdraw(op.prefix)
	case setNeighbor:
		return s.setNeighbor(ctx, op.neighbor)
	case relaxNeighbor:
		return s.relaxNeighbor(ctx, op.neighbor)
	case removeNeighbor:
		return s.removeNeighbor(ctx, op.neighbor.Address, Neighbor{})
	case stop:
		return s.down()
	}
	return errors.New("unknown step")
}

// Stop is the end of a process that another one will follow: no Cease where graceful restart was negotiated, so the
// peers go on forwarding to us, and the kernel keeps what was learned. A crash has the same effect.
func (s *Subsystem) Stop(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.speaker == nil {
		return nil
	}
	err := s.speaker.leave(ctx)
	s.gone("handed over")
	return err
}

// Down is the end of announcing: Cease to every neighbor, and no route of protocol 186 stays in the kernel, whoever
// left it. It is right without a speaker, too: a start whose configuration has no BGP calls it.
func (s *Subsystem) Down(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.down()
}

// gone forgets the speaker.
func (s *Subsystem) gone(why string) {
	s.speaker, s.have = nil, State{}
	s.sessions.reset(why)
	s.flows.clear()
}
