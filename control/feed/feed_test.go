package feed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// engine stands for who compiles: it takes everything but sets of more than limit prefixes.
type engine struct {
	t     *testing.T
	dir   string // of the watched files
	state string
	list  *List

	mu       sync.Mutex
	wanted   []string
	settled  bool
	limit    int
	compiled int
	live     map[string]string // by the file's name
	events   []string
	report   string
}

func newEngine(t *testing.T) *engine {
	e := &engine{t: t, dir: t.TempDir(), settled: true, limit: 5}
	e.state = filepath.Join(e.dir, "state")
	e.list = e.newList()
	return e
}

func (e *engine) newList() *List {
	return New(Options{
		Dir: e.state, Log: slog.New(slog.DiscardHandler), Changed: func() error { return e.compile() },
		Wanted: func() ([]string, bool) {
			e.mu.Lock()
			defer e.mu.Unlock()
			return e.wanted, e.settled
		},
		Notify: func(c Change) {
			text := fmt.Sprintf("%s %d +%d -%d", filepath.Base(c.Path), c.Prefixes, c.Added, c.Removed)
			if c.Wrong != nil {
				text = fmt.Sprintf("%s kept", filepath.Base(c.Path))
			}
			e.mu.Lock()
			defer e.mu.Unlock()
			e.events = append(e.events, text)
		},
		Report: func(p []Problem) {
			e.mu.Lock()
			defer e.mu.Unlock()
			if e.report = ""; p == nil {
				e.report = "nothing followed"
			}
			for _, one := range p {
				e.report += strings.ReplaceAll(one.Text, e.dir+"/", "") + "\n"
			}
		},
	})
}

// compile does as the daemon does.
func (e *engine) compile() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.compiled++
	take := func(contents map[string][]netip.Prefix) error {
		live := map[string]string{}
		for path, list := range contents {
			if len(list) > e.limit {
				return errors.New("over budget")
			}
			live[filepath.Base(path)] = strings.Trim(fmt.Sprint(list), "[]")
		}
		e.live = live
		return nil
	}
	s := e.list.Snapshot(e.wanted)
	err := take(s.Contents)
	if err == nil {
		s.Compiled()
		return nil
	}
	before, ok := s.Before()
	if !ok || take(before) != nil {
		return err
	}
	for _, path := range s.Fresh() {
		with := maps.Clone(before)
		with[path] = s.Contents[path]
		if bad := take(with); bad != nil {
			s.Refused(path, bad)
			continue
		}
		s.Compiled(path)
		before = with
	}
	return take(before)
}

func (e *engine) path(name string) string { return filepath.Join(e.dir, name) }

func (e *engine) write(name, contents string) {
	e.t.Helper()
	if err := os.WriteFile(e.path(name), []byte(contents), 0o600); err != nil {
		e.t.Fatal(err)
	}
}

// follow starts with the files that are live.
func (e *engine) follow(names ...string) (stop func()) {
	e.t.Helper()
	for _, n := range names {
		e.wanted = append(e.wanted, e.path(n))
	}
	return e.run()
}

func (e *engine) run() (stop func()) {
	if err := e.compile(); err != nil {
		e.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(e.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- e.list.Run(ctx) }()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			e.t.Error(err)
		}
	}
}

func (e *engine) state3() (live, report string, compiled int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strings.TrimPrefix(fmt.Sprint(e.live), "map"), e.report, e.compiled
}

