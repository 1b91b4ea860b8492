package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const verb = "echod"

// TestMain is also the process: one that answers what it is asked, and one that has a lock.
func TestMain(m *testing.M) {
	var err error
	switch {
	case len(os.Args) == 4 && os.Args[1] == verb:
		err = echod(os.Args[2])
	case len(os.Args) == 3 && os.Args[1] == "lock":
		if err = Lock(os.Args[2], "v1.5"); err == nil {
			fmt.Println("locked")
			_, err = io.Copy(io.Discard, os.Stdin)
		}
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func echod(name string) error {
	if name == "broken" {
		return errors.New("it is broken")
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	l, err := Listen()
	if err != nil {
		return err
	}
	journal, beside := NewJournal(), make(chan struct{})
	s := &Server{Version: 1, Program: "v1.5", Journal: journal, Answer: func(r Request, w io.Writer) error {
		switch r.Do {
		case "echo":
			journal.Say("echo of " + r.Value)
			_, err := io.WriteString(w, r.Body)
			return err
		case "file":
			text, err := io.ReadAll(os.NewFile(FirstFile, "file"))
			fmt.Fprintf(w, "text=%s\n", text)
			return err
		case "wait":
			journal.Say("waiting")
			<-beside
			return nil
		case "go on":
			close(beside)
			return nil
		case "die":
			panic("it was asked to")
		}
		return unix.EOPNOTSUPP
	}}
	go s.Serve(l)
	<-ctx.Done()
	return nil
}

// place is one of its own for a test, which leaves no process there.
func place(t *testing.T) Place {
	t.Helper()
	netns, err := NetNS(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	// Longer than a socket's address.
	p := Place{Kind: Kind{Of: "echo", Verb: verb, Version: 1}, Dir: t.TempDir() + "/" + strings.Repeat("long", 30), NetNS: netns, Command: []string{"/proc/self/exe", verb}}
	t.Cleanup(func() {
		if err := p.Sweep(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(p.Dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("files are left: %v", err)
		}
	})
	return p
}

func hears(t *testing.T, lines <-chan string, want string) {
	t.Helper()
	select {
	case line := <-lines:
		if line != want {
			t.Errorf("it says %q, want %q", line, want)
		}
	case <-time.After(10 * time.Second):
		t.Errorf("it does not say %q", want)
	}
}

func endsBy(t *testing.T, c *Client) {
	t.Helper()
	select {
	case <-c.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("its end is not seen")
	}
	if c.Alive() {
		t.Error("it is said to be alive")
	}
}

func TestAProcessIsStartedAndSpokenToAndFoundAgain(t *testing.T) {
	p := place(t)
	lines := make(chan string, 10)
	say := func(line string) { lines <- line }
	if _, err := p.Adopt("a", say); !errors.Is(err, ErrNone) {
		t.Errorf("before it is started: %v", err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(w, "handed down")
	w.Close()
	c, err := p.Start("a", say, r)
	r.Close()
	if err != nil {
		t.Fatal(err)
	}
	if said, err := c.Ask(Request{Do: "file", Value: "1"}); err != nil || said != "text=handed down\n" {
		t.Errorf("%q, %v", said, err)
	}
	q := Request{Do: "echo", Value: "two", Body: "a=1\nb=\n"}
	if said, err := c.Ask(q); err != nil || said != q.Body {
		t.Errorf("%q, %v", said, err)
	}
	hears(t, lines, "echo of two")
	if fmt.Sprintf("%v %+v", q, q) != "echo echo" {
		t.Errorf("a request prints as %v %+v", q, q)
	}
	if err := c.Do(Request{Do: "nonsense"}); !errors.Is(err, unix.EOPNOTSUPP) || !strings.Contains(err.Error(), fmt.Sprintf("process %d of echo a", c.PID())) {
		t.Errorf("what it does not know: %v", err)
	}
	c.Close() // as a daemon that ends
	again, err := p.Adopt("a", say)
	if err != nil {
		t.Fatal(err)
	}
	if again.PID() != c.PID() || again.Program() != "v1.5" || !again.Alive() {
		t.Errorf("found again: %d for %d, %q", again.PID(), c.PID(), again.Program())
	}
	if _, err := (Place{Kind: p.Kind}).AdoptFrom(c.PID(), "a", say); err == nil {
		t.Error("another network namespace's daemon takes it")
	}
	watched := func() bool { // Adopt does not wait until the process has begun to tell
		hello, err := again.Hello()
		return err == nil && hello["watchers"] == "1"
	}
	for deadline := time.Now().Add(10 * time.Second); !watched() && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
	}
	if _, err := p.AdoptFrom(c.PID(), "a", say); err == nil || !strings.Contains(err.Error(), "another daemon") {
		t.Errorf("another daemon takes one that is watched: %v", err)
	}
	if err := again.End(); err != nil {
		t.Error(err)
	}
	if _, err := p.Adopt("a", say); !errors.Is(err, ErrNone) {
		t.Errorf("after its end: %v", err)
	}
	if _, err := os.Stat(p.Socket("a")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its socket is still there: %v", err)
	}
}

func TestARequestBesideDoesNotWaitForAnother(t *testing.T) {
	p := place(t)
	lines := make(chan string, 10)
	c, err := p.Start("a", func(line string) { lines <- line })
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Do(Request{Do: "wait", Value: "1"}) }()
	hears(t, lines, "waiting")
	if said, err := c.AskBeside(Request{Do: "go on", Value: "1"}); err != nil || said != "" {
		t.Errorf("%q, %v", said, err)
	}
	if err := <-ended; err != nil {
		t.Errorf("the one that waited: %v", err)
	}
	if err := c.End(); err != nil {
		t.Error(err)
	}
	if _, err := c.AskBeside(Request{Do: "echo", Value: "1"}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("once it is closed: %v", err)
	}
}

func TestAProcessThatEndsIsToldOfAndSaysWhy(t *testing.T) {
	p := place(t)
	quiet := func(string) {}
	c, err := p.Start("a", quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Do(Request{Do: "die"}); !errors.Is(err, ErrNone) {
		t.Errorf("asked to die: %v", err)
	}
	endsBy(t, c)
	if why := p.Crash("a"); why != ": panic: it was asked to" {
		t.Errorf("it said %q", why)
	}
	if _, err := p.Start("broken", quiet); err == nil || !strings.Contains(err.Error(), "process of echo broken does not start: it has ended at once: it is broken") {
		t.Errorf("one that does not start: %v", err)
	}
	if _, err := (Place{Kind: p.Kind}).Start("a", quiet); err == nil {
		t.Error("one is started without a command")
	}
}

// It takes answerTime: this is the only way in which a process that is stuck is known.
func TestAProcessThatHangsIsReplaced(t *testing.T) {
	t.Parallel()
	p := place(t)
	c, err := p.Start("a", func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	stop(t, c)
	if _, err := p.Adopt("a", func(string) {}); !Replaceable(err) {
		t.Fatalf("one that hangs: %v", err)
	}
	if err := p.Evict("a"); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Adopt("a", func(string) {}); !errors.Is(err, ErrNone) {
		t.Errorf("after it was made to go: %v", err)
	}
}

func TestWhoAsksAProcessThatHangsHearsWhatToDo(t *testing.T) {
	t.Parallel()
	c, err := place(t).Start("a", func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	stop(t, c)
	if _, err := c.Ask(Request{Do: doHello}); err == nil || !strings.Contains(err.Error(), "was killed; another one is started, apply again") {
		t.Errorf("one that hangs: %v", err)
	}
	<-c.Done() // it was killed
}

// stop has a process stand still.
func stop(t *testing.T, c *Client) {
	t.Helper()
	if err := unix.Kill(c.PID(), unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	// It is our child, so that the kernel tells when the signal has reached it. WUNTRACED reaps nothing.
	if _, err := unix.Wait4(c.PID(), nil, unix.WUNTRACED, nil); err != nil {
		t.Fatal(err)
	}
}

func TestALockTellsWhoHasItAndEndsWithIt(t *testing.T) {
	path := t.TempDir() + "/lock"
	if pid, err := LockedBy(path); pid != 0 || err != nil {
		t.Errorf("before: %d, %v", pid, err)
	}
	cmd := exec.Command("/proc/self/exe", "lock", path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	if _, err := fmt.Fscanln(out, new(string)); err != nil {
		t.Fatal(err)
	}
	if pid, err := LockedBy(path); pid != cmd.Process.Pid || err != nil {
		t.Errorf("%d has it, %v, want %d", pid, err, cmd.Process.Pid)
	}
	if program, err := LockProgram(path); program != "v1.5" || err != nil {
		t.Errorf("program %q, %v", program, err)
	}
	if err := Lock(path, "another"); err == nil || !strings.Contains(err.Error(), "another process has it") {
		t.Errorf("taken twice: %v", err)
	}
	if program, err := LockProgram(path); program != "v1.5" || err != nil {
		t.Errorf("who did not get it has written %q, %v", program, err)
	}
	if err := EndLocked(path); err != nil {
		t.Error(err)
	}
	if pid, err := LockedBy(path); pid != 0 || err != nil {
		t.Errorf("after: %d, %v", pid, err)
	}
	if err := EndLocked(path); err != nil {
		t.Errorf("with nobody there: %v", err)
	}
}
