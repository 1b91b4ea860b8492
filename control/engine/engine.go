package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sluice/control/compile"
	"sluice/control/config"
)

// What a caller branches on.
var (
	// ErrPending: a revision waits for its confirmation, or for its checks.
	ErrPending = errors.New("a revision is pending")
	// ErrNotPending: nothing waits for a confirmation, perhaps not any more.
	ErrNotPending = errors.New("no revision is pending")
	// ErrReverted: the apply went well at first, and its revision was taken back since.
	ErrReverted = errors.New("reverted")
	// ErrDegraded: the machine holds neither the old nor the new; the engine goes on trying.
	ErrDegraded = errors.New("degraded")
)

// CompileFunc is compile.Compile.
type CompileFunc func(*config.Config, compile.Runtime, compile.Facts) (*compile.Desired, error)

// Checker judges apply.checks. The engine decides when, and what a failure means.
type Checker interface {
	// Baseline is what the checks compare with, taken before step one. It is kept on the disk: a check goes on after a
	// crash of the daemon.
	Baseline(ctx context.Context) (json.RawMessage, error)
	// Check returns the checks that do not hold now. It ends with ctx.
	Check(ctx context.Context, baseline json.RawMessage, checks []config.Check) []Failure
}

// Failure is one check that did not hold.
type Failure struct {
	Check   string `json:"check"` // "reach 198.18.0.1"
	Message string `json:"message"`
}

// Timing holds the engine's durations; zero ones get the default.
type Timing struct {
	CheckInterval time.Duration // between two runs of the checks; 1 s
	CheckTimeout  time.Duration // for one run; 5 s
	CheckGrace    time.Duration // failing on end for so long is a failure: sessions may need to come back; 10 s
	CheckWindow   time.Duration // an apply without confirm stays under its checks for so long; 30 s
	StepTimeout   time.Duration // for one step; 60 s
	RetryMin      time.Duration // first pause before a degraded machine is repaired, then doubled; 1 s
	RetryMax      time.Duration // 60 s
	RuleIDGrace   time.Duration // the id of a rule that is gone is not given out again for so long; 10 min
}

func (t Timing) withDefaults() Timing {
	set := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	set(&t.CheckInterval, time.Second)
	set(&t.CheckTimeout, 5*time.Second)
	set(&t.CheckGrace, 10*time.Second)
	set(&t.CheckWindow, 30*time.Second)
	set(&t.StepTimeout, time.Minute)
	set(&t.RetryMin, time.Second)
	set(&t.RetryMax, time.Minute)
	set(&t.RuleIDGrace, 10*time.Minute)
	return t
}

// Options are what an engine is made of. All are needed but for Source, Timing, Log, Notify, Faults, NewRuleIDs, Look, Announcer, Carriers and
// Absent.
type Options struct {
	Subsystems []Subsystem // in the order of the data path, what it builds on first
	Announcer  string      // name of the subsystem that announces
	// Carriers are what announcements rest on: subsystems, or "subsystem/what" of what a Builder makes. While a step of one fails
	// nothing new is announced, and no session begins.
	Carriers []string
	// Absent says of a step's error that what the step is about is not on the machine: an interface. nil: none is.
	Absent  func(error) bool
	Parse   ParseFunc
	Compile CompileFunc
	Facts   func(context.Context, *config.Config) (compile.Facts, error)
	Source  func() (Source, error) // FILE; nil: there is none
	Store   *Store
	Clock   Clock
	Checker Checker
	Timing  Timing
	Log     *slog.Logger
	Notify  func(Notice) // nil: nobody listens; must not block
	Faults  Faults       // nil: nobody is told
	// NewRuleIDs is told the ids that go to rules which did not have them, before the data path has them: who had them
	// before may have left counters. nil: nobody counts.
	NewRuleIDs func(ids []uint32) error
	// Look is called before each look at the machine that steps may follow. The function that it returns is asked behind the look, and
	// before the first step: it says whether anything that is wanted was deleted until now, and forgets what was deleted before the
	// look. nil: nobody hears of it.
	Look func() (lacks func(wanted *compile.Desired) bool)
}

// target is a configuration that the machine is brought to. Number 0 without a Config is nothing at all: what the
// machine goes back to when there was no revision before.
type target struct {
	number  int
	digest  string
	content Candidate
	sums    []sum            // of content: FILE, then its set files
	states  []hashStates     // of sums, as far as they are known
	desired *compile.Desired // as last compiled; nil: not yet
	broken  error            // why its content could not be read back
}

// Engine plans and applies. One operation runs at a time; the reading methods do not wait for it, but for Plan.
type Engine struct {
	opts  Options
	store *Store
	clock Clock
	log   *slog.Logger
	busy  chan struct{} // holds one token while an operation runs
	wake  chan struct{} // tells Run that there is something new to wait for
	asked chan struct{} // whoever sends wants to know that Run is there
	moved atomic.Int64  // on Clock.Boot, when an operation last got on

	// Written by the operation that runs, and only with mu held; so that operation reads them without.
	mu        sync.Mutex
	current   *target       // what the machine should hold
	facts     compile.Facts // of the last compilation
	watch     *watch        // nil: nothing pending
	ids       ruleIDs
	revisions []Meta
	report    report
	retryAt   time.Duration // on Clock.Boot; 0: nothing to retry
	retryWait time.Duration
	stale     bool // current could not be compiled with the facts of now
	down      bool
	goingBack bool             // current is the base already, and the steps to it are not done
	remains   *compile.Desired // while down
	lost      losses           // on the last way to what was accepted
	missing   []string         // interfaces, as last told
	owed      map[int]string   // reverted revisions that the disk does not know of yet, with the reason
	owesIDs   bool
	spoilt    []string // of Faults: what the next revision makes good
	lacked    bool     // the operation that runs found that something had been deleted
}

