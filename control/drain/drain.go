// Package drain takes the box out of traffic and back: everything is announced as the last choice (RFC 8326), then nothing,
// while sessions stay. It is state beside the revisions, as bans are: it outlives a restart, a reboot, apply and rollback.
package drain

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"sluice/control/compile"
	"sluice/control/disk"
	"sluice/control/engine"
)

// Options of a Switch.
type Options struct {
	Path   string // of the file
	Log    *slog.Logger
	Alter  func(context.Context, engine.Alteration) error
	Notify func(State)
	Faults *disk.Faults // told of the file
}

// State is a drain. The zero State is none.
type State struct {
	Since time.Time     `json:"since"`
	By    string        `json:"by,omitempty"`
	Wait  time.Duration `json:"wait_nanoseconds"` // from Since to the withdrawal
	Done  bool          `json:"withdrawn"`        // everything is
}

// On says that there is a drain.
func (s State) On() bool { return !s.Since.IsZero() }

// ErrEnded: somebody ended the drain before everything was withdrawn.
var ErrEnded = errors.New("the drain was ended by an undrain before everything was withdrawn")

// Switch is the one drain of a box.
type Switch struct {
	opts Options
	wake chan struct{} // to Run
	turn sync.Mutex    // of who changes the state, until it is on the disk and on the machine

	mu      sync.Mutex
	state   State
	until   time.Time     // on the monotonic clock: when everything is withdrawn
	unkept  bool          // the file is not what state is: its disk takes nothing
	changed chan struct{} // closed, and made anew, with every change
}

// New makes a Switch. It is off before Load.
func New(o Options) *Switch {
	return &Switch{opts: o, wake: make(chan struct{}, 1), changed: make(chan struct{})}
}

// Load reads what was kept. A damaged file leaves the box drained: whoever drained it may stand in front of it.
func (s *Switch) Load() error {
	data, err := os.ReadFile(s.opts.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var kept State
	if err == nil {
		err = json.Unmarshal(data, &kept)
	}
	if err != nil {
		s.set(State{Since: time.Now(), Done: true}, time.Now())
		err = fmt.Errorf("the box stays drained until sluice undrain: %w", err)
		s.opts.Faults.Damaged(filepath.Base(s.opts.Path), err.Error())
		return fmt.Errorf("%s: %w", s.opts.Path, err)
	}
	// A clock that was set back must not hold up the withdrawal.
	left := min(time.Until(kept.Since.Add(kept.Wait)), kept.Wait)
	s.set(kept, time.Now().Add(left))
	return nil
}

// State is what holds now.
func (s *Switch) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// Phase is what the compiler asks.
func (s *Switch) Phase() compile.Drain {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.state.On():
		return compile.DrainNone
	case s.state.Done || !time.Now().Before(s.until):
		return compile.DrainWithdrawn
	}
	return compile.DrainGraceful
}

// Begin drains, and returns when everything is withdrawn: wait from now, or as an earlier drain has it where that is sooner. The
// drain goes on where ctx ends before.
func (s *Switch) Begin(ctx context.Context, wait time.Duration, by string) (State, error) {
	now := time.Now()
	if before, until := s.look(); !before.On() {
		if err := s.alter(ctx, "drain", State{Since: now, By: by, Wait: wait}, now.Add(wait)); err != nil {
			return before, err
		}
	} else if sooner := now.Add(wait); !before.Done && sooner.Before(until) {
		before.Wait = max(0, before.Wait-until.Sub(sooner))
		if err := s.alter(ctx, "drain sooner", before, sooner); err != nil {
			return before, err
		}
	}
	for {
		s.mu.Lock()
		state, changed := s.state, s.changed
		s.mu.Unlock()
		switch {
		case !state.On():
			return state, ErrEnded
		case state.Done:
			return state, nil
		}
		select {
		case <-ctx.Done():
			return state, ctx.Err()
		case <-changed:
		}
	}
}

// End announces everything again, as the file says. It returns what there was.
func (s *Switch) End(ctx context.Context) (State, error) {
	before, _ := s.look()
	if !before.On() {
		return before, nil
	}
	return before, s.alter(ctx, "undrain", State{}, time.Time{})
}

