package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// ApplyOptions say how an apply is guarded and remembered.
type ApplyOptions struct {
	Confirm time.Duration // goes back after so long unless Confirm is called; 0: no confirmation asked
	Message string
	Author  string
	UID     int

	unguarded bool // the first start: there are no sessions to keep and nothing to go back to
}

// Result is what an apply did.
type Result struct {
	Revision  int            `json:"revision"`
	Unchanged bool           `json:"unchanged"` // nothing to do; no revision was made
	Plan      Plan           `json:"plan"`
	Pending   *PendingStatus `json:"pending,omitempty"` // waits for Confirm
	// WentBack is the pending revision that a rollback ended; Revision is its base then, and nothing new was made.
	WentBack int `json:"went_back,omitempty"`
	// Mended is what this apply put right, where the file is that of the revision before; and where it found nothing to do, what
	// the engine did by itself since the last one.
	Mended *Mended `json:"mended,omitempty"`
}

// Plan says what Apply would do now. It changes nothing.
func (e *Engine) Plan(ctx context.Context, c Candidate) (Plan, error) {
	if err := e.lock(ctx); err != nil {
		return Plan{}, err
	}
	defer e.unlock()
	_, p, err := e.prepare(ctx, c, "apply")
	return p, err
}

// prepare compiles a candidate and plans the way to it.
func (e *Engine) prepare(ctx context.Context, c Candidate, why string) (*target, Plan, error) {
	if c.Config == nil {
		return nil, Plan{}, errors.New("engine: a candidate without its parsed configuration")
	}
	t := &target{content: c}
	t.content.Files = c.files()
	identified := make(chan identity, 1)
	go func(before *target) { identified <- identify(t.content, before) }(e.current) // beside the compilation
	looking, stop := context.WithCancel(ctx)
	defer stop()
	observed := observe(looking, e.opts.Subsystems) // as well: neither changes anything
	var err error
	if t.desired, err = e.compile(ctx, t); err != nil {
		stop()
		observed.all.Wait() // nobody looks any more once the next operation begins
		return nil, Plan{}, err
	}
	p, err := e.planFrom(observed, t.desired, why)
	waited := e.timed("digest")
	of := <-identified
	waited()
	t.sums, t.states, t.digest = of.sums, of.states, of.digest
	p.SetFiles = of.setFiles
	return t, p, err
}

// Apply makes c the revision of the machine. Without Confirm it returns when the revision is confirmed: at once, or,
// where the configuration has checks, after Timing.CheckWindow under them, which needs Run to be running. A ctx that
// ends meanwhile ends the waiting, not the watching. With Confirm it returns after the last step.
//
// After any error the machine is as it was, unless the error is ErrDegraded. ErrPending: another revision waits, and
// Confirm was not asked for; with it the clock starts again and the base stays. ErrReverted: the checks failed.
func (e *Engine) Apply(ctx context.Context, c Candidate, o ApplyOptions) (Result, error) {
	if err := e.lock(ctx); err != nil {
		return Result{}, err
	}
	r, err := e.apply(ctx, c, o)
	w := e.watch
	wait := err == nil && !r.Unchanged && w != nil && !w.Confirm
	e.unlock()
	if !wait {
		return r, err
	}
	select {
	case <-w.done:
		r.Pending = nil
		return r, w.outcome
	case <-ctx.Done():
		return r, fmt.Errorf("revision %d is live and stays under its checks: %w", r.Revision, ctx.Err())
	}
}

// Rollback applies the content of revision n as a new revision. While one is pending its base, or 0, is what it would go back to
// by itself: then it goes back at once, and no revision is made.
func (e *Engine) Rollback(ctx context.Context, n int, o ApplyOptions) (Result, error) {
	if r, gone, err := e.abandon(ctx, n, o); gone || err != nil {
		return r, err
	}
	c, err := e.parsed(ctx, n)
	if err != nil {
		return Result{}, err
	}
	if o.Message == "" {
		o.Message = fmt.Sprintf("rollback to %d", n)
	}
	return e.Apply(ctx, c, o)
}

// abandon goes back from a pending revision to its base; gone is false where that is not what is asked for.
func (e *Engine) abandon(ctx context.Context, n int, o ApplyOptions) (r Result, gone bool, err error) {
	if err := e.lock(ctx); err != nil {
		return Result{}, false, err
	}
	defer e.unlock()
	if err := e.expire(ctx); err != nil {
		return Result{}, false, err
	}
	switch w := e.watch; {
	case w == nil && n == 0:
		return Result{}, false, fmt.Errorf("%w; to apply an earlier one again, say which", e.notPending())
	case w == nil || o.Confirm != 0 || n != 0 && n != w.Base:
		return Result{}, false, nil
	default:
		err := e.goBack(ctx, cmp.Or(o.Message, "rolled back before it was confirmed"))
		return Result{Revision: w.Base, WentBack: w.Revision}, true, err
	}
}

// Stored returns the bytes of a revision, of one that this version does not understand, too: Config is nil. ErrNoRevision.
func (e *Engine) Stored(ctx context.Context, n int) (Candidate, Meta, error) {
	// The store is not safe for concurrent use.
	if err := e.lock(ctx); err != nil {
		return Candidate{}, Meta{}, err
	}
	defer e.unlock()
	c, _, err := e.store.load(n)
	return c, e.store.metas[n], err
}

func (e *Engine) parsed(ctx context.Context, n int) (Candidate, error) {
	if err := e.lock(ctx); err != nil {
		return Candidate{}, err
	}
	defer e.unlock()
	t := e.read(n)
	return t.content, t.broken
}