// New makes an engine; nothing happens before Start.
func New(o Options) (*Engine, error) {
	if o.Parse == nil || o.Compile == nil || o.Facts == nil || o.Store == nil || o.Clock == nil || o.Checker == nil {
		return nil, errors.New("engine: Parse, Compile, Facts, Store, Clock and Checker are all needed")
	}
	names := map[string]bool{"": true} // nobody announces
	for _, s := range o.Subsystems {
		if names[s.Name()] {
			return nil, fmt.Errorf("engine: two subsystems are called %q, or one has no name", s.Name())
		}
		names[s.Name()] = true
	}
	if !names[o.Announcer] {
		return nil, fmt.Errorf("engine: the announcer %q is no subsystem", o.Announcer)
	}
	for _, c := range o.Carriers {
		if sub, _, _ := strings.Cut(c, "/"); !names[sub] {
			return nil, fmt.Errorf("engine: the carrier %q is of no subsystem", c)
		}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Absent == nil {
		o.Absent = func(error) bool { return false }
	}
	if o.Faults == nil {
		o.Faults = unheard{}
	}
	if o.Look == nil {
		o.Look = func() func(*compile.Desired) bool { return func(*compile.Desired) bool { return false } }
	}
	o.Timing = o.Timing.withDefaults()
	e := &Engine{
		opts: o, store: o.Store, clock: o.Clock, log: o.Log,
		busy: make(chan struct{}, 1), wake: make(chan struct{}, 1), asked: make(chan struct{}),
		current: nothing(), revisions: o.Store.List(), owed: map[int]string{},
	}
	return e, nil
}

func nothing() *target { return &target{desired: &compile.Desired{}} }

// lock waits for the running operation to end, or for ctx.
func (e *Engine) lock(ctx context.Context) error {
	select {
	case e.busy <- struct{}{}:
		e.lacked = false
		e.progress()
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for another operation of the engine: %w", ctx.Err())
	}
}

// Busy says that an operation runs.
func (e *Engine) Busy() bool { return len(e.busy) > 0 }

// release ends an operation after which Run has nothing new to wait for.
func (e *Engine) release() { <-e.busy }

func (e *Engine) unlock() {
	e.release()
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// set changes what readers see.
func (e *Engine) set(change func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	change()
}

// timed logs how long a part of an operation took, for who wonders what an apply waits for. It begins with the call and
// ends with that of the function returned.
func (e *Engine) timed(part string) (end func()) {
	e.progress()
	begin := time.Now()
	return func() {
		e.progress()
		e.log.Debug("took", "part", part, "time", time.Since(begin))
	}
}

// compile compiles a target with the ids and facts of now. It does not change the target.
func (e *Engine) compile(ctx context.Context, t *target) (*compile.Desired, error) {
	if t.broken != nil {
		return nil, t.broken
	}
	if t.content.Config == nil {
		return &compile.Desired{}, nil
	}
	defer e.timed("compile")()
	facts, err := e.opts.Facts(ctx, t.content.Config)
	if err != nil {
		return nil, fmt.Errorf("collecting facts: %w", err)
	}
	e.facts = facts
	rt := e.ids.runtime(e.clock.Now())
	rt.Accepted = t.number != 0 // a candidate has none yet
	return e.opts.Compile(t.content.Config, rt, facts)
}

// keepRuleIDs makes the ids of d the current ones, on the disk first.
func (e *Engine) keepRuleIDs(d *compile.Desired) error {
	defer e.timed("rule ids")()
	c := e.changeOfIDs(d)
	if c.empty() {
		return nil
	}
	if fresh := e.ids.fresh(c); len(fresh) > 0 && e.opts.NewRuleIDs != nil {
		if err := e.opts.NewRuleIDs(fresh); err != nil {
			e.log.Warn("a new rule may begin with the counters of one that is gone", "error", err)
		}
	}
	next, from := e.ids.next(d.RuleIDs, c), &c
	if e.owesIDs {
		from = nil // the disk is behind the ids of now
	}
	if err := e.store.saveRuleIDs(next, from); err != nil {
		return err
	}
	e.set(func() { e.ids = next })
	if e.owesIDs {
		e.owesIDs = false
		e.opts.Faults.Wrote(ruleIDFile, nil)
	}
	return nil
}

func (e *Engine) changeOfIDs(d *compile.Desired) idChange {
	return e.ids.change(d.RuleIDs, e.clock.Now(), e.opts.Timing.RuleIDGrace)
}

// mark ends a revision in the store and in the history that readers see.
func (e *Engine) mark(n int, s RevisionStatus, reason string) error {
	err := e.store.mark(n, s, reason)
	e.set(func() { e.revisions = e.store.List() })
	return err
}

// read loads a revision and parses it. What fails is kept in the target, for compile to say.
func (e *Engine) read(n int) *target {
	t := &target{number: n}
	c, sums, err := e.store.load(n)
	if err != nil {
		t.broken = err
		return t
	}
	t.digest, t.content, t.sums = digest(c.Files, sums), c, sums
	t.content.Config, err = e.opts.Parse(c.Name, c.Bytes, readFrom(c.Files))
	if err != nil {
		t.broken = fmt.Errorf("revision %d does not parse with this version of sluice (mend what `sluice show config %[1]d` prints, and apply it): %[2]w", n, config.First(err))
	}
	return t
}
