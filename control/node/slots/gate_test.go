package slots

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/control/api"
	"sluice/control/engine"
)

// daemon answers as it is told to; each look takes the next answer, and the last one stays.
type daemon struct {
	states    []api.Status
	looks     int
	neighbors []api.Neighbor
	failing   []engine.Failure
	down      error
	checked   [][]string
}

func (d *daemon) Status(context.Context) (api.Status, error) {
	s := d.states[min(d.looks, len(d.states)-1)]
	d.looks++
	return s, d.down
}

func (d *daemon) Neighbors(context.Context) ([]api.Neighbor, error) { return d.neighbors, d.down }

func (d *daemon) Check(_ context.Context, r api.CheckRequest) (api.Checked, error) {
	d.checked = append(d.checked, r.Established)
	return api.Checked{Failing: d.failing}, d.down
}

func applied(revision int, conditions ...engine.Condition) api.Status {
	return api.Status{Engine: engine.Status{Revision: revision, Applied: true, Conditions: conditions}}
}

var silent = slog.New(slog.DiscardHandler)

// tried is 1.2 in its first try, which knows what 1.1 had.
func tried(t *testing.T, before *daemon) *node {
	t.Helper()
	n := newNode(t, "1.1", "sluice_1.1.efi", "sluice_1.2+3.efi")
	if before != nil {
		if err := n.Record(t.Context(), before); err != nil {
			t.Fatal(err)
		}
	}
	n.try(t, "sluice_1.2+3.efi")
	return n
}

func up(names ...string) (out []api.Neighbor) {
	for _, name := range names {
		out = append(out, api.Neighbor{Name: name, State: "established"})
	}
	return out
}

func TestTheGateWaitsUntilAllIsWell(t *testing.T) {
	before := &daemon{states: []api.Status{applied(7)}, neighbors: append(up("tor-a", "tor-b"), api.Neighbor{Name: "tor-c", State: "active"})}
	n := tried(t, before)
	now := &daemon{states: []api.Status{{}, applied(7)}}
	if err := n.Gate(t.Context(), now, time.Hour, silent); err != nil {
		t.Fatal(err)
	}
	if now.looks != 2 || !slices.Equal(now.checked[0], []string{"tor-a", "tor-b"}) {
		t.Errorf("%d looks, asked for %q", now.looks, now.checked)
	}
	// It renames nothing: systemd-bless-boot does.
	if got, want := n.files(t), []string{"sluice_1.1.efi", "sluice_1.2+2-1.efi"}; !slices.Equal(got, want) {
		t.Errorf("there are %q, want %q", got, want)
	}
}

func TestWhatTheGateFailsFor(t *testing.T) {
	bad := func(kind string, v engine.ConditionValue) engine.Condition {
		return engine.Condition{Type: kind, Status: v, Reason: "R", Message: "the text"}
	}
	healthy := &daemon{states: []api.Status{applied(7)}, neighbors: up("tor-a")}
	for _, c := range []struct {
		name   string
		before *daemon
		now    daemon
		want   string // "": it passes
	}{
		{"no daemon", healthy, daemon{states: []api.Status{{}}, down: api.ErrUnreachable}, "could not reach the daemon"},
		{"no configuration", healthy, daemon{states: []api.Status{{Engine: engine.Status{LastError: "boo"}}}}, "no configuration is applied, and before it was revision 7 (boo)"},
		{"none before either", &daemon{states: []api.Status{{}}}, daemon{states: []api.Status{{}}}, ""},
		{"not applied", healthy, daemon{states: []api.Status{{Engine: engine.Status{Revision: 7}}}}, "revision 7 is not applied"},
		{"not decided", healthy, daemon{states: []api.Status{{Engine: engine.Status{Revision: 8, Applied: true, Pending: &engine.PendingStatus{Revision: 8}}}}}, "revision 8 is not decided"},
		{"degraded", healthy, daemon{states: []api.Status{applied(7, bad(engine.ConditionDegraded, engine.True))}}, "Degraded is True (the text)"},
		{"a NIC that the new kernel has no driver for", healthy, daemon{states: []api.Status{applied(7, bad(engine.ConditionInterfaces, engine.False))}}, "InterfacesPresent is False (the text)"},
		{"what was bad before", &daemon{states: []api.Status{applied(7, bad(engine.ConditionTunnels, engine.True))}},
			daemon{states: []api.Status{applied(7, bad(engine.ConditionTunnels, engine.True))}}, ""},
		{"what no update is to blame for", healthy, daemon{states: []api.Status{applied(7, bad(engine.ConditionStateDir, engine.False), bad(engine.ConditionConntrack, engine.True))}}, ""},
		{"BFD that does not run any more", healthy, daemon{states: []api.Status{applied(7, bad(engine.ConditionBFD, engine.False))}}, "BFDRuns is False (the text)"},
		{"a neighbor", healthy, daemon{states: []api.Status{applied(7)}, failing: []engine.Failure{{Check: "neighbors: keep", Message: "tor-a was up and is active"}}}, "tor-a was up and is active"},
		{"nothing known of before", nil, daemon{states: []api.Status{applied(7)}}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := tried(t, c.before)
			err := n.Gate(t.Context(), &c.now, time.Millisecond, silent)
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, ErrUnhealthy) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			// Whoever asks after the roll-back is told why.
			n.boot(t, "1.1")
			if s, err := n.Status(); err != nil || !strings.Contains(s.Slots[0].Why, c.want) {
				t.Errorf("%+v %v", s, err)
			}
		})
	}
}

