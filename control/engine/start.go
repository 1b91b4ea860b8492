package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
)

// Start brings the machine to the revision that is the truth: the pending one while its time runs in this same boot,
// else the last confirmed one. FILE is read only where there is none. It adopts what is there: what fits already is left
// alone. Call it once, before Run.
//
// ErrDegraded: the revision did not (wholly) get onto the machine; Run keeps trying, and every method may be called.
// Another error: there is no revision, and FILE did not make one; the machine is as it was.
func (e *Engine) Start(ctx context.Context) error {
	if err := e.lock(ctx); err != nil {
		return err
	}
	defer e.unlock()
	for _, n := range e.store.torn {
		e.spoil(fmt.Sprintf("revisions/torn-%d", n), fmt.Sprintf("revision %d cannot be read and was set aside; what it held is to be applied again", n))
	}
	ids, err := e.store.loadRuleIDs()
	if err != nil {
		return err
	}
	if e.store.lostIDs != nil {
		e.log.Warn("counters of rules begin anew", "error", e.store.lostIDs)
	}
	e.set(func() { e.ids = ids })
	rec, err := e.resume()
	if err != nil {
		return err
	}
	if rec != nil {
		return e.startPending(ctx, *rec)
	}
	t := e.lastConfirmed()
	if t == nil {
		return e.startFile(ctx)
	}
	return e.startAt(ctx, t)
}

// resume puts the books in order after whatever ended the last process, and returns the record of the revision that is
// still pending.
func (e *Engine) resume() (*pendingRecord, error) {
	rec, err := e.store.loadPending()
	if err != nil {
		return nil, err
	}
	var over string
	switch {
	case rec == nil:
	case e.store.metas[rec.Revision].Status != Pending:
		rec = nil // decided: only the record was left over
	case rec.BootID != e.clock.BootID():
		over = "the machine was rebooted while it was pending"
	case e.clock.Boot() >= rec.Deadline:
		over = "not confirmed in time: the daemon was down"
	}
	for _, m := range e.store.List() {
		if m.Status != Pending || rec != nil && rec.Revision == m.Number && over == "" {
			continue
		}
		reason := "interrupted while it was applied"
		if rec != nil && rec.Revision == m.Number {
			reason = over
		}
		e.log.Warn("reverted", "revision", m.Number, "reason", reason)
		if err := e.markOrOwe(m.Number, reason); err != nil && e.owed[m.Number] == "" {
			return nil, err
		}
	}
	if rec != nil && over == "" {
		return rec, nil
	}
	return nil, e.store.clearPending()
}

// lastConfirmed returns the newest confirmed revision that is whole; nil: there is none.
func (e *Engine) lastConfirmed() *target {
	for _, n := range e.store.confirmed() {
		t := e.read(n)
		if t.broken == nil || !errors.Is(t.broken, errTorn) {
			return t
		}
		e.store.damaged = true
		e.spoil(fmt.Sprintf("revisions/%d", n), fmt.Sprintf("%v; the confirmed one before is taken", t.broken))
		e.failed(fmt.Errorf("a confirmed revision is damaged: %w", t.broken))
	}
	return nil
}

func (e *Engine) startAt(ctx context.Context, t *target) error {
	e.set(func() { e.current, e.stale = t, true })
	if err := e.recompile(ctx, "start"); err != nil {
		return err
	}
	e.set(func() { e.report.appliedAt = e.clock.Now() })
	e.log.Info("started", "revision", t.number)
	return nil
}

// startPending takes up a revision where the process before left it, with the time that it has left.
func (e *Engine) startPending(ctx context.Context, rec pendingRecord) error {
	w := &watch{pendingRecord: rec, base: nothing(), done: make(chan struct{})}
	if rec.Base != 0 {
		w.base = e.read(rec.Base)
	}
	t := e.read(rec.Revision)
	if t.content.Config != nil {
		w.checks = t.content.Config.Apply.Checks
	}
	e.set(func() { e.current, e.watch = t, w })
	e.log.Warn("a revision is still pending", "revision", t.number, "base", rec.Base, "left", e.left(w))
	d, err := e.compile(ctx, t)
	if err == nil {
		_, err = e.converge(ctx, d, "start")
	}
	if err != nil {
		return e.goBack(ctx, fmt.Sprintf("could not be taken up after a restart: %v", err))
	}
	e.set(func() { t.desired = d; e.report.appliedAt = e.clock.Now() })
	e.healthy(ctx, e.opts.Subsystems)
	return nil
}

// startFile makes the first revision. There are no sessions to keep yet and nothing to go back to, so it is confirmed
// at once, without its checks. Where FILE makes none, what a reverted revision left on the machine goes.
func (e *Engine) startFile(ctx context.Context) error {
	c, err := e.fromFile()
	if c != nil {
		o := ApplyOptions{Message: "first start from " + c.Name, Author: "sluice", unguarded: true}
		if _, err = e.apply(ctx, *c, o); err == nil {
			return nil
		}
	}
	if err != nil {
		e.failed(err)
	}
	if e.store.damaged {
		return e.startDamaged(err)
	}
	if len(e.revisions) > 0 {
		return errors.Join(err, e.repair(ctx, "no confirmed revision"))
	}
	return err
}

// startDamaged leaves the machine as it is: what was confirmed cannot be read any more, and a data path that is still
// there closes what it closed. Only an apply, or down, ends this.
func (e *Engine) startDamaged(err error) error {
	cause := errors.New("no confirmed revision can be read, the newest is damaged: the machine is left as it is; apply a file")
	if err != nil {
		cause = fmt.Errorf("%w (FILE: %w)", cause, err)
	}
	e.degraded("Damaged", cause)
	e.set(func() { e.retryAt = 0 }) // trying again would bring the machine to nothing
	return fmt.Errorf("%w: %w", ErrDegraded, cause)
}

// fromFile returns nil where there is no FILE, or none that may be applied unasked.
func (e *Engine) fromFile() (*Candidate, error) {
	if e.opts.Source == nil {
		return nil, nil
	}
	src, err := e.opts.Source()
	if errors.Is(err, fs.ErrNotExist) {
		e.log.Warn("no revision and no file: waiting for an apply", "error", err)
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	cfg, err := e.opts.Parse(src.Name, src.Bytes, src.ReadFile)
	if err != nil {
		return nil, err
	}
	c := &Candidate{Name: src.Name, Bytes: src.Bytes, Config: cfg}
	// A file that went back by itself must not come in again by a restart.
	sums, _ := c.sums(nothing())
	now, former := digest(c.files(), sums), formerDigest(c.Bytes, c.files())
	for _, m := range e.revisions {
		if m.Status == Reverted && m.Guarded && (m.Digest == now || m.Digest == former) {
			e.log.Warn("not applying the file: it was reverted before", "file", src.Name, "revision", m.Number, "reason", m.Reason)
			e.failed(fmt.Errorf("%s is revision %d, which was reverted (%s); apply it yourself", src.Name, m.Number, m.Reason))
			return nil, nil
		}
	}
	return c, nil
}
