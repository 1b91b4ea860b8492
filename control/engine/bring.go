package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sluice/control/compile"
	"sluice/plural"
)

// Failures are what kept the machine from all of what was accepted before.
type Failures struct {
	errs []error // of steps (StepError), and of observing
	left int     // steps that were not tried for them
}

func (f *Failures) Error() string {
	var text []string
	for _, err := range f.errs {
		text = append(text, err.Error())
	}
	if f.left > 0 {
		text = append(text, plural.Of(f.left, "other step waits", "other steps wait")+" for that")
	}
	return strings.Join(text, "; ")
}

func (f *Failures) Unwrap() []error { return f.errs }

// bringing is one way to what was accepted before.
type bringing struct {
	Failures
	e      *Engine
	lost   map[string]bool // what is not as it should be: subsystems, and "subsystem/what" of what a Builder makes
	silent map[string]bool // subsystems that did not answer in time: each more step would cost that time again
	done   []Step
}

// bring does as much of the way to d as can be done, and returns the steps that it did. d was accepted before, so a failure keeps back only
//
//   - what builds on the step that failed,
//   - announcements, where it is one of Options.Carriers that is not ready,
//   - everything that is to be taken away behind the building: it may be all that carries traffic, or that keeps it out.
//
// Withdrawals come ahead of all, as ever.
func (e *Engine) bring(ctx context.Context, d *compile.Desired, why string) ([]Step, error) {
	b := bringing{e: e, lost: map[string]bool{}, silent: map[string]bool{}}
	timed, looked := e.timed("plan"), e.looking()
	diffs, failed := differences(ctx, e.opts.Subsystems, d)
	timed()
	looked()
	for i, err := range failed {
		if err != nil {
			b.errs = append(b.errs, err)
			b.lost[e.opts.Subsystems[i].Name()] = true
		}
	}
	diffs = slices.DeleteFunc(diffs, func(d difference) bool { return d.sub == nil })
	e.keepOrOweRuleIDs(d)
	steps := order(diffs, e.opts.Announcer, why)
	for i, s := range steps {
		if !b.may(s) {
			b.lose(s)
			b.left++
			continue
		}
		err := e.step(ctx, s)
		if err == nil {
			b.done = append(b.done, s)
			continue
		}
		b.lose(s)
		b.silent[s.Subsystem] = b.silent[s.Subsystem] || errors.Is(err, context.DeadlineExceeded)
		b.errs = append(b.errs, &StepError{Step: s, N: i + 1, Of: len(steps), Err: err})
		if ctx.Err() != nil {
			break // nobody waits for it any more
		}
	}
	if len(b.errs) == 0 {
		return b.done, nil
	}
	return b.done, &b.Failures
}

// may says whether a step may be done behind what failed.
func (b *bringing) may(s Step) bool {
	announces := s.Subsystem == b.e.opts.Announcer
	switch {
	case len(b.errs) == 0:
		return true
	case s.Teardown:
		return announces && !b.silent[s.Subsystem]
	case b.silent[s.Subsystem], announces && slices.ContainsFunc(b.e.opts.Carriers, func(c string) bool { return b.lost[c] }):
		return false
	}
	op, ok := s.op.(Builder)
	if !ok {
		return !b.lost[s.Subsystem]
	}
	_, on := op.Builds()
	return !slices.ContainsFunc(on, func(what string) bool { return b.lost[s.Subsystem+"/"+what] })
}

func (b *bringing) lose(s Step) {
	b.lost[s.Subsystem] = true
	if op, ok := s.op.(Builder); ok {
		if what, _ := op.Builds(); what != "" {
			b.lost[s.Subsystem+"/"+what] = true
		}
	}
}

// stuck says that going back from cause failed, too, and why. What fails on both ways is told once: it is no matter of what was gone back from.
func (e *Engine) stuck(cause, back error) error {
	reason := "RollbackFailed"
	var failures *Failures
	if errors.As(back, &failures) {
		others := slices.DeleteFunc(slices.Clone(failures.errs), func(err error) bool { return sameFailure(cause, err) })
		switch {
		case len(others) == 0:
			reason, back = "RepairFailed", nil
			cause = fmt.Errorf("%w; the way back to %s fails there, too", cause, e.current)
		case len(others) < len(failures.errs):
			back = &Failures{errs: others, left: failures.left}
		}
	}
	if back == nil {
		e.degraded(reason, cause)
		return fmt.Errorf("%w: %w", ErrDegraded, cause)
	}
	back = fmt.Errorf("going back to %s: %w", e.current, back)
	e.degraded(reason, cause, back)
	return fmt.Errorf("%w: %w; and %w", ErrDegraded, cause, back)
}

// sameFailure says whether the step that ended one way failed on the other, too, for the same reason.
func sameFailure(cause, other error) bool {
	var a, b *StepError
	return errors.As(cause, &a) && errors.As(other, &b) && a.Step.is(b.Step) && a.Err.Error() == b.Err.Error()
}

func (s Step) is(other Step) bool { return s.Subsystem == other.Subsystem && s.Op == other.Op }

// alsoBefore says whether the step that failed on the way to a new form of the current revision is missing from the form before, too: then
// that is no better to be at.
func (e *Engine) alsoBefore(ctx context.Context, cause error) bool {
	var failed *StepError
	if !errors.As(cause, &failed) || ctx.Err() != nil {
		return false
	}
	p, err := e.plan(ctx, e.current.desired, "")
	return err == nil && slices.ContainsFunc(p.Steps, failed.Step.is)
}
