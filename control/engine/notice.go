package engine

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// NoticeKind is what happened to a revision.
type NoticeKind string

// The turns in the life of a revision.
const (
	NoticeApplied   NoticeKind = "applied"
	NoticePending   NoticeKind = "pending" // applied, and goes back unless it is confirmed
	NoticeConfirmed NoticeKind = "confirmed"
	NoticeReverted  NoticeKind = "reverted"
	NoticeFailed    NoticeKind = "failed" // an apply that did not come through; the machine is back where it was
	NoticeDegraded  NoticeKind = "degraded"
	NoticeHealthy   NoticeKind = "healthy"  // after degraded: the machine holds what it should again
	NoticeRepaired  NoticeKind = "repaired" // the machine lacked, or had, what it should not, and that was put right
	NoticeDown      NoticeKind = "down"
)

// Notice tells, as it happens, what History and Status tell afterwards.
type Notice struct {
	Kind     NoticeKind `json:"kind"`
	Revision int        `json:"revision,omitempty"`
	Text     string     `json:"text,omitempty"` // why, or what now
}

// Mended is what the machine lacked, or had, against a revision that had been live before.
type Mended struct {
	At    time.Time `json:"at"`    // the last time
	Why   string    `json:"why"`   // what made the engine look then
	Steps []string  `json:"steps"` // of all times; the first maxMended
}

const maxMended = 1000

// repaired remembers steps that bring back what was there, until the next apply tells of them. Those that make good what somebody else did
// are told at once, whatever the operation was begun for.
func (e *Engine) repaired(why string, steps []Step) {
	if len(steps) == 0 {
		return
	}
	if e.lacked {
		why = Drift
	}
	m := Mended{At: e.clock.Now(), Why: why}
	if before := e.report.mended; before != nil {
		m.Steps = slices.Clone(before.Steps)
	}
	for _, s := range steps[:min(len(steps), maxMended-len(m.Steps))] {
		m.Steps = append(m.Steps, s.Subsystem+": "+s.Op)
	}
	e.set(func() { e.report.mended = &m })
	if why != Drift {
		return
	}
	text := repairText(steps)
	e.log.Warn("somebody else changed the machine, which is repaired", "steps", text)
	e.set(func() { e.report.repaired, e.report.repairedAt = text, m.At })
	e.notify(NoticeRepaired, e.current.number, text)
}

// tell returns what was mended since it was last asked.
func (e *Engine) tell() *Mended {
	m := e.report.mended
	e.set(func() { e.report.mended = nil })
	return m
}

// repairText names the first steps of a repair.
func repairText(steps []Step) string {
	const most = 5
	var list []string
	for _, s := range steps[:min(most, len(steps))] {
		list = append(list, s.Subsystem+": "+s.Op)
	}
	if more := len(steps) - most; more > 0 {
		list = append(list, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(list, "; ")
}

func (e *Engine) notify(kind NoticeKind, revision int, text string) {
	if e.opts.Notify != nil {
		e.opts.Notify(Notice{kind, revision, text})
	}
}