func (e *Engine) apply(ctx context.Context, c Candidate, o ApplyOptions) (Result, error) {
	if o.Confirm < 0 {
		return Result{}, fmt.Errorf("confirm within %s: must be positive", o.Confirm)
	}
	if err := e.expire(ctx); err != nil {
		return Result{}, err
	}
	if e.watch != nil && o.Confirm == 0 {
		return Result{}, fmt.Errorf("%w: revision %d has %s left; confirm it, wait until it goes back, or use --confirm, which takes its place and keeps the base",
			ErrPending, e.current.number, e.left(e.watch).Round(time.Second))
	}
	lacks := e.opts.Look()
	next, p, err := e.prepare(ctx, c, cmp.Or(o.Message, "apply"))
	if err != nil {
		return Result{}, err
	}
	if len(p.Steps) == 0 && next.same(e.current) && !e.down {
		return e.unchanged(o, p)
	}
	w, err := e.newWatch(ctx, next, o)
	if err != nil {
		return Result{}, err
	}
	stored := e.timed("revision")
	meta, err := e.store.put(next, Meta{
		Time: e.clock.Now(), Author: o.Author, UID: o.UID, Message: o.Message,
		Base: e.confirmed(), Status: Pending, Guarded: w != nil,
	})
	stored()
	if err != nil {
		return Result{}, fmt.Errorf("storing revision %d: %w", meta.Number, err)
	}
	next.number = meta.Number
	again := next.same(e.current) && !e.down
	if err := e.commit(ctx, next, w, p.Steps); err != nil {
		return Result{}, err
	}
	lacks(next.desired) // whatever it was, the plan told of it
	if again {
		e.repaired("apply", p.Steps)
	} else {
		e.tell() // what was mended of another file is over
	}
	return Result{Revision: next.number, Plan: p, Pending: e.pendingStatus(), Mended: e.tell()}, nil
}

// unchanged answers an apply that has nothing to do. While pending it still restarts the clock.
func (e *Engine) unchanged(o ApplyOptions, p Plan) (Result, error) {
	if e.watch != nil {
		rec := e.watch.pendingRecord
		rec.Deadline, rec.Confirm = e.clock.Boot()+o.Confirm, true
		if err := e.store.savePending(rec); err != nil {
			return Result{}, err
		}
		e.set(func() { e.watch.pendingRecord = rec })
	}
	return Result{Revision: e.current.number, Unchanged: true, Plan: p, Pending: e.pendingStatus(), Mended: e.tell()}, nil
}

// confirmed is the revision that a reboot would come back to.
func (e *Engine) confirmed() int {
	if e.watch != nil {
		return e.watch.Base
	}
	return e.current.number
}

// commit makes a stored revision live. The order is what makes a crash harmless: the pending state, then the rule ids,
// then the steps, then the revision's end in its metadata.
func (e *Engine) commit(ctx context.Context, next *target, w *watch, steps []Step) error {
	before := e.watch
	if w != nil {
		w.Revision = next.number
		if err := e.store.savePending(w.pendingRecord); err != nil {
			e.revert(next.number, before, err.Error())
			return err
		}
	}
	err := e.perform(ctx, next.desired, steps)
	switch {
	case err != nil:
	case w == nil:
		err = e.store.mark(next.number, Confirmed, "")
	default:
		err = e.live(w)
	}
	if err != nil {
		return e.undo(ctx, next.number, before, err)
	}
	e.set(func() {
		e.current, e.watch, e.down, e.stale = next, w, false, false
		e.revisions = e.store.List()
		e.report.appliedAt = e.clock.Now()
		e.report.forget(ConditionChecks)
	})
	if before != nil {
		e.replaced(before, next.number)
	}
	e.prune()
	e.unspoil()
	e.healthy(ctx, e.touched(steps))
	e.log.Info("applied", "revision", next.number, "steps", len(steps), "pending", w != nil)
	if w == nil {
		e.notify(NoticeApplied, next.number, e.store.metas[next.number].Message)
	} else {
		e.notify(NoticePending, next.number, fmt.Sprintf("goes back to %s in %s", w.base, e.left(w).Round(time.Second)))
	}
	return nil
}

// replaced ends a pending revision in whose place another one is pending now.
func (e *Engine) replaced(w *watch, by int) {
	reason := fmt.Sprintf("replaced by revision %d", by)
	if err := e.markOrOwe(w.Revision, reason); err != nil {
		e.log.Error("bookkeeping", "revision", w.Revision, "error", err)
	}
	w.end(fmt.Errorf("%w: revision %d: %s", ErrReverted, w.Revision, reason))
	e.notify(NoticeReverted, w.Revision, reason)
}

// undo goes back to the current revision after a failed apply. Nobody's ctx can stop it half way.
func (e *Engine) undo(ctx context.Context, n int, before *watch, cause error) error {
	ctx = context.WithoutCancel(ctx)
	e.log.Error("apply failed, going back", "revision", n, "to", e.current.number, "error", cause)
	e.revert(n, before, cause.Error())
	cause = fmt.Errorf("revision %d: %w", n, cause)
	why := fmt.Sprintf("revision %d failed", n)
	if err := e.restore(ctx, why); err != nil {
		return e.stuck(cause, err)
	}
	e.healthy(ctx, e.opts.Subsystems)
	e.failed(cause)
	e.notify(NoticeFailed, n, cause.Error())
	return fmt.Errorf("%w; the machine is back at %s", cause, e.current)
}

// same says whether two targets are the same file. Watched set files are no part of the digest, and where they lie follows
// from the directory of the file.
func (t *target) same(other *target) bool {
	return t.digest == other.digest && t.content.Config != nil && other.content.Config != nil &&
		slices.Equal(t.content.Config.Watched(), other.content.Config.Watched())
}

func (t *target) String() string {
	if t.number == 0 {
		return "no revision"
	}
	return fmt.Sprintf("revision %d", t.number)
}
