package engine

import (
	"fmt"

	"sluice/control/compile"
)

// Faults is told what of the state directory could not be written, and what could not be read as it was written. Files are called by
// their paths in it.
type Faults interface {
	Wrote(file string, err error)
	Damaged(file, what string) // "": nothing any more
}

type unheard struct{}

func (unheard) Wrote(string, error)    {}
func (unheard) Damaged(string, string) {}

// revert marks a revision reverted and ends the pending state on the disk: before is the revision that is pending again,
// nil for none.
func (e *Engine) revert(n int, before *watch, reason string) {
	err := e.markOrOwe(n, reason)
	if err == nil && before != nil {
		// Where this fails pending.json speaks of n, which is reverted: a restart then takes the base.
		err = e.store.savePending(before.pendingRecord)
	} else if err == nil {
		err = e.store.clearPending()
	}
	if err != nil {
		e.log.Error("bookkeeping", "revision", n, "error", err)
	}
}

// markOrOwe marks a revision reverted. The machine does not wait for a full disk: what cannot be written now is owed, and Run tries
// again. A start before that finds the revision pending, and reverts it.
func (e *Engine) markOrOwe(n int, reason string) error {
	err := e.mark(n, Reverted, reason)
	if err != nil && e.store.metas[n].Status == Pending {
		e.owed[n] = reason
		e.opts.Faults.Wrote(metaOf(n), err)
	}
	return err
}

func metaOf(n int) string { return fmt.Sprintf("revisions/%d/meta.json", n) }

// keepOrOweRuleIDs is keepRuleIDs on the way to what was accepted before: a full disk must not keep the machine from it. Ids that the
// disk had no room for are forgotten by a crash, and a rule that gets one again counts on where another ended.
func (e *Engine) keepOrOweRuleIDs(d *compile.Desired) {
	if err := e.keepRuleIDs(d); err != nil {
		e.set(func() { e.ids = e.ids.next(d.RuleIDs, e.changeOfIDs(d)) })
		e.owesIDs = true
		e.opts.Faults.Wrote(ruleIDFile, err)
	}
}

func (e *Engine) payOwed() {
	for n, reason := range e.owed {
		err := e.mark(n, Reverted, reason)
		e.opts.Faults.Wrote(metaOf(n), err)
		if err == nil {
			delete(e.owed, n)
		}
	}
	if e.owesIDs {
		err := e.store.saveRuleIDs(e.ids, nil)
		e.opts.Faults.Wrote(ruleIDFile, err)
		e.owesIDs = err != nil
	}
}

// spoil tells of a damaged file that matters until there is another revision.
func (e *Engine) spoil(file, what string) {
	e.log.Error("a damaged revision", "file", file, "what", what)
	e.spoilt = append(e.spoilt, file)
	e.opts.Faults.Damaged(file, what)
}

// unspoil follows a new revision.
func (e *Engine) unspoil() {
	for _, file := range e.spoilt {
		e.opts.Faults.Damaged(file, "")
	}
	e.spoilt = nil
}
