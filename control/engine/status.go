package engine

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/control/compile"
	"sluice/plural"
)

// Status is what the engine knows about the machine.
type Status struct {
	Revision    int            `json:"revision"` // live, or being brought up; 0: none
	Applied     bool           `json:"applied"`  // every step to it was done
	AppliedAt   time.Time      `json:"applied_at"`
	Down        bool           `json:"down"`
	Pending     *PendingStatus `json:"pending,omitempty"`
	Conditions  []Condition    `json:"conditions"` // sorted by type
	LastError   string         `json:"last_error,omitempty"`
	LastErrorAt time.Time      `json:"last_error_at"`
	// Repaired are the first steps of the last repair of what somebody else had changed, since the start.
	Repaired    string    `json:"repaired,omitempty"`
	RepairedAt  time.Time `json:"repaired_at,omitzero"`
	File        string    `json:"file,omitempty"`
	FileDiffers bool      `json:"file_differs"` // from the live revision, set files included
	// SetFiles are those of the revision that differ from what lies on the disk now, or cannot be read.
	SetFiles []string `json:"set_files_differ,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
}

// PendingStatus is a revision that is not confirmed yet.
type PendingStatus struct {
	Revision  int       `json:"revision"`
	Base      int       `json:"base"` // 0: goes back to nothing
	Remaining float64   `json:"remaining_seconds"`
	Confirm   bool      `json:"confirm"` // waits for Confirm; else its checks alone decide
	Failing   []Failure `json:"failing,omitempty"`
}

// Condition is one thing that is so or is not.
type Condition struct {
	Type    string         `json:"type"`
	Status  ConditionValue `json:"status"`
	Reason  string         `json:"reason"` // one word, stable
	Message string         `json:"message,omitempty"`
	Since   time.Time      `json:"since"` // of Status, not of Message
}

// ConditionValue is True, False or Unknown.
type ConditionValue string

// The values of a condition.
const (
	True    ConditionValue = "True"
	False   ConditionValue = "False"
	Unknown ConditionValue = "Unknown"
)

// The types of conditions.
const (
	ConditionDegraded = "Degraded"     // the machine does not hold what it should, or not the newest form of it
	ConditionInSync   = "InSync"       // looked at after the last change: every Diff was empty; never while degraded
	ConditionChecks   = "ChecksPassed" // of the live revision: as it was looked at while it was pending
	ConditionSetFiles = "SetFilesRead" // every watched set file was good when last read; SetCondition's
	// ConditionConntrack: flows run out of room, or are about to; SetCondition's.
	ConditionConntrack = "ConntrackPressure"
	// ConditionTunnels: probes through tunnels are not answered, or names of endpoints do not resolve; SetCondition's.
	ConditionTunnels = "TunnelsDegraded"
	// ConditionWorkloads: no workload is refused. One whose interface is not there yet is not.
	ConditionWorkloads = "WorkloadsAccepted"
	// ConditionInterfaces: the interfaces of the file are there. Not there while that is so.
	ConditionInterfaces = "InterfacesPresent"
	// ConditionStateDir: the files of the state directory could be written, and be read as they were written; SetCondition's. Not there
	// while that is so.
	ConditionStateDir = "StateDirectorySound"
	// ConditionStateFormat: no newer version left state behind that this one cannot read; SetCondition's. Not there while that is so.
	ConditionStateFormat = "StateFormatCurrent"
	// ConditionCharon: strongSwan's daemon serves the tunnels of keying ike; SetCondition's. Not there without such tunnels.
	ConditionCharon = "CharonAnswers"
	// ConditionBFD: the process that holds the BFD sessions runs; SetCondition's. Not there while that is so, or none are wanted.
	ConditionBFD = "BFDRuns"
	// ConditionFlowSpec: no FlowSpec rule or blackhole that a neighbor may ask for is refused; SetCondition's. Not there while that is so.
	ConditionFlowSpec = "FlowSpecAccepted"
	// ConditionMaintenance: no revision stands, nothing is forwarded, and the daemon waits for an apply; SetCondition's. Not there else.
	ConditionMaintenance = "Maintenance"
)

// report is the part of Status that operations write, with Engine.mu held.
type report struct {
	conditions []Condition
	appliedAt  time.Time
	lastErr    error
	lastErrAt  time.Time
	mended     *Mended // since the last apply
	repaired   string
	repairedAt time.Time
}

func (r *report) condition(now time.Time, kind string, v ConditionValue, reason, message string) {
	fresh := Condition{Type: kind, Status: v, Reason: reason, Message: message, Since: now}
	i, found := slices.BinarySearchFunc(r.conditions, kind, func(c Condition, k string) int { return strings.Compare(c.Type, k) })
	if !found {
		r.conditions = slices.Insert(r.conditions, i, fresh)
		return
	}
	if r.conditions[i].Status == v {
		fresh.Since = r.conditions[i].Since
	}
	r.conditions[i] = fresh
}

// leftOut tells what of the file and of the runtime objects the machine does without.
func (e *Engine) leftOut(d *compile.Desired) {
	var refused []string
	for _, one := range d.Refused {
		refused = append(refused, one.String())
	}
	for _, one := range d.Missing {
		if !slices.Contains(e.missing, one) {
			e.log.Warn("everything goes on without an interface of the file, until it is there", "missing", one)
		}
	}
	e.missing = d.Missing
	e.set(func() {
		e.report.unless(e.clock.Now(), ConditionWorkloads, "Refused", refused)
		e.report.unless(e.clock.Now(), ConditionInterfaces, "Missing", d.Missing)
	})
}

// unless has a condition that is there only while it does not hold.
func (r *report) unless(now time.Time, kind, reason string, why []string) {
	if len(why) == 0 {
		r.forget(kind)
		return
	}
	r.condition(now, kind, False, reason, strings.Join(why, "; and "))
}

func (r *report) forget(kind string) {
	r.conditions = slices.DeleteFunc(r.conditions, func(c Condition) bool { return c.Type == kind })
}

// SetCondition puts a condition into Status that others than the engine judge. An empty value takes it out.
func (e *Engine) SetCondition(kind string, v ConditionValue, reason, message string) {
	e.set(func() {
		if v == "" {
			e.report.forget(kind)
			return
		}
		e.report.condition(e.clock.Now(), kind, v, reason, message)
	})
}

// failed keeps an error for Status.
func (e *Engine) failed(err error) {
	e.set(func() { e.report.lastErr, e.report.lastErrAt = err, e.clock.Now() })
}

// degraded says that the machine does not hold what it should, and arranges the next try.
func (e *Engine) degraded(reason string, errs ...error) {
	var text []string
	for _, err := range errs {
		text = append(text, err.Error())
	}
	message := strings.Join(text, "; and ")
	e.log.Error("degraded", "reason", reason, "error", message)
	e.notify(NoticeDegraded, e.current.number, message)
	e.failed(errors.Join(errs...))
	e.set(func() {
		e.report.condition(e.clock.Now(), ConditionDegraded, True, reason, message)
		e.report.condition(e.clock.Now(), ConditionInSync, False, ConditionDegraded, "")
		e.retryWait = min(max(2*e.retryWait, e.opts.Timing.RetryMin), e.opts.Timing.RetryMax)
		e.retryAt = e.clock.Boot() + e.retryWait
	})
}

// healthy follows a success: it looks once more whether anything is left to do, and says so rather than looping. It looks at
// the subsystems that the steps before it may have touched.
func (e *Engine) healthy(ctx context.Context, touched []Subsystem) {
	defer e.timed("verify")()
	value, reason, message := True, "Verified", ""
	d := e.current.desired
	if e.down {
		d = e.remains
	}
	e.leftOut(d)
	diffs, failed := differences(context.WithoutCancel(ctx), touched, d)
	if err := cmp.Or(failed...); err != nil {
		value, reason, message = Unknown, "ObserveFailed", err.Error()
	}
	var drift []string
	for _, x := range diffs {
		if len(x.ops) > 0 {
			drift = append(drift, fmt.Sprintf("%s: %s left, the first: %s", x.sub.Name(), plural.Of(len(x.ops), "step", "steps"), x.ops[0]))
		}
	}
	if len(drift) > 0 {
		value, reason, message = False, "Drift", strings.Join(drift, "; ")
		e.log.Warn("the machine differs from its revision right after applying it", "drift", message)
	}
	healed := false
	if e.stale && value == True {
		value, reason = False, ConditionDegraded
	}
	e.set(func() {
		e.report.condition(e.clock.Now(), ConditionInSync, value, reason, message)
		if e.stale {
			return // still to be compiled with the facts of now
		}
		healed = !e.down && e.report.is(ConditionDegraded)
		e.report.condition(e.clock.Now(), ConditionDegraded, False, "Applied", "")
		e.retryAt, e.retryWait, e.lost = 0, 0, nil
	})
	if healed {
		e.notify(NoticeHealthy, e.current.number, "")
	}
}

// Status never waits for an operation that runs. It reads FILE, to tell whether it differs.
func (e *Engine) Status() Status {
	e.mu.Lock()
	r, t := e.report, e.current
	s := Status{
		Revision: t.number, AppliedAt: r.appliedAt, Down: e.down, LastErrorAt: r.lastErrAt, Repaired: r.repaired, RepairedAt: r.repairedAt,
		Conditions: slices.Clone(r.conditions), Pending: e.pendingStatus(),
	}
	s.Applied = t.number != 0 && !e.down && !e.goingBack && t.desired != nil && !r.is(ConditionDegraded)
	if t.desired != nil {
		s.Warnings = slices.Clone(t.desired.Warnings)
	}
	if r.lastErr != nil {
		s.LastError = r.lastErr.Error()
	}
	e.mu.Unlock()
	s.File, s.FileDiffers, s.SetFiles = e.file(t)
	return s
}

func (r *report) is(kind string) bool {
	return slices.ContainsFunc(r.conditions, func(c Condition) bool { return c.Type == kind && c.Status == True })
}

// Pending is the revision that is not confirmed yet; nil: there is none. It reads nothing from the disk.
func (e *Engine) Pending() *PendingStatus {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.pendingStatus()
}

// pendingStatus is called by the operation that runs, or with mu held.
func (e *Engine) pendingStatus() *PendingStatus {
	w := e.watch
	if w == nil {
		return nil
	}
	return &PendingStatus{
		Revision: w.Revision, Base: w.Base, Remaining: e.left(w).Seconds(), Confirm: w.Confirm, Failing: slices.Clone(w.failures),
	}
}

// file compares FILE and the set files of a target with it. One that cannot be read differs.
func (e *Engine) file(t *target) (name string, differs bool, sets []string) {
	if e.opts.Source == nil {
		return "", false, nil
	}
	src, err := e.opts.Source()
	if err != nil {
		return src.Name, t.number != 0, nil
	}
	// FILE's bytes name the set files, so equal bytes name the same ones; of others nothing is said.
	differs = !bytes.Equal(src.Bytes, t.content.Bytes)
	for _, f := range t.content.Files {
		if differs {
			break
		}
		if data, err := src.ReadFile(f.Path); err != nil || !bytes.Equal(data, f.Contents) {
			sets = append(sets, f.Path)
		}
	}
	return src.Name, differs || len(sets) > 0, sets
}

// History returns all revisions, the oldest first.
func (e *Engine) History() []Meta {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.revisions)
}

// Current returns the live revision: its number, its content, and what it was compiled to (nil: it does not compile).
// Number 0 is no revision. None of it may be changed.
func (e *Engine) Current() (int, Candidate, *compile.Desired) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.current.number, e.current.content, e.current.desired
}
