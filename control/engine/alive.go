package engine

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// progress notes that an operation got on: it began, or a part of it did or ended.
func (e *Engine) progress() { e.moved.Store(int64(e.clock.Boot())) }

// Alive returns nil where the engine does its work: Run answers before ctx ends, or what keeps it from that got on within the time that
// two steps may take. Else it says for how long nothing has moved. It is for a watchdog: an engine that hangs does not answer by a timer.
func (e *Engine) Alive(ctx context.Context) error {
	select {
	case e.asked <- struct{}{}:
		return nil
	case <-ctx.Done():
	}
	quiet := e.clock.Boot() - time.Duration(e.moved.Load())
	switch {
	case !e.Busy():
		return errors.New("the engine does not keep its deadlines any more")
	case quiet >= 2*e.opts.Timing.StepTimeout:
		return fmt.Errorf("an operation of the engine has not moved for %s", quiet.Round(time.Second))
	}
	return nil
}
