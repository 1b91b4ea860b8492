package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"sluice/control/compile"
	"sluice/plural"
)

// Step is one op of one subsystem.
type Step struct {
	Subsystem string `json:"subsystem"`
	Op        string `json:"op"`
	Teardown  bool   `json:"teardown"`
	Why       string `json:"why"`

	sub Subsystem
	op  Op
}

// Plan is what an apply would do now, in order.
type Plan struct {
	Revision int      `json:"revision"` // the one that the machine leaves; 0: none
	Steps    []Step   `json:"steps"`
	Warnings []string `json:"warnings,omitempty"` // and notes, of the compiler
	// SetFiles are those whose contents are others than in the revision that the machine leaves, by the path that FILE
	// writes.
	SetFiles []string `json:"set_files_differ,omitempty"`

	desired *compile.Desired
}

// Desired is what the steps lead to.
func (p Plan) Desired() *compile.Desired { return p.desired }

// String prints a plan for people: one step a line, "-" where something is taken away.
func (p Plan) String() string {
	var b strings.Builder
	from := "nothing"
	if p.Revision != 0 {
		from = fmt.Sprintf("revision %d", p.Revision)
	}
	if len(p.Steps) == 0 {
		fmt.Fprintf(&b, "from %s: nothing to do\n", from)
	} else {
		fmt.Fprintf(&b, "from %s: %s\n", from, plural.Of(len(p.Steps), "step", "steps"))
	}
	for _, path := range p.SetFiles {
		fmt.Fprintf(&b, "set file %s differs from revision %d\n", path, p.Revision)
	}
	width := 0
	for _, s := range p.Steps {
		width = max(width, len(s.Subsystem))
	}
	for _, s := range p.Steps {
		sign := "+"
		if s.Teardown || strings.HasPrefix(s.Op, "remove ") { // some removals make room for what is built
			sign = "-"
		}
		fmt.Fprintf(&b, "  %s %-*s  %s\n", sign, width, s.Subsystem, s.Op)
	}
	for _, w := range p.Warnings {
		fmt.Fprintf(&b, "warning: %s\n", w)
	}
	return b.String()
}

// difference is what one subsystem lacks.
type difference struct {
	sub Subsystem
	ops []Op
}

// order merges the ops of all subsystems, which come in the order of the data path, into one sequence:
//
//  1. the announcer's teardowns: withdraw before anything is torn down
//  2. everything else that is no teardown, subsystem by subsystem: the data path before the announcement
//  3. what is Between, and of that teardowns last
//  4. the other teardowns, the subsystems reversed
//
// Inside each part a subsystem's own order stays. So a replacement that must delete before it adds is one op, no teardown.
func order(diffs []difference, announcer string, why string) []Step {
	withdraw := []Step{} // a plan without steps is [] in JSON, not null
	var build, late, early, tear []Step
	for _, d := range diffs {
		var own []Step
		for _, op := range d.ops {
			s := Step{Subsystem: d.sub.Name(), Op: op.String(), Teardown: op.Teardown(), Why: why, sub: d.sub, op: op}
			b, known := op.(Between)
			switch between := known && b.Between(); {
			case between && s.Teardown:
				early = append(early, s)
			case between:
				late = append(late, s)
			case !s.Teardown:
				build = append(build, s)
			case s.Subsystem == announcer:
				withdraw = append(withdraw, s)
			default:
				own = append(own, s)
			}
		}
		tear = append(own, tear...)
	}
	return append(withdraw, slices.Concat(build, late, early, tear)...)
}

// observing is subsystems that are observed side by side.
type observing struct {
	subs   []Subsystem
	have   []State
	failed []error
	all    sync.WaitGroup
}

// observe begins to look, which changes nothing.
func observe(ctx context.Context, subs []Subsystem) *observing {
	o := &observing{subs: subs, have: make([]State, len(subs)), failed: make([]error, len(subs))}
	for i, sub := range subs {
		o.all.Go(func() {
			have, err := sub.Observe(ctx)
			if err != nil {
				o.failed[i] = &observeError{sub.Name(), err}
			}
			o.have[i] = have
		})
	}
	return o
}

// differences waits for what is seen, and compares it with what d wants. What failed is told for each subsystem.
func (o *observing) differences(d *compile.Desired) (out []difference, failed []error) {
	o.all.Wait()
	out = make([]difference, len(o.subs))
	var all sync.WaitGroup
	for i, sub := range o.subs {
		if o.failed[i] == nil {
			all.Go(func() { out[i] = difference{sub, sub.Diff(o.have[i], sub.Want(d))} })
		}
	}
	all.Wait()
	return out, o.failed
}

