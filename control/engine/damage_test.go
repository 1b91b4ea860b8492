package engine

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What was confirmed closes the machine; that its revision cannot be read any more is no reason to open it.
func TestWhenEveryRevisionIsDamagedTheMachineIsLeftAsItIs(t *testing.T) {
	for _, file := range []string{"meta.json", "manifest.json", "config.yaml"} {
		t.Run(file, func(t *testing.T) {
			s, e := running(t, confA)
			s.file = ""
			// A reverted revision beside it must not make the books look as if there had never been a confirmed one.
			s.m.before = func(string, fakeOp) error { s.m.before = nil; return errors.New("no") }
			if _, err := e.Apply(t.Context(), s.candidate(confB), ApplyOptions{}); err == nil {
				t.Fatal("the apply should fail")
			}
			if err := os.WriteFile(filepath.Join(s.dir, "revisions", "1", file), []byte("{"), 0o600); err != nil {
				t.Fatal(err)
			}
			for range 2 { // the second start finds what the first set aside
				e = s.engine()
				if err := e.Start(t.Context()); !errors.Is(err, ErrDegraded) {
					t.Fatalf("start: %v", err)
				}
				s.holds(confA)
				if c := s.condition(e, ConditionDegraded, True); c.Reason != "Damaged" || e.Status().Applied {
					t.Errorf("condition %+v", c)
				}
			}
			if err := e.Reconcile(t.Context(), Drift); err != nil {
				t.Errorf("reconcile: %v", err)
			}
			s.holds(confA)
			s.apply(e, confC, ApplyOptions{})
			s.condition(e, ConditionDegraded, False)
			s.holds(confC)
			s.live(s.start(), 3, 0)
		})
	}
}

func TestADamagedRevisionIsTold(t *testing.T) {
	s, e := running(t, confA)
	s.apply(e, confB, ApplyOptions{})
	if err := os.WriteFile(filepath.Join(s.dir, "revisions", "2", "config.yaml"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	e = s.start()
	s.holds(confA)
	if got := e.Status().LastError; !strings.Contains(got, "revision 2: config.yaml") {
		t.Errorf("last error %q", got)
	}
}

// With ids that no compilation gave, no revision would compile any more.
func TestRuleIDsThatCannotBeAreForgotten(t *testing.T) {
	for _, ids := range []string{
		`{"schema": 1, "current": {"ingress/web": 4000000000}}`, `{"schema": 1, "current": {"ingress/web": 0}}`,
		`{"schema": 1, "current": {"ingress/a": 7, "ingress/b": 7}}`,
		`{"schema": 1, "current": {"ingress/a": 7}, "retired": [{"name": "ingress/b", "id": 7}]}`,
	} {
		s, _ := running(t, confA)
		if err := os.WriteFile(filepath.Join(s.dir, ruleIDFile), []byte(ids), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := s.engine().store.loadRuleIDs(); err != nil || len(got.Current) != 0 {
			t.Errorf("%s: %v, %v", ids, got, err)
		}
	}
}

func TestWhatOthersPutAmongTheRevisionsIsLeftAlone(t *testing.T) {
	s, _ := running(t, confA)
	revisions := filepath.Join(s.dir, "revisions")
	for _, name := range []string{"007", "0", "-3", "notes", "torn-9/x", "9/x"} {
		if err := os.MkdirAll(filepath.Join(revisions, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(revisions, "55"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	e := s.start()
	for _, name := range []string{"007", "0", "-3", "notes", "torn-9", "55"} {
		if _, err := os.Stat(filepath.Join(revisions, name)); err != nil {
			t.Error(err)
		}
	}
	s.live(e, 1, 0)
	if r := s.apply(e, confB, ApplyOptions{}); r.Revision != 10 {
		t.Errorf("revision %d after torn-9", r.Revision)
	}
}

func TestAStepErrorNamesItsStepOnce(t *testing.T) {
	step := Step{Subsystem: "bgp", Op: "start speaker"}
	for _, said := range []string{"port in use", "start speaker: port in use", "bgp: start speaker: port in use"} {
		err := &StepError{Step: step, N: 1, Of: 2, Err: errors.New(said)}
		if got := err.Error(); got != "step 1 of 2, bgp: start speaker: port in use" {
			t.Errorf("%s: %s", said, got)
		}
	}
}

func TestAnEmptyPlanIsAListInJSON(t *testing.T) {
	s, e := running(t, confA)
	p, err := e.Plan(t.Context(), s.candidate(confA))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := json.Marshal(p); err != nil || !strings.Contains(string(b), `"steps":[]`) {
		t.Errorf("%s, %v", b, err)
	}
}
