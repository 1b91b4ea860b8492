package source

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sluice/control/config"
	"sluice/control/engine"
)

// ErrRefused marks a definite no of the daemon: other errors are of the way to it, and say nothing of the file.
var ErrRefused = errors.New("refused")

// Daemon is the gateway that decides by applying.
type Daemon interface {
	Status(ctx context.Context) (engine.Status, error)
	History(ctx context.Context) ([]engine.Meta, error)
	Apply(ctx context.Context, file, message string, confirm time.Duration) (engine.Result, error)
	Confirm(ctx context.Context) error
}

// DecideOptions are all needed.
type DecideOptions struct {
	Dir, StateDir string
	Daemon        Daemon
	Log           *slog.Logger
	Now           func() time.Time
	Sleep         func(ctx context.Context, d time.Duration) error
}

// How a trial goes: it is kept once its checks hold at hold's end or later, and the engine goes back by itself at trial's, or sooner where
// a check fails for long. Without checks there is nothing to wait for.
const (
	trial = 2 * time.Minute
	hold  = 30 * time.Second
	poll  = time.Second
	tries = 3 // of an apply that brings no answer
)

type decider struct {
	DecideOptions
	record Record
	book   book
	checks bool
}

// Decide brings the source of this boot to its end: accepted or rejected. A source that was decided before is left as it is. After an
// error, or when ctx ends, the next call goes on from the records.
func Decide(ctx context.Context, o DecideOptions) (Boot, error) {
	d := decider{DecideOptions: o}
	var err error
	if d.record, err = ReadRecord(o.Dir); err != nil || d.record.Digest == "" {
		return Boot{Record: d.record}, err
	}
	var damaged error
	if d.book, damaged, err = readBook(o.StateDir); err != nil {
		return Boot{Record: d.record}, err
	} else if damaged != nil {
		d.Log.Warn("boot sources that were decided before are known from the history alone", "error", damaged)
	}
	if src, err := config.LoadFile(d.file()); err == nil {
		if cfg, err := config.Parse(src); err == nil {
			d.checks = len(cfg.Apply.Checks) > 0
		}
	}
	if err := d.decide(ctx); err != nil {
		return Boot{Record: d.record}, err
	}
	return Seen(o.Dir, o.StateDir)
}

func (d *decider) file() string { return filepath.Join(d.Dir, FileName) }

// mark begins the message of a trial's revision: the history knows it by that after the book was lost, or was not written any more.
func (d *decider) mark() string {
	return fmt.Sprintf("boot configuration %.16s from ", d.record.Digest)
}

func (d *decider) decide(ctx context.Context) error {
	for applied := 0; ; {
		s, err := d.settled(ctx)
		if err != nil {
			return err
		}
		known := d.book.find(d.record.Digest)
		switch {
		case known != nil && known.Outcome == Accepted:
			return nil
		case s.Pending == nil && s.Revision != 0 && !s.FileDiffers:
			// The daemon's own first start, or somebody applied it by hand.
			return d.put(Accepted, s.Revision, "")
		case known != nil && known.Outcome == Rejected:
			d.Log.Warn("the boot source was rejected before and is not tried again", "digest", d.record.Digest, "why", known.Why)
			return nil
		}
		m, err := d.revision(ctx)
		switch {
		case err != nil:
			return err
		case m == nil && applied == tries:
			return errors.New("the daemon gave no answer to apply; the boot source is decided at the next boot")
		case m == nil:
			applied++
			if decided, err := d.apply(ctx); err != nil || decided {
				return err
			}
		case m.Status == engine.Confirmed:
			return d.put(Accepted, m.Number, "")
		case m.Status == engine.Reverted:
			return d.put(Rejected, m.Number, m.Reason)
		default:
			if err := d.judge(ctx, s, m.Number); err != nil {
				return err
			}
		}
	}
}

// settled waits for a daemon that answers, and for whatever somebody else has pending: a trial would take its place.
func (d *decider) settled(ctx context.Context) (engine.Status, error) {
	for {
		s, err := d.Daemon.Status(ctx)
		if err == nil {
			if s.Pending == nil {
				return s, nil
			}
			m, err := d.revision(ctx)
			if err == nil && m != nil && m.Number == s.Pending.Revision {
				return s, nil
			}
		}
		if err := d.Sleep(ctx, poll); err != nil {
			return s, err
		}
	}
}

// revision is what the source became; nil: nothing yet.
func (d *decider) revision(ctx context.Context) (*engine.Meta, error) {
	for {
		history, err := d.Daemon.History(ctx)
		if err == nil {
			for _, m := range slices.Backward(history) { // the newest
				if strings.HasPrefix(m.Message, d.mark()) {
					return &m, nil
				}
			}
			return nil, nil
		}
		if err := d.Sleep(ctx, poll); err != nil {
			return nil, err
		}
	}
}

// apply puts the source on trial. The book speaks of it first: should the power be cut, it is known whose revision is found.
func (d *decider) apply(ctx context.Context) (decided bool, err error) {
	if err := d.put(OnTrial, 0, ""); err != nil {
		return false, err
	}
	switch _, err := d.Daemon.Apply(ctx, d.file(), d.mark()+string(d.record.Source), trial); {
	case err == nil:
		return false, nil
	case errors.Is(err, ErrRefused):
		why, _, _ := strings.Cut(err.Error(), "\n")
		return true, d.put(Rejected, 0, why)
	default:
		d.Log.Warn("no answer to apply", "error", err)
		return false, d.Sleep(ctx, poll)
	}
}

// judge confirms a trial whose checks hold, and else waits for the engine, which goes back by itself.
func (d *decider) judge(ctx context.Context, s engine.Status, number int) error {
	p := s.Pending
	if p == nil || p.Revision != number {
		return d.Sleep(ctx, poll) // it is being decided
	}
	lived := trial - time.Duration(p.Remaining*float64(time.Second))
	passed := len(p.Failing) == 0 && slices.ContainsFunc(s.Conditions, func(c engine.Condition) bool {
		return c.Type == engine.ConditionChecks && c.Status == engine.True
	})
	if !d.checks || passed && lived >= hold {
		if err := d.Daemon.Confirm(ctx); err == nil {
			return nil
		} else if ctx.Err() == nil {
			d.Log.Warn("the trial could not be confirmed", "revision", number, "error", err)
		}
	}
	return d.Sleep(ctx, poll)
}

func (d *decider) put(o Outcome, revision int, why string) error {
	t := Trial{Digest: d.record.Digest, Source: d.record.Source, Outcome: o, Revision: revision, Why: why, At: d.Now().UTC()}
	if o != OnTrial {
		d.Log.Info("boot source decided", "source", t.Source, "digest", t.Digest, "outcome", o, "revision", revision, "why", why)
	}
	return d.book.put(d.StateDir, t)
}

// Sleep is DecideOptions.Sleep of a real clock.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
