package daemon

import "errors"

// repin puts the tables of bans and FlowSpec in their places: a generation that made tables of its own would not know what the daemon
// writes into those.
func (d *Daemon) repin() error {
	d.filters.mu.Lock()
	defer d.filters.mu.Unlock()
	err := d.bans.Repin()
	if d.filters.table != nil {
		err = errors.Join(err, d.filters.table.Repin())
	}
	return err
}
