package engine

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"sluice/control/compile"
)

// Reconcile looks whether the machine holds what the current revision wants, and repairs what it does not. It makes no
// revision. After a failure it is tried again, with growing pauses, by Run. Only what is put right for Drift is blamed on somebody else.
func (e *Engine) Reconcile(ctx context.Context, why string) error {
	if err := e.lock(ctx); err != nil {
		return err
	}
	defer e.unlock()
	if e.current.number == 0 && e.retryAt == 0 {
		return nil // no revision: what may be there of ours is not for us to judge
	}
	return e.repair(ctx, why)
}

// Mend is Reconcile for who heard that something was deleted: it looks at the machine only where Options.Look says that the current
// revision wants it. No other operation runs meanwhile, so that what an apply took away is not taken for drift; nobody is blamed while
// degraded, see looking. It says whether anything was lacking.
func (e *Engine) Mend(ctx context.Context) (bool, error) {
	if err := e.lock(ctx); err != nil {
		return false, err
	}
	defer e.unlock()
	if held := e.current.desired; e.down || e.current.number == 0 || held == nil || !e.opts.Look()(held) {
		return false, nil
	}
	if e.retryAt != 0 {
		return true, e.repair(ctx, whyAgain)
	}
	e.lacked = true
	return true, e.repair(ctx, Drift)
}

// looking begins a look at the machine, whose end is told to the function returned: before the first step, which may bring back what was
// deleted. While degraded it is our own doing that something is not there.
func (e *Engine) looking() (looked func()) {
	lacks := e.opts.Look()
	return func() {
		if held := e.current.desired; held != nil && lacks(held) && e.retryAt == 0 {
			e.lacked = true
		}
	}
}

// Why steps are taken that nobody asked for: somebody else has changed the machine, or earlier ones failed.
const (
	Drift    = "drift"
	whyAgain = "repair"
)

func (e *Engine) repair(ctx context.Context, why string) error {
	if e.down {
		return nil
	}
	if e.stale { // what is left to do is nobody else's doing
		return e.recompile(ctx, whyAgain)
	}
	if err := e.restore(ctx, why); err != nil {
		err = fmt.Errorf("bringing the machine to %s: %w", e.current, err)
		e.degraded("RepairFailed", err)
		return fmt.Errorf("%w: %w", ErrDegraded, err)
	}
	e.healthy(ctx, e.opts.Subsystems)
	return nil
}

// Recompile compiles the current revision again, with the facts and the runtime of now, and applies it. It makes no
// revision. Where it fails the machine goes back to the compilation before, and Run tries again.
func (e *Engine) Recompile(ctx context.Context, why string) error {
	if err := e.lock(ctx); err != nil {
		return err
	}
	defer e.unlock()
	if e.down || e.current.number == 0 {
		return nil
	}
	return e.recompile(ctx, why)
}

func (e *Engine) recompile(ctx context.Context, why string) error {
	d, err := e.compile(ctx, e.current)
	if err != nil {
		err = fmt.Errorf("compiling %s (%s): %w", e.current, why, err)
		e.set(func() { e.stale = true })
		e.degraded("CompileFailed", err)
		return fmt.Errorf("%w: %w", ErrDegraded, err)
	}
	if e.current.desired == nil { // the first compilation since the start: there is nothing to go back to
		return e.recompiled(ctx, d, why, "ApplyFailed")
	}
	now, steps, cause := e.pursue(ctx, d, why, e.converge)
	if cause == nil {
		e.set(func() { e.current.desired, e.stale = now, false })
		if e.lacked || why == whyAgain {
			e.repaired(why, steps)
		}
		e.healthy(ctx, e.touched(steps))
		return nil
	}
	if e.alsoBefore(ctx, cause) != nil {
		return e.recompiled(ctx, now, why, "RepairFailed")
	}
	cause = fmt.Errorf("applying %s (%s): %w", e.current, why, cause)
	e.set(func() { e.stale = true })
	if err := e.restore(context.WithoutCancel(ctx), why+" failed"); err != nil {
		return e.stuck(cause, err)
	}
	e.degraded("RecompileFailed", cause)
	return fmt.Errorf("%w: %w", ErrDegraded, cause)
}

