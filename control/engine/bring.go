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
	lost   losses
	silent map[string]bool // subsystems that did not answer in time: each more step would cost that time again
	done   []Step
}

// losses are what is not as it should be: subsystems, "subsystem/what" of what a Builder makes, and "subsystem/" of one that cannot be
// observed, of which nothing is known to be there.
type losses map[string]bool

func (l losses) step(s Step) {
	l[s.Subsystem] = true
	l.what(s, true)
}

// what is of the steps of Builders that make something: whether that is lost.
func (l losses) what(s Step, lost bool) {
	if op, ok := s.op.(Builder); ok {
		if what, _ := op.Builds(); what != "" {
			l[s.Subsystem+"/"+what] = lost
		}
	}
}

func (l losses) subsystem(name string) { l[name], l[name+"/"] = true, true }

// carry says whether none of what announcements rest on is lost.
func (l losses) carry(carriers []string) bool {
	return !slices.ContainsFunc(carriers, func(c string) bool {
		sub, _, _ := strings.Cut(c, "/")
		return l[c] || l[sub+"/"]
	})
}

// bring does as much of the way to d as can be done, and returns the steps that it did. d was accepted before, so a failure keeps back only
//
//   - what builds on the step that failed,
//   - announcements, where it is one of Options.Carriers that is not ready,
//   - everything that is to be taken away behind the building: it may be all that carries traffic, or that keeps it out.
//
// Withdrawals come ahead of all, as ever. What is to be done to something that is Absent keeps back nothing: no packet passes there.
func (e *Engine) bring(ctx context.Context, d *compile.Desired, why string) ([]Step, error) {
	b := bringing{e: e, lost: losses{}, silent: map[string]bool{}}
	e.lost = b.lost
	looked := e.looking()
	steps, failed := e.look(ctx, d, why)
	looked()
	for _, err := range failed {
		b.errs = append(b.errs, err)
		var blind *observeError
		if errors.As(err, &blind) {
			b.lost.subsystem(blind.subsystem)
		}
	}
	e.keepOrOweRuleIDs(d)
	for i, s := range steps {
		if !b.may(s) {
			if !s.Teardown { // what was to go carries as before
				b.lost.step(s)
			}
			b.left++
			continue
		}
		err := e.step(ctx, s)
		if err == nil {
			b.done = append(b.done, s)
			continue
		}
		if gone := e.opts.Absent(err); !gone {
			b.lost.step(s)
		} else if len(b.errs) > 0 { // what was to make it is told
			b.left++
			continue
		}
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
	switch {
	case len(b.errs) == 0:
		return true
	case s.Teardown:
		return s.Subsystem == b.e.opts.Announcer && !b.silent[s.Subsystem]
	case b.silent[s.Subsystem]:
		return false
	}
	return b.e.stands(s, b.lost)
}

// stands says whether nothing that a step builds on is lost.
func (e *Engine) stands(s Step, lost losses) bool {
	if s.Subsystem == e.opts.Announcer && !lost.carry(e.opts.Carriers) {
		return false
	}
	op, ok := s.op.(Builder)
	if !ok {
		return !lost[s.Subsystem]
	}
	_, on := op.Builds()
	return !slices.ContainsFunc(on, func(what string) bool { return lost[s.Subsystem+"/"+what] })
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

// sameFailure says whether the step that ended one way failed on the other, too, for the same reason, or the same could not be observed.
func sameFailure(cause, other error) bool {
	var a, b *StepError
	if errors.As(cause, &a) && errors.As(other, &b) {
		return a.Step.is(b.Step) && a.Err.Error() == b.Err.Error()
	}
	var c, d *observeError
	return errors.As(cause, &c) && errors.As(other, &d) && c.Error() == d.Error()
}

func (s Step) is(other Step) bool { return s.Subsystem == other.Subsystem && s.Op == other.Op }
