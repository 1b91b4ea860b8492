package slots

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"sluice/control/api"
	"sluice/control/engine"
)

// Daemon is what the gate asks.
type Daemon interface {
	Status(ctx context.Context) (api.Status, error)
	Neighbors(ctx context.Context) ([]api.Neighbor, error)
	// Check asks apply.checks of the live revision, and for these neighbors.
	Check(ctx context.Context, r api.CheckRequest) (api.Checked, error)
}

// ErrUnhealthy: the update did not pass; the unit's failure reboots, and the boot loader counts.
var ErrUnhealthy = errors.New("the update did not pass its health gate")

const (
	recordFile = "before.json"
	gateEvery  = time.Second
)

// blamed are all conditions: those that an update can break, with the value that is bad, and "" for those that it is not to blame for.
var blamed = map[string]engine.ConditionValue{
	engine.ConditionDegraded: engine.True, engine.ConditionInSync: engine.False, engine.ConditionInterfaces: engine.False,
	engine.ConditionTunnels: engine.True, engine.ConditionCharon: engine.False, engine.ConditionWorkloads: engine.False,
	engine.ConditionBFD: engine.False, engine.ConditionMaintenance: engine.True,

	engine.ConditionChecks:      "", // of the time when the revision was pending; the gate asks the checks itself
	engine.ConditionSetFiles:    "", // whoever writes a watched set writes a bad one at any time; what was good goes on
	engine.ConditionConntrack:   "", // traffic
	engine.ConditionFlowSpec:    "", // what neighbors announce
	engine.ConditionStateDir:    "", // the disk
	engine.ConditionStateFormat: "", // what a roll-back finds, and is told of
}

func badConditions(s api.EngineStatus) (out []engine.Condition) {
	for _, c := range s.Conditions {
		if c.Status == blamed[c.Type] {
			out = append(out, c)
		}
	}
	return out
}

// Record notes what an update must not lose. During a try it does nothing: what the new version lost must not become the measure of
// its next try.
func (m *Machine) Record(ctx context.Context, d Daemon) error {
	if trial, err := m.Counted(); err != nil || trial {
		return err
	}
	s, err := d.Status(ctx)
	if err != nil {
		return err
	}
	neighbors, err := d.Neighbors(ctx)
	if err != nil {
		return err
	}
	b := before{Schema: noteSchema, Version: m.version, At: time.Now(), Revision: s.Engine.Revision, Established: []string{}, Bad: []string{}}
	for _, n := range neighbors {
		if n.State == "established" {
			b.Established = append(b.Established, n.Name)
		}
	}
	for _, c := range badConditions(s.Engine) {
		b.Bad = append(b.Bad, c.Type)
	}
	return m.notes.write(recordFile, b)
}

// Gate judges a try: it looks until all is well, or until within has passed. ErrUnhealthy: a reboot is due, to the next try or to the
// other slot. Where no try is left and nothing else would start, it passes with a warning: a reboot would only lose time.
func (m *Machine) Gate(ctx context.Context, d Daemon, within time.Duration, log *slog.Logger) error {
	trial, err := m.Counted()
	if err != nil {
		return err
	}
	if !trial {
		log.Info("this boot is no try: nothing is to be judged", "version", m.version)
		return nil
	}
	var b before
	known, err := m.notes.read(recordFile, &b)
	if err != nil || !known {
		log.Warn("what worked before the update is not known: neighbors are not asked for", "error", err)
	}
	why := m.settle(ctx, d, b, within, log)
	l, err := m.look()
	if err != nil {
		return err
	}
	r, _ := l.running()
	if !r.Counted {
		log.Info("promoted by hand meanwhile", "version", m.version, "not well", why)
		return nil
	}
	v := verdict{Schema: noteSchema, Version: m.version, At: time.Now(), Passed: len(why) == 0, Why: why, Left: r.Left}
	if err := m.notes.write(m.notes.verdictFile(m.version), v); err != nil {
		log.Warn("why is not on the disk", "error", err) // a full disk is no fault of the update
	}
	if v.Passed {
		log.Info("the update passed its health gate", "version", m.version)
		return m.Keep()
	}
	log.Error("the update did not pass its health gate", "version", m.version, "why", why, "tries left", r.Left)
	next, _ := l.next()
	if r.Left == 0 && next == r.Name {
		log.Error("no tries are left, and there is no other version that would start: this one stays", "version", m.version)
		return nil
	}
	return fmt.Errorf("%w: %s", ErrUnhealthy, why[0])
}

// settle looks again and again; it returns what is wrong in the end.
func (m *Machine) settle(ctx context.Context, d Daemon, b before, within time.Duration, log *slog.Logger) []string {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	var why []string
	for {
		now := examine(ctx, d, b)
		if len(now) == 0 {
			return nil
		}
		if ctx.Err() == nil || why == nil { // a look that was cut off says less than the one before
			if !slices.Equal(why, now) {
				log.Info("not well yet", "why", now)
			}
			why = now
		}
		select {
		case <-ctx.Done():
			return why
		case <-time.After(gateEvery):
		}
	}
}

// examine says what is wrong now.
func examine(ctx context.Context, d Daemon, b before) (why []string) {
	s, err := d.Status(ctx)
	if err != nil {
		return []string{"the daemon: " + err.Error()}
	}
	e := s.Engine
	switch {
	case e.Pending != nil:
		why = append(why, fmt.Sprintf("revision %d is not decided", e.Pending.Revision))
	case e.Revision == 0 && b.Revision != 0:
		why = append(why, fmt.Sprintf("no configuration is applied, and before it was revision %d%s", b.Revision, because(e.LastError)))
	case e.Revision != 0 && !e.Applied:
		why = append(why, fmt.Sprintf("revision %d is not applied%s", e.Revision, because(e.LastError)))
	}
	for _, c := range badConditions(e) {
		if slices.Contains(b.Bad, c.Type) {
			continue
		}
		text := fmt.Sprintf("%s is %s", c.Type, c.Status)
		if c.Message != e.LastError || e.Applied { // else it was told above
			text += because(c.Message)
		}
		why = append(why, text)
	}
	checked, err := d.Check(ctx, api.CheckRequest{Established: b.Established})
	if err != nil {
		return append(why, "the checks: "+err.Error())
	}
	for _, f := range checked.Failing {
		why = append(why, f.Check+": "+f.Message)
	}
	return why
}

func because(text string) string {
	if text == "" {
		return ""
	}
	return " (" + text + ")"
}
