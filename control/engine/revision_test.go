package engine

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/control/config"
)

func TestApplyingTwiceChangesNothing(t *testing.T) {
	s, e := running(t, confA)
	s.apply(e, confB, ApplyOptions{})
	s.m.take()
	books := tree(t, s.dir)
	r := s.apply(e, confB, ApplyOptions{Confirm: minute})
	if !r.Unchanged || r.Revision != 2 || r.Pending != nil || len(r.Plan.Steps) != 0 {
		t.Errorf("result %+v", r)
	}
	if ops := s.m.take(); ops != nil {
		t.Errorf("did %q", ops)
	}
	if tree(t, s.dir) != books {
		t.Error("the state directory changed")
	}
}

func TestTheSameFileOnADriftedMachineIsARevisionThatRepairs(t *testing.T) {
	s, e := running(t, confA)
	s.m.state["xdp"]["gen"] = "99"
	if r := s.apply(e, confA, ApplyOptions{}); r.Unchanged || r.Revision != 2 || len(r.Plan.Steps) != 1 {
		t.Errorf("result %+v", r)
	}
	s.holds(confA)
}

func TestANewCommentIsARevisionWithoutSteps(t *testing.T) {
	s, e := running(t, confA)
	if r := s.apply(e, confA+"\n# why", ApplyOptions{}); r.Unchanged || r.Revision != 2 || len(r.Plan.Steps) != 0 {
		t.Errorf("result %+v", r)
	}
}

func TestAnEditedFileThatWasNeverAppliedChangesNothing(t *testing.T) {
	for _, edit := range []string{confB, "this does not parse", ""} {
		s, e := running(t, confA)
		if st := e.Status(); st.File != "sluice.yaml" || st.FileDiffers {
			t.Errorf("status %+v", st)
		}
		s.file = edit
		e = s.start()
		s.holds(confA)
		s.live(e, 1, 0)
		s.clock.reboot()
		s.m.state = map[string]map[string]string{}
		e = s.start()
		s.holds(confA)
		s.live(e, 1, 0)
		if st := e.Status(); !st.FileDiffers || st.Revision != 1 {
			t.Errorf("with the file %q: status %+v", edit, st)
		}
	}
}

func TestARollbackOfARollback(t *testing.T) {
	s, e := running(t, confA)
	s.apply(e, confB, ApplyOptions{Message: "to b"})
	for _, step := range []struct {
		to   int
		text string
	}{{1, confA}, {3, ""}, {2, confB}, {4, ""}, {3, confA}} {
		n := len(e.History())
		r, err := e.Rollback(t.Context(), step.to, ApplyOptions{Author: "root"})
		if err != nil {
			t.Fatal(err)
		}
		if step.text == "" {
			if !r.Unchanged {
				t.Errorf("rollback to the live revision: %+v", r)
			}
			continue
		}
		if r.Revision != n+1 {
			t.Errorf("rollback made revision %d after %d", r.Revision, n)
		}
		s.holds(step.text)
	}
	want := "confirmed first start from sluice.yaml\nconfirmed to b\nconfirmed rollback to 1\nconfirmed rollback to 2\nconfirmed rollback to 3\n"
	if h := history(e); !strings.HasPrefix(h, want) {
		t.Errorf("history\n%s", h)
	}
	r, err := e.Rollback(t.Context(), 2, ApplyOptions{Confirm: minute})
	if err != nil || r.Pending == nil {
		t.Fatalf("%+v, %v", r, err)
	}
	s.holds(confB)
	s.clock.advance(minute)
	e.tick(t.Context())
	s.holds(confA)
	if _, err := e.Rollback(t.Context(), 99, ApplyOptions{}); !errors.Is(err, ErrNoRevision) {
		t.Errorf("rollback to 99: %v", err)
	}
}

