package engine

import (
	"context"
	"fmt"
	"time"

	"sluice/control/config"
)

// watch is a pending revision while its deadline runs: the record on the disk, and what the engine knows beside it.
type watch struct {
	pendingRecord
	base     *target
	window   time.Duration // how long it waits, once it is live
	checks   []config.Check
	failures []Failure     // of the last run of the checks
	failing  time.Duration // on Clock.Boot, since when every run failed; 0: the last one did not
	ran      bool          // the checks ran at least once
	next     time.Duration // on Clock.Boot, when the checks run again
	done     chan struct{} // closed at the end
	outcome  error         // nil: confirmed; valid once done is closed
}

func (w *watch) end(outcome error) {
	w.outcome = outcome
	close(w.done)
}

// newWatch returns nil where nothing has to be watched: no confirmation asked, and no checks in the file. A revision that
// takes the place of a pending one keeps its base and its baseline.
func (e *Engine) newWatch(ctx context.Context, next *target, o ApplyOptions) (*watch, error) {
	checks := next.content.Config.Apply.Checks
	if o.unguarded || o.Confirm == 0 && len(checks) == 0 {
		return nil, nil
	}
	w := &watch{checks: checks, done: make(chan struct{})}
	w.BootID, w.Confirm = e.clock.BootID(), o.Confirm > 0
	w.window = e.opts.Timing.CheckWindow
	if w.Confirm {
		w.window = o.Confirm
	}
	w.Deadline = e.clock.Boot() + w.window
	if before := e.watch; before != nil {
		w.base, w.Base, w.Baseline = before.base, before.Base, before.Baseline
	} else {
		w.base, w.Base = e.current, e.current.number
	}
	if len(checks) == 0 || w.Baseline != nil {
		return w, nil
	}
	var err error
	if w.Baseline, err = e.opts.Checker.Baseline(ctx); err != nil {
		return nil, fmt.Errorf("looking at the state that apply.checks compare with: %w", err)
	}
	return w, nil
}

// live starts the clock of a revision whose steps are done: they are not to eat the operator's time. After a crash before
// this, the disk holds the deadline from before the first step, which is only earlier.
func (e *Engine) live(w *watch) error {
	w.Deadline = e.clock.Boot() + w.window
	return e.store.savePending(w.pendingRecord)
}

func (e *Engine) left(w *watch) time.Duration { return max(0, w.Deadline-e.clock.Boot()) }

// Confirm makes the pending revision the confirmed one and returns its number. ErrNotPending: there is none, or it is
// too late.
func (e *Engine) Confirm(ctx context.Context) (int, error) {
	if err := e.lock(ctx); err != nil {
		return 0, err
	}
	defer e.unlock()
	if err := e.expire(ctx); err != nil {
		return 0, err
	}
	if e.watch == nil {
		return 0, e.notPending()
	}
	return e.current.number, e.confirm()
}

// notPending says what became of the last revision that had to be confirmed.
func (e *Engine) notPending() error {
	if len(e.revisions) == 0 {
		return ErrNotPending
	}
	switch last := e.revisions[len(e.revisions)-1]; last.Status {
	case Reverted:
		return fmt.Errorf("%w: revision %d was reverted: %s", ErrNotPending, last.Number, last.Reason)
	case Confirmed:
		return fmt.Errorf("%w: revision %d is confirmed already", ErrNotPending, last.Number)
	}
	return ErrNotPending
}

// confirm ends the watch well. From the moment that the metadata says confirmed, no crash undoes it.
func (e *Engine) confirm() error {
	w := e.watch
	if err := e.mark(w.Revision, Confirmed, ""); err != nil {
		return err
	}
	if err := e.store.clearPending(); err != nil {
		e.log.Warn("bookkeeping", "revision", w.Revision, "error", err)
	}
	e.set(func() { e.watch = nil })
	w.end(nil)
	e.log.Info("confirmed", "revision", w.Revision)
	e.notify(NoticeConfirmed, w.Revision, "")
	return nil
}