// recompiled makes d the form of the current revision, also where not all of it can be brought about now.
func (e *Engine) recompiled(ctx context.Context, d *compile.Desired, why, reason string) error {
	d, steps, err := e.pursue(ctx, d, why, e.bring)
	e.set(func() { e.current.desired, e.stale = d, false })
	e.leftOut(d)
	e.repaired(why, steps)
	if err != nil {
		err = fmt.Errorf("applying %s (%s): %w", e.current, why, err)
		e.degraded(reason, err)
		return fmt.Errorf("%w: %w", ErrDegraded, err)
	}
	e.healthy(ctx, e.opts.Subsystems)
	return nil
}

// maxPursuit bounds how often a machine is followed that changes under the steps.
const maxPursuit = 10

// pursue converges on d, and where a step fails because the machine is another one now, on what is compiled from that: a
// container's interface may go between the look at it and the step. Each time it goes there by the given way: converge, say, or bring. It returns what the
// machine holds and the steps to it, or what failed.
func (e *Engine) pursue(ctx context.Context, d *compile.Desired, why string, by way) (*compile.Desired, []Step, error) {
	var all []Step
	for range maxPursuit {
		before := e.facts
		steps, cause := by(ctx, d, why)
		all = append(all, steps...)
		if cause == nil {
			return d, all, nil
		}
		now, err := e.compile(ctx, e.current)
		if err != nil || reflect.DeepEqual(before, e.facts) {
			return d, all, cause
		}
		e.log.Info("the machine changed meanwhile: once more", "error", cause)
		d = now
	}
	steps, err := by(ctx, d, why)
	return d, append(all, steps...), err
}

// restore brings the machine to what it should hold, as far as it goes: the last good form of the current revision, after Down what remains of it.
func (e *Engine) restore(ctx context.Context, why string) error {
	d := e.current.desired
	if e.down {
		d = e.remains
	}
	if e.current.number == 0 && e.store.damaged && !e.down {
		return errors.New("what was confirmed before is damaged, so the machine is left as it is; apply a file")
	}
	if d == nil {
		var err error
		if d, err = e.compile(ctx, e.current); err != nil {
			return fmt.Errorf("compiling %s: %w", e.current, err)
		}
		e.set(func() { e.current.desired = d })
	}
	lacked := e.lacked // before the steps that it goes back from: those may have deleted something themselves
	steps, err := e.bring(ctx, d, why)
	if lacked || why == Drift || why == whyAgain {
		e.repaired(why, steps)
	}
	return err
}

// Down takes away everything but what the live revision keeps for management (compile.Desired.Remains). A pending revision is reverted in the books;
// the next Start brings the last confirmed one back. Until the next Apply the engine leaves the machine alone.
func (e *Engine) Down(ctx context.Context) error {
	if err := e.lock(ctx); err != nil {
		return err
	}
	defer e.unlock()
	remains := &compile.Desired{}
	if e.current.desired != nil {
		remains = e.current.desired.Remains()
	}
	if w := e.watch; w != nil {
		// Without its record a start finds the revision interrupted, whatever the disk knows of it.
		if err := errors.Join(e.markOrOwe(w.Revision, "taken down while pending"), e.store.clearPending()); err != nil {
			e.log.Error("bookkeeping", "revision", w.Revision, "error", err)
		}
		e.set(func() { e.current, e.watch = w.base, nil })
		w.end(fmt.Errorf("%w: revision %d: taken down", ErrReverted, w.Revision))
	}
	e.set(func() { e.down, e.remains, e.retryAt = true, remains, 0 })
	p, err := e.plan(ctx, remains, "down")
	if err != nil {
		return err
	}
	// The rule ids stay: the same rules count on after the next start.
	if _, err := e.run(ctx, p.Steps); err != nil {
		e.failed(err)
		return fmt.Errorf("taking down: %w; what is left stays, run it again", err)
	}
	e.log.Info("down", "steps", len(p.Steps))
	e.notify(NoticeDown, 0, "")
	return nil
}