func TestARevisionKeepsTheContentsOfItsSetFiles(t *testing.T) {
	s := newSite(t)
	s.sets["../lists/bogons set.txt"] = "xdp.b1=1\nxdp.b2=1"
	s.sets["other/bogons set.txt"] = "tc.o=1"
	s.file = "host.a=1\nfile ../lists/bogons set.txt\nfile other/bogons set.txt"
	first := s.file
	e := s.start()
	all := "host.a=1\nxdp.b1=1\nxdp.b2=1\ntc.o=1"
	s.holds(all)
	if e.Status().FileDiffers {
		t.Error("the file differs right after its apply")
	}
	s.sets["../lists/bogons set.txt"] = "xdp.b3=1"
	if st := e.Status(); !st.FileDiffers || fmt.Sprint(st.SetFiles) != "[../lists/bogons set.txt]" {
		t.Errorf("an edited set file does not differ: %+v", st)
	}
	p, err := e.Plan(t.Context(), s.candidate(s.file))
	if err != nil || fmt.Sprint(p.SetFiles) != "[../lists/bogons set.txt]" || p.Desired() == nil ||
		!strings.Contains(p.String(), "set file ../lists/bogons set.txt differs from revision 1\n") {
		t.Errorf("plan %s (%v)", p, err)
	}
	s.apply(e, s.file, ApplyOptions{})
	s.holds("host.a=1\nxdp.b3=1\ntc.o=1")
	if _, err := e.Rollback(t.Context(), 1, ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	s.holds(all)
	delete(s.sets, "../lists/bogons set.txt")
	s.clock.reboot()
	s.m.state = map[string]map[string]string{}
	e = s.start()
	s.holds(all)
	c, m, err := e.Stored(t.Context(), 1)
	if err != nil || string(c.Bytes) != first || len(c.Files) != 2 || m.Number != 1 {
		t.Errorf("revision 1: %+v, %+v, %v", c, m, err)
	}
	entries, err := os.ReadDir(filepath.Join(s.dir, "revisions", "1"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, x := range entries {
		names = append(names, x.Name())
	}
	want := "config.yaml manifest.json meta.json set-001-bogons_set.txt set-002-bogons_set.txt"
	if have := strings.Join(names, " "); have != want {
		t.Errorf("stored as %s, want %s", have, want)
	}
}

func TestDigestsKeepInputsApart(t *testing.T) {
	f := func(path, contents string) config.File { return config.File{Path: path, Contents: []byte(contents)} }
	of := func(data string, files ...config.File) string {
		sums, _ := Candidate{Bytes: []byte(data), Files: files}.sums(nothing())
		return digest(files, sums)
	}
	seen := map[string]int{}
	for i, d := range []string{
		of(""), of("a"), of("", f("a", "")), of("", f("", "a")),
		of("a", f("b", "c")), of("ab", f("", "c")), of("a", f("bc", "")), of("a", f("b", ""), f("c", "")), of("a", f("c", ""), f("b", "")),
	} {
		if j, ok := seen[d]; ok {
			t.Errorf("inputs %d and %d have one digest", j, i)
		}
		seen[d] = i
	}
}

func TestADamagedRevisionIsSetAsideAndTheOneBeforeIsTaken(t *testing.T) {
	damage := func(file, contents string) func(dir string) error {
		return func(dir string) error { return os.WriteFile(filepath.Join(dir, file), []byte(contents), 0o600) }
	}
	for _, c := range []struct {
		name  string
		spoil func(dir string) error
	}{
		{"empty metadata", damage("meta.json", "")},
		{"half of the metadata", damage("meta.json", `{"schema": 1, "number": 2, "sta`)},
		{"metadata of another revision", damage("meta.json", `{"schema": 1, "number": 7}`)},
		{"no metadata", func(dir string) error { return os.Remove(filepath.Join(dir, "meta.json")) }},
		{"half of the manifest", damage("manifest.json", `{"schema": 1,`)},
		{"other contents", damage("config.yaml", "host.evil=1")},
		{"no contents", func(dir string) error { return os.Remove(filepath.Join(dir, "config.yaml")) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, e := running(t, confA)
			s.apply(e, confB, ApplyOptions{})
			if err := c.spoil(filepath.Join(s.dir, "revisions", "2")); err != nil {
				t.Fatal(err)
			}
			e = s.start()
			s.holds(confA)
			if r := s.apply(e, confC, ApplyOptions{}); r.Revision != 3 {
				t.Errorf("the number of a damaged revision was used again: %+v", r)
			}
			s.live(s.start(), 3, 0)
		})
	}
}

func TestATornPendingStateGoesBack(t *testing.T) {
	s, e := running(t, confA)
	s.apply(e, confB, ApplyOptions{Confirm: minute})
	if err := os.WriteFile(filepath.Join(s.dir, pendingFile), []byte(`{"schema`), 0o600); err != nil {
		t.Fatal(err)
	}
	s.live(s.start(), 1, 0)
	s.holds(confA)
}

func TestLeftoversOfACrashAreRemoved(t *testing.T) {
	s, _ := running(t, confA)
	for _, path := range []string{"revisions/.2.new", "revisions/.9.new/x"} {
		if err := os.MkdirAll(filepath.Join(s.dir, path), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	e := s.start()
	s.survivors(e, []string{confA})
	s.apply(e, confB, ApplyOptions{})
	s.live(e, 2, 0)
}

func TestANewerSchemaIsRefusedAndNothingIsTouched(t *testing.T) {
	for _, file := range []string{"revisions/2/meta.json", pendingFile, ruleIDFile} {
		t.Run(file, func(t *testing.T) {
			s, e := running(t, confA)
			s.apply(e, confB, ApplyOptions{})
			for path, text := range map[string]string{file: `{"schema": 4, "number": {"new": "form"}}`, "revisions/.3.new": "x"} {
				if err := os.WriteFile(filepath.Join(s.dir, path), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			books := tree(t, s.dir)
			_, err := OpenStore(s.dir)
			want := filepath.Join(s.dir, file) + ": written by a newer sluice (schema 4, this one knows 3): " +
				"start that version again, or give this one another state_dir"
			if !errors.Is(err, ErrNewerSchema) || err.Error() != want {
				t.Errorf("opened: %v\nwant: %s", err, want)
			}
			if tree(t, s.dir) != books {
				t.Error("the state directory changed")
			}
		})
	}
}

func TestALockEndsWithUnlock(t *testing.T) {
	dir := t.TempDir()
	unlock, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(dir); !errors.Is(err, ErrLocked) {
		t.Errorf("locked twice: %v", err)
	}
	unlock()
	unlock, err = Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

func TestAConditionOfOthersComesAndGoes(t *testing.T) {
	s, e := running(t, confA)
	e.SetCondition(ConditionSetFiles, False, "Kept", "f:1")
	first := s.condition(e, ConditionSetFiles, False)
	s.clock.advance(minute)
	e.SetCondition(ConditionSetFiles, False, "Kept", "f:2")
	if c := s.condition(e, ConditionSetFiles, False); c.Message != "f:2" || !c.Since.Equal(first.Since) {
		t.Errorf("%+v, want it since %s", c, first.Since)
	}
	e.SetCondition(ConditionSetFiles, "", "", "")
	for _, c := range e.Status().Conditions {
		if c.Type == ConditionSetFiles {
			t.Errorf("still there: %+v", c)
		}
	}
}

func TestASumGoesOnFromContentsThatBeginAlike(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 54))
	random := func(n int) []byte {
		out := make([]byte, n)
		for i := range out {
			out[i] = byte(rng.Uint32())
		}
		return out
	}
	long := random(3*stateEvery + 100)
	former, states := long, hashStates(nil)
	for _, c := range []struct {
		name string
		data []byte
		kept int // states that hold
	}{
		{"nothing is known", long, 0},
		{"a line more", slices.Concat(long, []byte("more")), 3},
		{"the first byte is another", slices.Concat([]byte{long[0] + 1}, long[1:]), 0},
		{"back", long, 0},
		{"shorter by a part", long[:2*stateEvery], 2},
		{"another in the second part", slices.Concat(long[:stateEvery+5], random(2*stateEvery)), 1},
		{"nothing", nil, 0},
		{"just one part", random(stateEvery), 0},
	} {
		got, now := sumLike(c.data, former, states)
		kept := 0
		for kept < min(len(now), len(states)) && &now[kept][0] == &states[kept][0] {
			kept++
		}
		if got != sha256.Sum256(c.data) || kept != c.kept || len(now) != len(c.data)/stateEvery {
			t.Errorf("%s: sum %x, %d of %d states kept, want %x, %d", c.name, got, kept, len(now), sha256.Sum256(c.data), c.kept)
		}
		former, states = c.data, now
	}
}