// differences observes subsystems and compares them with what d wants.
func differences(ctx context.Context, subs []Subsystem, d *compile.Desired) (out []difference, failed []error) {
	return observe(ctx, subs).differences(d)
}

// look plans as far as the machine can be observed; failed are the subsystems that cannot be.
func (e *Engine) look(ctx context.Context, d *compile.Desired, why string) (steps []Step, failed []error) {
	return e.compare(observe(ctx, e.opts.Subsystems), d, why)
}

func (e *Engine) compare(o *observing, d *compile.Desired, why string) (steps []Step, failed []error) {
	defer e.timed("plan")()
	diffs, failed := o.differences(d)
	diffs = slices.DeleteFunc(diffs, func(d difference) bool { return d.sub == nil })
	return order(diffs, e.opts.Announcer, why), slices.DeleteFunc(failed, func(err error) bool { return err == nil })
}

func (e *Engine) plan(ctx context.Context, d *compile.Desired, why string) (Plan, error) {
	return e.planFrom(observe(ctx, e.opts.Subsystems), d, why)
}

func (e *Engine) planFrom(o *observing, d *compile.Desired, why string) (Plan, error) {
	steps, failed := e.compare(o, d, why)
	if len(failed) > 0 {
		return Plan{}, failed[0]
	}
	return Plan{Revision: e.current.number, Steps: steps, Warnings: slices.Concat(d.Warnings, d.Notes), desired: d}, nil
}

// touched are the subsystems that steps may have left otherwise than they were when the steps were planned: all, unless each
// step is contained. One without a step held then what it should.
func (e *Engine) touched(steps []Step) []Subsystem {
	own := map[string]bool{}
	for _, s := range steps {
		if op, ok := s.op.(Contained); !ok || !op.Contained() {
			return e.opts.Subsystems
		}
		own[s.Subsystem] = true
	}
	return slices.DeleteFunc(slices.Clone(e.opts.Subsystems), func(s Subsystem) bool { return !own[s.Name()] })
}

// observeError says which subsystem could not be observed.
type observeError struct {
	subsystem string
	err       error
}

func (o *observeError) Error() string { return "observing " + o.subsystem + ": " + o.err.Error() }
func (o *observeError) Unwrap() error { return o.err }

// StepError says which step of how many failed.
type StepError struct {
	Step  Step
	N, Of int // N counts from 1
	Err   error
}

// Error names the step once, also where the subsystem's own error names it, too.
func (s *StepError) Error() string {
	what := strings.TrimPrefix(s.Err.Error(), s.Step.Subsystem+": ")
	what = strings.TrimPrefix(what, s.Step.Op+": ")
	return fmt.Sprintf("step %d of %d, %s: %s: %s", s.N, s.Of, s.Step.Subsystem, s.Step.Op, what)
}

func (s *StepError) Unwrap() error { return s.Err }

// run does the steps until one fails, and returns those that it did.
func (e *Engine) run(ctx context.Context, steps []Step) ([]Step, error) {
	for i, s := range steps {
		if err := e.step(ctx, s); err != nil {
			return steps[:i], &StepError{Step: s, N: i + 1, Of: len(steps), Err: err}
		}
	}
	return steps, nil
}

func (e *Engine) step(ctx context.Context, s Step) error {
	e.log.Debug("step", "subsystem", s.Subsystem, "op", s.Op, "why", s.Why)
	defer e.timed("step of " + s.Subsystem)()
	ctx, cancel := context.WithTimeout(ctx, e.opts.Timing.StepTimeout)
	defer cancel()
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.sub.Apply(ctx, s.op)
}

// way is how to get to a Desired. It returns the steps that it did.
type way func(ctx context.Context, d *compile.Desired, why string) ([]Step, error)

// converge brings the machine from wherever it is to d, or as far as the first step that fails.
func (e *Engine) converge(ctx context.Context, d *compile.Desired, why string) ([]Step, error) {
	looked := e.looking()
	p, err := e.plan(ctx, d, why)
	looked()
	if err != nil {
		return nil, err
	}
	e.keepOrOweRuleIDs(d)
	return e.run(ctx, p.Steps)
}

// perform does the steps of a new revision, which lead to d. The ids of d's rules are on the disk before the first of them, so that no id in
// the data path is ever forgotten.
func (e *Engine) perform(ctx context.Context, d *compile.Desired, steps []Step) error {
	if err := e.keepRuleIDs(d); err != nil {
		return err
	}
	_, err := e.run(ctx, steps)
	return err
}
