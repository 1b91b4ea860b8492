package engine

import (
	"fmt"
	"strings"
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