// goBack returns to the base of the pending revision. The decision is on the disk before the first step, so a crash in
// the middle does not start the timer again; and nobody's ctx can stop it half way.
func (e *Engine) goBack(ctx context.Context, reason string) error {
	ctx = context.WithoutCancel(ctx)
	w := e.watch
	e.log.Warn("going back", "revision", w.Revision, "to", w.Base, "reason", reason)
	e.revert(w.Revision, nil, reason)
	cause := fmt.Errorf("%w: revision %d: %s", ErrReverted, w.Revision, reason)
	e.set(func() {
		e.current, e.watch, e.goingBack = w.base, nil, true
		e.report.forget(ConditionChecks) // History has what failed; the base is not looked at
	})
	defer w.end(cause)
	defer e.set(func() { e.goingBack = false })
	// The machine may have changed since the base was compiled; where it no longer compiles, its last form must do.
	d, lost := e.compile(ctx, w.base)
	e.set(func() {
		if lost == nil {
			e.current.desired = d
		}
		e.stale = lost != nil && e.current.desired != nil
	})
	if err := e.restore(ctx, reason); err != nil {
		return e.stuck(cause, err)
	}
	if e.stale {
		e.degraded("CompileFailed", cause, fmt.Errorf("compiling %s, whose last form is live: %w", e.current, lost))
		return nil
	}
	e.healthy(ctx, e.opts.Subsystems)
	e.failed(cause)
	e.notify(NoticeReverted, w.Revision, fmt.Sprintf("%s; back at %s", reason, w.base))
	return nil
}

// expire ends a watch whose time has come. It returns an error only where going back failed.
func (e *Engine) expire(ctx context.Context) error {
	w, now := e.watch, e.clock.Boot()
	switch {
	case w == nil:
		return nil
	case w.failing != 0 && now-w.failing >= e.opts.Timing.CheckGrace:
		return e.goBack(ctx, "check failed: "+describe(w.failures))
	case now < w.Deadline:
		return nil
	case w.Confirm && w.failing != 0: // not for long enough to go back sooner, but why nobody confirmed, perhaps
		return e.goBack(ctx, "not confirmed in time, and a check failed: "+describe(w.failures))
	case w.Confirm:
		return e.goBack(ctx, "not confirmed in time")
	case w.failing != 0:
		return e.goBack(ctx, "check failed: "+describe(w.failures))
	case !w.ran:
		return e.goBack(ctx, "the checks had no time to run")
	}
	return e.confirm()
}

func describe(failures []Failure) string {
	var s string
	for i, f := range failures {
		if i > 0 {
			s += "; "
		}
		s += f.Check + ": " + f.Message
	}
	return s
}

// check runs the checks of the pending revision where they are due. It holds no lock while they run: a probe that waits
// for its answer must keep nobody from confirming.
func (e *Engine) check(ctx context.Context) error {
	if err := e.lock(ctx); err != nil {
		return err
	}
	w, now := e.watch, e.clock.Boot()
	due := w != nil && len(w.checks) > 0 && now >= w.next
	var rec pendingRecord
	if due {
		rec = w.pendingRecord
	}
	e.release()
	if !due {
		return nil
	}
	checking, cancel := context.WithTimeout(ctx, e.opts.Timing.CheckTimeout)
	failures := e.opts.Checker.Check(checking, rec.Baseline, w.checks)
	cancel()
	if ctx.Err() != nil {
		return ctx.Err() // the daemon stops: what failed now says nothing
	}
	if err := e.lock(ctx); err != nil {
		return err
	}
	defer e.release()
	if e.watch == w {
		e.judge(w, now, failures)
	}
	return nil
}

// judge takes in one run of the checks that began at now.
func (e *Engine) judge(w *watch, now time.Duration, failures []Failure) {
	e.set(func() {
		w.ran, w.failures, w.next = true, failures, now+e.opts.Timing.CheckInterval
		switch {
		case len(failures) == 0:
			w.failing = 0
			e.report.condition(e.clock.Now(), ConditionChecks, True, "Passed", "")
		default:
			if w.failing == 0 {
				w.failing = max(now, 1)
			}
			e.report.condition(e.clock.Now(), ConditionChecks, False, "Failing", describe(failures))
		}
	})
}
