package engine

import (
	"context"
	"errors"
	"maps"
	"slices"

	"sluice/control/compile"
)

// arrears are what the machine lacks of a form of the current revision, because steps to it fail.
type arrears struct {
	steps  []Step
	unseen []error // of subsystems that cannot be observed
	lost   losses
}

func (e *Engine) arrears(ctx context.Context, d *compile.Desired) *arrears {
	a := &arrears{lost: maps.Clone(e.lost)}
	if a.lost == nil {
		a.lost = losses{}
	}
	a.steps, a.unseen = e.look(ctx, d, "")
	for _, s := range a.steps {
		if !s.Teardown {
			a.lost.what(s, true)
		}
	}
	return a
}

// has says whether a failure is about something that is lacking.
func (a *arrears) has(cause error) bool {
	var failed *StepError
	if errors.As(cause, &failed) {
		return slices.ContainsFunc(a.steps, failed.Step.is)
	}
	return slices.ContainsFunc(a.unseen, func(err error) bool { return sameFailure(cause, err) })
}

// failing are the arrears of a degraded machine by the facts of now; nil: it is not degraded.
func (e *Engine) failing(ctx context.Context) *arrears {
	if e.retryAt == 0 {
		return nil
	}
	d, err := e.compile(ctx, e.current)
	if err != nil {
		d = e.current.desired
	}
	if d == nil {
		return nil
	}
	return e.arrears(ctx, d)
}

// alsoBefore returns the arrears of the current form where what failed on the way to a new one is among them, as that is no better to be
// at then.
func (e *Engine) alsoBefore(ctx context.Context, cause error) *arrears {
	if cause == nil || ctx.Err() != nil {
		return nil
	}
	a := e.arrears(ctx, e.current.desired)
	if !a.has(cause) {
		return nil
	}
	var failed *StepError
	if errors.As(cause, &failed) && !e.opts.Absent(failed.Err) {
		a.lost.step(failed.Step)
	}
	return a
}

// around is a way that takes no step which is in arrears already, or builds on what is lost: Run goes on with those. Each other one has
// to succeed.
func (e *Engine) around(a *arrears) way {
	return func(ctx context.Context, d *compile.Desired, why string) ([]Step, error) {
		e.opts.Look() // what was deleted may be among the arrears: it is not asked here, so that Mend still hears of it
		steps, unseen := e.look(ctx, d, why)
		lost := maps.Clone(a.lost)
		for _, err := range unseen {
			var blind *observeError
			if !a.has(err) || !errors.As(err, &blind) {
				return nil, err
			}
			lost.subsystem(blind.subsystem)
		}
		e.keepOrOweRuleIDs(d)
		steps = slices.DeleteFunc(steps, func(s Step) bool { return slices.ContainsFunc(a.steps, s.is) })
		var done, waiting []Step
		for i, s := range steps {
			if !s.Teardown && !e.stands(s, lost) {
				waiting = append(waiting, s)
				continue
			}
			if err := e.step(ctx, s); err != nil {
				return done, &StepError{Step: s, N: i + 1, Of: len(steps), Err: err}
			}
			lost.what(s, false)
			done = append(done, s)
		}
		if len(waiting) > 0 {
			e.log.Warn("steps wait for what fails", "why", why, "steps", repairText(waiting))
		}
		return done, nil
	}
}