// eventually waits until the live contents and the report are these.
func (e *engine) eventually(live, report string) {
	e.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		gotLive, gotReport, _ := e.state3()
		if gotLive == live && gotReport == report {
			return
		}
		if time.Now().After(deadline) {
			e.t.Fatalf("live is %q and the report %q, want %q and %q", gotLive, gotReport, live, report)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// eventuallyTold waits until the list has told of these changes: what is live is told of after it is.
func (e *engine) eventuallyTold(want string) {
	e.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		e.mu.Lock()
		got := fmt.Sprint(e.events)
		e.mu.Unlock()
		if got == want {
			return
		}
		if time.Now().After(deadline) {
			e.t.Fatalf("told of %s, want %s", got, want)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestAFileIsFollowedHoweverItIsReplaced(t *testing.T) {
	e := newEngine(t)
	e.write("f", "192.0.2.1\n")
	defer e.follow("f")()
	e.eventually("[f:192.0.2.1/32]", "")
	e.write("f", "192.0.2.2\n") // in place
	e.eventually("[f:192.0.2.2/32]", "")
	e.write("g", "192.0.2.3\n") // by a rename
	if err := os.Rename(e.path("g"), e.path("f")); err != nil {
		t.Fatal(err)
	}
	e.eventually("[f:192.0.2.3/32]", "")
	// By a link in the directory, as mounted ConfigMaps are.
	e.write("one", "192.0.2.4\n")
	e.write("two", "192.0.2.5\n")
	for _, target := range []string{"one", "two"} {
		if err := errors.Join(os.Symlink(target, e.path("new")), os.Rename(e.path("new"), e.path("f"))); err != nil {
			t.Fatal(err)
		}
		e.eventually(map[string]string{"one": "[f:192.0.2.4/32]", "two": "[f:192.0.2.5/32]"}[target], "")
	}
	e.eventuallyTold("[f 1 +1 -0 f 1 +1 -1 f 1 +1 -1 f 1 +1 -1 f 1 +1 -1]")
}

func TestWhatIsNotGoodLeavesWhatWasGood(t *testing.T) {
	e := newEngine(t)
	e.write("f", "192.0.2.1\n")
	defer e.follow("f")()
	const live = "[f:192.0.2.1/32]"
	e.eventually(live, "")
	e.write("f", "192.0.2.1\n<html>\nx\n")
	e.eventually(live, "f:2:1: \"<html>\" is not an IP address (and 1 more errors)\n")
	if err := os.Remove(e.path("f")); err != nil {
		t.Fatal(err)
	}
	e.eventually(live, "cannot read f: no such file or directory\n")
	e.write("f", "192.0.2.1\n192.0.2.2\n192.0.2.3\n192.0.2.4\n192.0.2.5\n192.0.2.6\n")
	e.eventually(live, "what f holds does not fit: over budget\n")
	_, _, before := e.state3()
	e.write("f", "# other bytes\n192.0.2.1\n192.0.2.1/32\n")
	e.eventually(live, "")
	if _, _, now := e.state3(); now != before {
		t.Errorf("the same prefixes were compiled again")
	}
	s := e.list.Status(e.path("f"))
	if s.Wrong != "" || s.Prefixes != 1 || s.IPv4 != 1 || s.Changed.IsZero() {
		t.Errorf("status %+v", s)
	}
	e.eventuallyTold("[f 1 +1 -0 f kept f kept f kept f 1 +0 -0]")
}

func TestWhatIsBeingWrittenIsNotReadHoweverLongItTakes(t *testing.T) {
	e := newEngine(t)
	e.write("f", "192.0.2.1\n")
	defer e.follow("f")()
	e.eventually("[f:192.0.2.1/32]", "")
	w, err := os.OpenFile(e.path("f"), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.WriteString("192.0.2.2\n"); err != nil {
		t.Fatal(err)
	}
	// Another file of the directory tells when the first was looked at and left: twice after it was last written.
	e.mu.Lock()
	e.wanted = append(e.wanted, e.path("g"))
	e.mu.Unlock()
	for i := range 3 {
		e.write("g", fmt.Sprintf("198.51.100.%d\n", i))
		e.list.Wake()
		e.eventually(fmt.Sprintf("[f:192.0.2.1/32 g:198.51.100.%d/32]", i), "")
	}
	if _, err := w.WriteString("192.0.2.3\n"); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	e.eventually("[f:192.0.2.2/32 192.0.2.3/32 g:198.51.100.2/32]", "")
}

func TestTheLastGoodContentsComeThroughARestart(t *testing.T) {
	e := newEngine(t)
	e.write("f", "192.0.2.1\n192.0.2.0/24\n2001:db8::1\n")
	e.write("g", "198.51.100.1\n")
	stop := e.follow("f", "g")
	const live = "[f:192.0.2.0/24 192.0.2.1/32 2001:db8::1/128 g:198.51.100.1/32]"
	e.eventually(live, "")
	for _, name := range []string{"f", "g"} {
		e.stored(name)
	}
	stop()
	if err := os.Remove(e.path("f")); err != nil {
		t.Fatal(err)
	}
	e.write("g", "<html>\n")
	e.list = e.newList()
	stop = e.run()
	const report = "cannot read f: no such file or directory\ng:1:1: \"<html>\" is not an IP address\n"
	e.eventually(live, report)
	stop()

	// What does not compile is not what was good.
	e.write("f", strings.Repeat("x", 10))
	e.write("g", "192.0.2.1\n192.0.2.2\n192.0.2.3\n192.0.2.4\n192.0.2.5\n192.0.2.6\n")
	e.list = e.newList()
	stop = e.run()
	e.eventually(live, "f:1:1: \"xxxxxxxxxx\" is not an IP address\nwhat g holds does not fit: over budget\n")
	// Where there is room at last it comes in without being touched.
	e.mu.Lock()
	e.limit = 10
	e.mu.Unlock()
	e.list.Wake()
	e.eventually("[f:192.0.2.0/24 192.0.2.1/32 2001:db8::1/128 g:192.0.2.1/32 192.0.2.2/32 192.0.2.3/32 192.0.2.4/32 192.0.2.5/32 192.0.2.6/32]",
		"f:1:1: \"xxxxxxxxxx\" is not an IP address\n")

	// What nobody wants any more is swept, but not while it may be wanted again.
	e.mu.Lock()
	e.wanted, e.settled = e.wanted[:1], false
	e.mu.Unlock()
	e.list.Wake()
	e.eventuallyStored(2)
	e.mu.Lock()
	e.settled = true
	e.mu.Unlock()
	e.list.Wake()
	e.eventuallyStored(1)
	stop()
}

// stored waits until the state directory has the contents of a file.
func (e *engine) stored(name string) {
	e.t.Helper()
	e.poll(func() error { _, err := e.list.restore(e.path(name)); return err })
}

func (e *engine) eventuallyStored(n int) {
	e.t.Helper()
	e.poll(func() error {
		entries, err := os.ReadDir(e.state)
		if err == nil && len(entries) != n {
			err = fmt.Errorf("%d files are kept, want %d", len(entries), n)
		}
		return err
	})
}

func (e *engine) poll(ok func() error) {
	e.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for err := ok(); err != nil; err = ok() {
		if time.Now().After(deadline) {
			e.t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestACandidateMayNotBeTheFirstToWatchWhatIsNotGood(t *testing.T) {
	e := newEngine(t)
	e.write("bad", "x\ny\n")
	err := e.list.Prepare([]string{e.path("bad"), e.path("none")})
	want := e.path("bad") + ":1:1: \"x\" is not an IP address\n" + e.path("bad") + ":2:1: \"y\" is not an IP address\n" +
		"cannot read " + e.path("none") + ": no such file or directory"
	if fmt.Sprint(err) != want {
		t.Errorf("%v, want\n%s", err, want)
	}
	e.write("bad", "192.0.2.1\n")
	if err := e.list.Prepare([]string{e.path("bad")}); err != nil {
		t.Errorf("once it is good: %v", err)
	}
	// What nobody follows is read again each time.
	e.write("bad", "192.0.2.2\n")
	if err := e.list.Prepare([]string{e.path("bad")}); err != nil {
		t.Error(err)
	}
	if got := e.list.Snapshot([]string{e.path("bad")}).Contents[e.path("bad")]; fmt.Sprint(got) != "[192.0.2.2/32]" {
		t.Errorf("the second candidate gets %v", got)
	}
}

func TestDifferenceCountsWhatCameAndWhatWent(t *testing.T) {
	list := func(text string) (out []netip.Prefix) {
		for _, s := range strings.Fields(text) {
			out = append(out, netip.MustParsePrefix(s))
		}
		return out
	}
	for _, c := range []struct {
		before, now    string
		added, removed int
	}{
		{"", "", 0, 0},
		{"", "192.0.2.0/24 192.0.2.0/25", 2, 0},
		{"192.0.2.0/24 192.0.2.0/25 ::/0", "192.0.2.0/25 198.51.100.0/24", 1, 2},
	} {
		if added, removed := difference(list(c.before), list(c.now)); added != c.added || removed != c.removed {
			t.Errorf("%q to %q: %d and %d", c.before, c.now, added, removed)
		}
	}
}

// TestAFileThatDoesNotFitTakesNoOtherAlong: of two that changed in one pass the good one is live.
func TestAFileThatDoesNotFitTakesNoOtherAlong(t *testing.T) {
	e := newEngine(t)
	e.write("f", "192.0.2.1\n")
	e.write("g", "198.51.100.1\n")
	stop := e.follow("f", "g")
	e.eventually("[f:192.0.2.1/32 g:198.51.100.1/32]", "")
	stop()
	e.write("f", "192.0.2.1\n192.0.2.2\n192.0.2.3\n192.0.2.4\n192.0.2.5\n192.0.2.6\n")
	e.write("g", "198.51.100.2\n")
	defer e.run()()
	e.eventually("[f:192.0.2.1/32 g:198.51.100.2/32]", "what f holds does not fit: over budget\n")
}
