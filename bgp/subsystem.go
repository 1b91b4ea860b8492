package bgp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"sluice/bgp/bfd"
)

// Options are what a process knows and a State does not.
type Options struct {
	// Restarting says that an earlier process announced for us, and that the data path went on forwarding
	// meanwhile: the first sessions tell the peers to keep our routes (RFC 4724 section 4.1).
	Restarting bool
	// BFD holds the BFD sessions; nil where none are ever wanted.
	BFD BFD
	// FlowSpec are rules that an earlier process left in the data path. They hold until their neighbors are back, or for their age.
	FlowSpec KeptFlowSpec
	// Busy hears again and again while a table arrives; it must not block, and may be nil.
	Busy func()
}

// BFD is who holds sessions of BFD: bfd.Keeper in the daemon.
type BFD interface {
	Set(wanted []bfd.Config) error
	Report() (bfd.Report, error)
	Changed() <-chan struct{} // holds a value once there is something new to report
	Close()                   // lets go of the sessions, which live on
	Down() error
}

// Subsystem drives one speaker and its writer to the kernel. Its methods may be called from any goroutine.
type Subsystem struct {
	log      *slog.Logger
	born     time.Time
	options  Options
	sessions *sessions
	flows    *flows
	links    lostLinks

	// change is held by who changes something, for minutes where GoBGP takes a table away: it answers nobody meanwhile, and heeds no context.
	change sync.Mutex
	// mu is never held while GoBGP is asked. have and speaker are written with change held as well, so who holds that reads them without mu.
	mu       sync.Mutex
	detected detected
	have     State
	speaker  *speaker // nil: not running
}

// New returns a Subsystem without a speaker. Nothing happens before Apply.
func New(log *slog.Logger, options Options) *Subsystem {
	s := &Subsystem{log: log, born: time.Now(), options: options, sessions: newSessions(log), links: newLostLinks()}
	s.flows = newFlows(log, s.sessions.name, options.FlowSpec)
	return s
}

// Observe returns what the speaker of this process holds. A neighbor whose password file says something else by now is not what anybody wants.
func (s *Subsystem) Observe(context.Context) (State, error) { return s.keyed(), nil }

// Diff is the package's Diff.
func (s *Subsystem) Diff(have, want State) []Op { return Diff(have, want) }

// Apply does one step. A step that has been done already changes nothing and resets no session; only start always
// starts anew. After an error Observe tells what is left.
func (s *Subsystem) Apply(ctx context.Context, op Op) error {
	s.change.Lock()
	defer s.change.Unlock()
	if op.kind != start && op.kind != stop && s.speaker == nil {
		if op.Teardown() {
			return nil
		}
		return fmt.Errorf("bgp: %s: the speaker is not running", op)
	}
	if err := s.do(ctx, op); err != nil {
		return fmt.Errorf("bgp: %s: %w", op, err)
	}
	s.did(op)
	return nil
}

// did notes a step that was done, with change held.
func (s *Subsystem) did(op Op) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.have = op.on(s.have)
}

func (s *Subsystem) do(ctx context.Context, op Op) error {
	switch op.kind {
	case start:
		return s.start(ctx, op.speaker, op.heirs)
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
	case detect:
		return s.detect(op.bfd)
	case stop:
		return errors.Join(s.down(), s.detect(nil))
	}
	return errors.New("unknown step")
}

// Stop is the end of a process that another one will follow: no Cease where graceful restart was negotiated, so the
// peers go on forwarding to us, and the kernel keeps what was learned. A crash has the same effect, so a step that waits for a busy GoBGP is
// waited for as long as ctx says; nothing can be changed after that.
func (s *Subsystem) Stop(ctx context.Context) error {
	if err := within(ctx, func() error { s.change.Lock(); return nil }); err != nil {
		return fmt.Errorf("bgp: stop: %w", err)
	}
	defer s.change.Unlock()
	if s.options.BFD != nil {
		s.options.BFD.Close()
	}
	if s.speaker == nil {
		return nil
	}
	err := s.speaker.leave(ctx)
	s.gone("handed over")
	s.flows.clear()
	return err
}

// Down is the end of announcing: Cease to every neighbor, and no route of protocol 186 stays in the kernel, whoever
// left it. It is right without a speaker, too: a start whose configuration has no BGP calls it.
func (s *Subsystem) Down(context.Context) error {
	s.change.Lock()
	defer s.change.Unlock()
	err := s.down()
	if s.options.BFD != nil {
		err = errors.Join(err, s.options.BFD.Down())
	}
	return err
}

// runs notes the speaker, which nothing is known of yet, with change held.
func (s *Subsystem) runs(sp *speaker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.speaker, s.have = sp, State{}
}

// gone forgets the speaker.
func (s *Subsystem) gone(why string) {
	s.runs(nil)
	s.sessions.reset(why)
}
