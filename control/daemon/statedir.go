package daemon

import (
	"context"
	"fmt"
	"strings"
	"time"

	"sluice/control/engine"
)

// roomEvery is how often it is tried again to write what the disk had no room for.
const roomEvery = 5 * time.Second

// spareLedger is where the host's ledger goes while the disk is full: beside the socket, where mostly memory is.
func spareLedger(socket string) string { return socket + ".host.json" }

// faultsChanged keeps the condition. What is found before there is an engine is told once there is.
func (d *Daemon) faultsChanged() {
	if d.engine == nil {
		return
	}
	unwritten, damaged := d.faults.List()
	switch text := strings.Join(append(unwritten, damaged...), "; "); {
	case text == "":
		d.engine.SetCondition(engine.ConditionStateDir, "", "", "")
	case len(unwritten) > 0:
		d.engine.SetCondition(engine.ConditionStateDir, engine.False, "NotWritten", text)
		select {
		case d.unwritten <- struct{}{}:
		default:
		}
	default:
		d.engine.SetCondition(engine.ConditionStateDir, engine.False, "Damaged", text)
	}
}

// tellNewerState says that a newer version was here: what was changed under it is not here, and not lost.
func (d *Daemon) tellNewerState() {
	if d.newer == 0 {
		return
	}
	text := fmt.Sprintf("a newer sluice keeps its state in format-%d, which is left alone: this one goes on from its own, "+
		"without the revisions, bans and workloads that were changed under the newer one", d.newer)
	d.opts.Log.Warn(text)
	d.engine.SetCondition(engine.ConditionStateFormat, engine.False, "NewerLeftAlone", text)
}

// keepState writes what found no room, once there is. Others look after their own files.
func (d *Daemon) keepState(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.unwritten:
		}
		for unwritten := true; unwritten; unwritten = d.faults.Unwritten() {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(roomEvery):
			}
			d.host.Settle()
			if d.faults.Unwritten(filtersName) {
				d.filters.retry()
			}
		}
	}
}
