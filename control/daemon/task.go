package daemon

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"
)

// Task is something that runs for as long as the daemon does. Run ends with its context and then returns nil; any
// error, or an end before that, ends the daemon. Ready is closed once the task does its work.
type Task interface {
	Run(ctx context.Context) error
	Ready() <-chan struct{}
	fmt.Stringer
}

// runTasks starts tasks in order, each when the one before is ready, and waits for all.
func runTasks(all context.Context, tasks ...Task) error {
	group, ctx := errgroup.WithContext(all)
	for _, t := range tasks {
		group.Go(func() error {
			err := t.Run(ctx)
			// all first: what ends with it may be over a moment before the group's own context is.
			if err == nil && all.Err() == nil && ctx.Err() == nil {
				err = fmt.Errorf("%s ended by itself", t)
			}
			return err
		})
		select {
		case <-t.Ready():
		case <-ctx.Done():
			return group.Wait()
		}
	}
	return group.Wait()
}

// funcTask is a Task that is ready at once.
type funcTask struct {
	name string
	run  func(context.Context) error
}

func (t funcTask) String() string { return t.name }

// Run takes an error that only says that ctx ended for a good end.
func (t funcTask) Run(ctx context.Context) error {
	if err := t.run(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

func (funcTask) Ready() <-chan struct{} {
	ready := make(chan struct{})
	close(ready)
	return ready
}
