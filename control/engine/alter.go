package engine

import (
	"context"
	"errors"
	"fmt"

	"sluice/control/compile"
)

// ErrNothingLive: no revision is live, or the machine was taken down.
var ErrNothingLive = errors.New("no revision is live: apply a file first")

// Alteration is a change of runtime objects, which no revision holds. Its functions are called one at a time, while no
// compilation runs.
type Alteration struct {
	Why string
	// Begin has the compilations from now on see the change.
	Begin func() error
	// Judge looks at what it compiles to, before a step is taken. An error ends it.
	Judge func(*compile.Desired) error
	// Keep puts it on the disk: before the first step, as what the data path holds must be known after a crash.
	Keep func() error
	// Undo takes back all of the above.
	Undo func() error
}

// Alter changes runtime objects and brings the machine to what follows. It makes no revision. After an error everything is
// as it was, unless the error is ErrDegraded: then the objects are, and Run brings the machine back to them.
func (e *Engine) Alter(ctx context.Context, a Alteration) error {
	if err := e.lock(ctx); err != nil {
		return err
	}
	defer e.unlock()
	if e.down || e.current.number == 0 {
		return ErrNothingLive
	}
	failing := e.failing(ctx)
	if err := a.Begin(); err != nil {
		return err
	}
	d, failing, err := e.alter(ctx, a, failing)
	switch {
	case err == nil && failing != nil: // Run goes on trying
		e.set(func() { e.current.desired = d })
		e.leftOut(d)
		return nil
	case err == nil:
		e.set(func() { e.current.desired, e.stale = d, false })
		e.healthy(ctx, e.opts.Subsystems)
		return nil
	}
	err = errors.Join(err, a.Undo())
	if d == nil { // no step was taken
		return err
	}
	err = fmt.Errorf("%s: %w", a.Why, err)
	if back := e.restore(context.WithoutCancel(ctx), a.Why+" failed"); back != nil {
		return e.stuck(err, back)
	}
	return err
}

// alter returns nil where it failed before the first step. It goes around what fails without it as well, and returns that.
func (e *Engine) alter(ctx context.Context, a Alteration, failing *arrears) (*compile.Desired, *arrears, error) {
	d, err := e.compile(ctx, e.current)
	if err != nil {
		return nil, nil, fmt.Errorf("compiling %s: %w", e.current, err)
	}
	if err := a.Judge(d); err != nil {
		return nil, nil, err
	}
	if err := a.Keep(); err != nil {
		return nil, nil, err
	}
	if failing == nil {
		now, steps, cause := e.pursue(ctx, d, a.Why, e.converge)
		if cause == nil && e.lacked {
			e.repaired(a.Why, steps)
		}
		if failing = e.alsoBefore(ctx, cause); cause == nil || failing == nil {
			return now, nil, cause
		}
		e.degraded("RepairFailed", fmt.Errorf("%s: %w", a.Why, cause))
		d = now
	}
	d, _, err = e.pursue(ctx, d, a.Why, e.around(failing))
	return d, failing, err
}
