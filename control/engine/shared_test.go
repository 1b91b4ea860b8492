package engine

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// setFile is the stored set file of a revision.
func (s *site) setFile(n int) (path string, info os.FileInfo) {
	s.t.Helper()
	path = filepath.Join(s.dir, "revisions", strconv.Itoa(n), "set-001-large.set")
	info, err := os.Stat(path)
	if err != nil {
		s.t.Fatal(err)
	}
	return path, info
}

// large is a set file that is worth sharing; text makes it differ from others.
func large(text string) string { return text + strings.Repeat("\n", minShared) }

func withLarge(t *testing.T) (*site, *Engine) {
	t.Helper()
	s := newSite(t)
	s.sets["large.set"] = large("xdp.a=1")
	s.file = "host.a=1\nfile large.set"
	return s, s.start()
}

func TestRevisionsShareALargeSetFileThatDidNotChange(t *testing.T) {
	s, e := withLarge(t)
	s.apply(e, s.file+"\nhost.b=1", ApplyOptions{})
	_, first := s.setFile(1)
	if _, second := s.setFile(2); !os.SameFile(first, second) {
		t.Error("two files with the same contents")
	}
	s.sets["large.set"] = large("xdp.a=2")
	s.apply(e, s.file+"\nhost.b=1", ApplyOptions{})
	if _, third := s.setFile(3); os.SameFile(first, third) {
		t.Error("one file with two contents")
	}
	s.live(s.start(), 3, 0)
	if _, err := e.Rollback(t.Context(), 2, ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	s.holds("host.a=1\nxdp.a=1\nhost.b=1")
}

func TestADamagedFileIsNotShared(t *testing.T) {
	s, e := withLarge(t)
	path, _ := s.setFile(1)
	if err := os.WriteFile(path, []byte(large("xdp.a=7")), 0o600); err != nil {
		t.Fatal(err)
	}
	s.apply(e, s.file+"\nhost.b=1", ApplyOptions{})
	e = s.start()
	s.live(e, 2, 0)
	s.holds("host.a=1\nxdp.a=1\nhost.b=1")
}

func TestAFailureToShareAFileFailsTheApplyOrCopies(t *testing.T) {
	for op, want := range map[string]int{"link": 1, "none": 2} {
		s, _ := withLarge(t)
		s.disk.before = func(o, path string) error {
			if o == op {
				return os.ErrPermission
			}
			return nil
		}
		e := s.start()
		_, err := e.Apply(t.Context(), s.candidate(s.file+"\nhost.b=1"), ApplyOptions{})
		if (err == nil) != (want == 2) {
			t.Errorf("%s fails: %v", op, err)
		}
		s.live(s.start(), want, 0)
	}
}

func TestRevisionsOfTheFormerSchemaAreRead(t *testing.T) {
	s, e := withLarge(t)
	c, m, err := e.Stored(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	m.Schema, m.Digest = 1, formerDigest(c.Bytes, c.Files)
	b, err := encode(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.dir, "revisions", "1", "meta.json"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	e = s.start()
	s.live(e, 1, 0)
	r, err := e.Apply(t.Context(), s.candidate(s.file), ApplyOptions{})
	if err != nil || !r.Unchanged {
		t.Errorf("the same file again: %+v, %v", r, err)
	}
}
