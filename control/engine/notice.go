package engine

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
	NoticeHealthy   NoticeKind = "healthy" // after degraded: the machine holds what it should again
	NoticeDown      NoticeKind = "down"
)

// Notice tells, as it happens, what History and Status tell afterwards.
type Notice struct {
	Kind     NoticeKind `json:"kind"`
	Revision int        `json:"revision,omitempty"`
	Text     string     `json:"text,omitempty"` // why, or what now
}

func (e *Engine) notify(kind NoticeKind, revision int, text string) {
	if e.opts.Notify != nil {
		e.opts.Notify(Notice{kind, revision, text})
	}
}