// What the revision is not applied for is what the gateway is degraded for.
func TestTheGateSaysWhyOnce(t *testing.T) {
	d := &daemon{states: []api.Status{{Engine: engine.Status{Revision: 7, LastError: "line 12 is bad", Conditions: []engine.Condition{
		{Type: engine.ConditionDegraded, Status: engine.True, Message: "line 12 is bad"}, {Type: engine.ConditionBFD, Status: engine.False, Message: "exit 2"}}}}}}
	want := []string{"revision 7 is not applied (line 12 is bad)", "Degraded is True", "BFDRuns is False (exit 2)"}
	if got := examine(t.Context(), d, before{}); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func TestEveryConditionIsDecidedAbout(t *testing.T) {
	source, err := os.ReadFile("../../engine/status.go")
	if err != nil {
		t.Fatal(err)
	}
	conditions := regexp.MustCompile(`(?m)^\tCondition\w+ += "(\w+)"`).FindAllStringSubmatch(string(source), -1)
	if len(conditions) != len(blamed) {
		t.Errorf("%d are there, %d are decided: %q", len(conditions), len(blamed), conditions)
	}
	for _, c := range conditions {
		if _, ok := blamed[c[1]]; !ok {
			t.Errorf("is an update to blame for %s?", c[1])
		}
	}
}

// Between a try and its end nothing is recorded: the next try would be measured by what this one lost.
func TestATryDoesNotBecomeTheMeasure(t *testing.T) {
	n := tried(t, &daemon{states: []api.Status{applied(7)}, neighbors: up("tor-a")})
	if err := n.Record(t.Context(), &daemon{states: []api.Status{{}}}); err != nil {
		t.Fatal(err)
	}
	now := &daemon{states: []api.Status{applied(7)}}
	if err := n.Gate(t.Context(), now, time.Hour, silent); err != nil || !slices.Equal(now.checked[0], []string{"tor-a"}) {
		t.Errorf("asked for %q, %v", now.checked, err)
	}
}

// A reboot has to lead somewhere.
func TestTheLastVersionThatIsLeftStays(t *testing.T) {
	sick := func() *daemon { return &daemon{states: []api.Status{{}}, down: api.ErrUnreachable} }
	n := newNode(t, "1.2", "sluice_1.2+1-2.efi")
	n.try(t, "sluice_1.2+1-2.efi")
	if err := n.Gate(t.Context(), sick(), time.Millisecond, silent); err != nil {
		t.Error("alone, in the last try:", err)
	}
	n = newNode(t, "1.2", "sluice_1.2+1-2.efi", "sluice_1.1.efi")
	n.try(t, "sluice_1.2+1-2.efi")
	if err := n.Gate(t.Context(), sick(), time.Millisecond, silent); !errors.Is(err, ErrUnhealthy) {
		t.Error("with another one to go to:", err)
	}
	n = newNode(t, "1.2", "sluice_1.2+0-3.efi", "sluice_1.1+0-3.efi")
	n.try(t, "sluice_1.2+0-3.efi")
	if err := n.Gate(t.Context(), sick(), time.Millisecond, silent); err != nil {
		t.Error("both failed:", err)
	}
}

func TestABlessedBootIsNotJudged(t *testing.T) {
	n := standing(t)
	if err := n.Gate(t.Context(), &daemon{down: api.ErrUnreachable, states: []api.Status{{}}}, time.Millisecond, silent); err != nil {
		t.Error(err)
	}
	// Blessed by hand in this boot: the variable is still there.
	n = tried(t, nil)
	if _, err := n.Promote(); err != nil {
		t.Fatal(err)
	}
	if err := n.Gate(t.Context(), &daemon{down: api.ErrUnreachable, states: []api.Status{{}}}, time.Millisecond, silent); err != nil {
		t.Error(err)
	}
}

// A note of a newer version is as good as none, and stays as it is.
func TestNotesOfANewerVersion(t *testing.T) {
	n := newNode(t, "1.1", "sluice_1.1.efi", "sluice_1.2+0-3.efi")
	if err := os.MkdirAll(n.opts.Notes, 0o700); err != nil {
		t.Fatal(err)
	}
	newer := []byte(`{"schema": 99, "why": {"not": "a list"}}`)
	path := filepath.Join(n.opts.Notes, "gate-1.2.json")
	n.write(t, path, newer)
	if s, err := n.Status(); err != nil || !strings.Contains(s.Slots[1].Why, "left no word") {
		t.Errorf("%+v %v", s, err)
	}
	if data, err := os.ReadFile(path); err != nil || !bytes.Equal(data, newer) {
		t.Errorf("%s %v", data, err)
	}
}
