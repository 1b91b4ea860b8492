package api

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestThereIsNoMomentWithWiderPermissions looks at the socket from the moment that its name appears.
func TestThereIsNoMomentWithWiderPermissions(t *testing.T) {
	dir := t.TempDir()
	for range 20 {
		path := filepath.Join(dir, "s")
		seen := make(chan os.FileMode, 1)
		ctx, stop := context.WithCancel(t.Context())
		go func() {
			for ctx.Err() == nil {
				if info, err := os.Lstat(path); err == nil {
					seen <- info.Mode()
					return
				}
			}
			close(seen)
		}()
		s := NewServer(path, &fake{}, discard)
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		<-s.Ready()
		if mode := <-seen; mode != os.ModeSocket|0o600 {
			t.Errorf("the socket was first seen with mode %v", mode)
		}
		stop()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	}
}

// TestNothingIsLeftBehind: neither the socket after a clean end, which would look like a daemon that died, nor the
// directory in which it was made.
func TestNothingIsLeftBehind(t *testing.T) {
	r := start(t, &fake{})
	if names := entries(t, filepath.Dir(r.path)); len(names) != 1 {
		t.Errorf("beside the socket there is %q", names)
	}
	if err := r.end(t); err != nil {
		t.Errorf("Run returned %v", err)
	}
	if names := entries(t, filepath.Dir(r.path)); len(names) != 0 {
		t.Errorf("after the end there is %q", names)
	}
}

// TestASocketIsTakenBeforeItAnswers: who starts second is told before it has changed anything, and who asks while the
// first still starts gets an answer in the end.
func TestASocketIsTakenBeforeItAnswers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	first := NewServer(path, &fake{}, discard)
	if err := first.Listen(); err != nil {
		t.Fatal(err)
	}
	if err := NewServer(path, &fake{}, discard).Listen(); err == nil || !strings.Contains(err.Error(), "another process answers") {
		t.Errorf("a second server: %v", err)
	}
	asked := make(chan error, 1)
	go func() {
		_, err := NewClient(path).History(t.Context())
		asked <- err
	}()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- first.Run(ctx) }()
	if err := <-asked; err != nil {
		t.Errorf("asked while it started: %v", err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := first.Listen(); err != nil {
		t.Fatalf("again: %v", err)
	}
	first.Close()
	if names := entries(t, filepath.Dir(path)); len(names) != 0 {
		t.Errorf("after Close there is %q", names)
	}
}

func entries(t *testing.T, dir string) (names []string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

func TestTheSocketOfADaemonThatWasKilledIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := l.Close(); err != nil { // the name stays, and nobody answers
		t.Fatal(err)
	}
	r := start(t, &fake{}, func(s *Server) { s.path = path })
	if _, err := NewClient(path).Confirm(t.Context()); err != nil {
		t.Error(err)
	}
	if err := r.end(t); err != nil {
		t.Error(err)
	}
}

func TestASocketThatAnswersIsLeftAlone(t *testing.T) {
	r := start(t, &fake{})
	err := startError(t, r.path)
	if want := "api: another process answers on " + r.path + ": give this instance a --socket of its own"; err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if _, err := r.client.Confirm(t.Context()); err != nil {
		t.Errorf("the first one does not answer any more: %v", err)
	}
}

func TestWhatIsNoSocketIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := errors.Join(os.WriteFile(file, []byte("precious"), 0o600), os.Symlink(file, link)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, link, dir} {
		err := startError(t, path)
		if want := "api: " + path + " is there and is no socket: give another --socket"; err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != "precious" {
		t.Errorf("the file holds %q (%v)", got, err)
	}
}

func TestAPlaceThatCannotHoldASocket(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := startError(t, filepath.Join(file, "s")); err == nil || !strings.HasPrefix(err.Error(), "api: mkdir "+file) {
		t.Errorf("below a file: %v", err)
	}
	long := filepath.Join(dir, strings.Repeat("x", 120))
	if err := startError(t, long); err == nil || !strings.Contains(err.Error(), "is too long by") || !strings.Contains(err.Error(), "give a shorter --socket") {
		t.Errorf("a long path: %v", err)
	}
	if names := entries(t, dir); len(names) != 1 {
		t.Errorf("left behind: %q", names)
	}
}

// TestAnAnswerUnderWayIsStillGiven: the daemon ends by `down`, which must be answered.
func TestAnAnswerUnderWayIsStillGiven(t *testing.T) {
	b := &fake{hold: make(chan struct{}), enter: make(chan struct{})}
	r := start(t, b)
	answered := make(chan error, 1)
	go func() { answered <- r.client.Down(t.Context()) }()
	<-b.enter
	r.stop()
	// The socket goes first: whoever comes now is told that nobody is there.
	for deadline := time.Now().Add(10 * time.Second); ; {
		if _, err := os.Lstat(r.path); errors.Is(err, fs.ErrNotExist) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the socket stays")
		}
	}
	if _, err := NewClient(r.path).Confirm(t.Context()); !errors.Is(err, ErrUnreachable) {
		t.Errorf("a new request while the server ends: %v", err)
	}
	close(b.hold)
	if err := <-answered; err != nil {
		t.Errorf("the answer under way: %v", err)
	}
	if err := r.end(t); err != nil {
		t.Errorf("Run returned %v", err)
	}
}

func TestAServerIsReadyOnlyOnceItAnswers(t *testing.T) {
	s := NewServer(filepath.Join(t.TempDir(), "s"), &fake{}, discard)
	select {
	case <-s.Ready():
		t.Error("ready before Run")
	default:
	}
	if s.String() != "api" {
		t.Errorf("the task is called %q", s)
	}
}

// TestNounsAreUnique: each is a verb of the command and a path of the API.
func TestNounsAreUnique(t *testing.T) {
	seen := map[string]bool{}
	for _, n := range Nouns {
		if seen[n.Name] || n.Name == "" || n.Help == "" || strings.ContainsAny(n.Name, "/ ") {
			t.Errorf("noun %+v", n)
		}
		seen[n.Name] = true
	}
}