// Run withdraws when the time has come.
func (s *Switch) Run(ctx context.Context) error {
	for {
		state, until := s.look()
		var due, room <-chan time.Time
		if s.Unkept() {
			room = time.After(roomEvery)
		}
		if state.On() && !state.Done {
			due = time.After(time.Until(until))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
			continue
		case <-room:
			s.keepAgain()
			continue
		case <-due:
		}
		if err := s.withdraw(ctx); err != nil {
			s.opts.Log.Error("drain: the withdrawal is tried again", "error", err)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(retry):
			}
		}
	}
}

// roomEvery is how often it is tried again to write what the disk had no room for.
const roomEvery = 5 * time.Second

// retry is the pause after a withdrawal that failed.
const retry = time.Second

const withdrawal = "the wait of a drain is over"

// withdraw has the machine follow Phase, which says it already: who waits is told once everything is withdrawn.
func (s *Switch) withdraw(ctx context.Context) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	state, until := s.look()
	if !state.On() || time.Now().Before(until) { // meanwhile it was ended, or begun anew
		return nil
	}
	nothing := func() error { return nil }
	err := s.opts.Alter(ctx, engine.Alteration{
		Why: withdrawal, Begin: nothing, Judge: func(*compile.Desired) error { return nil }, Keep: nothing, Undo: nothing,
	})
	if err != nil && !errors.Is(err, engine.ErrNothingLive) { // then nothing is announced
		return err
	}
	state.Done = true
	// This keeps nobody waiting: the file that is there says when the wait was over, so the next start withdraws as well.
	if err := s.keep(state); err != nil {
		s.opts.Log.Warn("everything is withdrawn, which is not on the disk", "error", err)
	}
	s.set(state, until)
	return nil
}

func (s *Switch) look() (State, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state, s.until
}

func (s *Switch) alter(ctx context.Context, why string, next State, until time.Time) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	before, was := s.look()
	kept := false
	return s.opts.Alter(ctx, engine.Alteration{
		Why:   why,
		Begin: func() error { s.set(next, until); return nil },
		Judge: func(*compile.Desired) error { return nil },
		Keep: func() error {
			kept = true
			return s.keep(next)
		},
		Undo: func() error {
			s.set(before, was)
			if kept {
				return s.keep(before)
			}
			return nil
		},
	})
}

func (s *Switch) set(state State, until time.Time) {
	s.mu.Lock()
	s.state, s.until = state, until
	close(s.changed)
	s.changed = make(chan struct{})
	s.mu.Unlock()
	s.awake()
	if s.opts.Notify != nil {
		s.opts.Notify(state)
	}
}

// awake has Run look again.
func (s *Switch) awake() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Unkept says that a restart would not know of the state that holds.
func (s *Switch) Unkept() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unkept
}

// keep is save, but for a disk that takes nothing: that is told, and holds up no drain. The caller has the turn.
func (s *Switch) keep(state State) error {
	err := s.save(state)
	full := disk.Full(err)
	s.mu.Lock()
	s.unkept = full
	s.mu.Unlock()
	if !full {
		return err
	}
	s.awake() // Run may have looked between the change and this
	s.opts.Faults.Wrote(filepath.Base(s.opts.Path), fmt.Errorf("a restart would not know that there is a drain, or none any more: %w", err))
	return nil
}

// keepAgain writes what found no room.
func (s *Switch) keepAgain() {
	s.turn.Lock()
	defer s.turn.Unlock()
	if state, _ := s.look(); s.Unkept() {
		if err := s.keep(state); err != nil {
			s.opts.Log.Error("drain: not written", "error", err)
		}
	}
}

func (s *Switch) save(state State) (err error) {
	if state.On() {
		var data []byte
		if data, err = json.Marshal(state); err == nil {
			err = disk.Replace(s.opts.Path, append(data, '\n'))
		}
	} else if err = os.Remove(s.opts.Path); errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("drain: %w", err)
	}
	s.opts.Faults.Wrote(filepath.Base(s.opts.Path), nil)
	return nil
}
