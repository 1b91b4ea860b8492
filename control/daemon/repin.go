package daemon

import (
	"context"
	"errors"

	"sluice/tc"
)

// repinned is tc, the first of the two that load programs, with the tables of bans and FlowSpec in their places before anybody
// looks: a generation that made tables of its own would not know what the daemon writes into those.
type repinned struct {
	*tc.Subsystem
	repin func() error
}

// Observe is tc's.
func (r repinned) Observe(ctx context.Context) (tc.State, error) {
	if err := r.repin(); err != nil {
		return tc.State{}, err
	}
	return r.Subsystem.Observe(ctx)
}

func (d *Daemon) repin() error {
	d.filters.mu.Lock()
	defer d.filters.mu.Unlock()
	err := d.bans.Repin()
	if d.filters.table != nil {
		err = errors.Join(err, d.filters.table.Repin())
	}
	return err
}
