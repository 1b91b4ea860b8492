package engine

import (
	"context"
	"time"
)

// idle is how long Run sleeps where nothing is due; heartbeat while a revision is pending, because Clock.After stands
// still while the machine is suspended and the deadline does not.
const (
	idle      = time.Hour
	heartbeat = 5 * time.Second
)

// Run keeps the deadlines: of a pending revision, of its checks, of the repair of a degraded machine. Call it after
// Start; it returns when ctx ends, and leaves the machine as it is.
func (e *Engine) Run(ctx context.Context) error {
	for {
		wait := e.tick(ctx)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-e.wake:
		case <-e.asked:
		case <-e.clock.After(wait):
		}
	}
}

// tick does what is due and says when to come again.
func (e *Engine) tick(ctx context.Context) time.Duration {
	if err := e.check(ctx); err != nil {
		return idle // ctx has ended
	}
	if err := e.lock(ctx); err != nil {
		return idle
	}
	defer e.release()
	e.payOwed()
	// Errors are in the report already; going back and repairing end neither Run nor the daemon.
	_ = e.expire(ctx)
	if e.retryAt != 0 && e.clock.Boot() >= e.retryAt {
		_ = e.repair(ctx, whyAgain)
	}
	return e.due()
}

func (e *Engine) due() time.Duration {
	wait, now := idle, e.clock.Boot()
	if w := e.watch; w != nil {
		wait = min(heartbeat, w.Deadline-now)
		if len(w.checks) > 0 {
			wait = min(wait, w.next-now)
		}
	}
	if len(e.owed) > 0 || e.owesIDs {
		wait = min(wait, heartbeat)
	}
	if e.retryAt != 0 {
		wait = min(wait, e.retryAt-now)
	}
	return max(wait, 0)
}
