package engine

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// childEnv makes the test binary the daemon that is killed: it holds the directory that the variable names.
const childEnv = "SLUICE_ENGINE_TEST_STATE_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		fmt.Fprintln(os.Stderr, child(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// real is a site on the system's clock whose machine is a file, so that both processes share it.
func realSite(dir string, clock Clock) (*machine, *Engine, error) {
	m := &machine{state: map[string]map[string]string{}, saved: filepath.Join(dir, "machine.json")}
	if b, err := os.ReadFile(m.saved); err == nil {
		if err := json.Unmarshal(b, &m.state); err != nil {
			return nil, nil, err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	store, err := OpenStore(filepath.Join(dir, "state"))
	if err != nil {
		return nil, nil, err
	}
	s := &site{m: m, check: &fakeChecker{}, file: confA, fact: "6.12"}
	o := s.options(store)
	o.Clock = clock
	e, err := New(o)
	return m, e, err
}

// child applies confB with an hour to confirm and stops in the middle of it, for its parent to kill it there. On the next
// call, with a revision pending, it finishes the apply and stops there.
func child(dir string) error {
	clock, err := SystemClock()
	if err != nil {
		return err
	}
	if _, err := Lock(filepath.Join(dir, "state")); err != nil {
		return err
	}
	m, e, err := realSite(dir, clock)
	if err != nil {
		return err
	}
	ctx := context.Background()
	if err := e.Start(ctx); err != nil {
		return err
	}
	if e.Status().Pending == nil {
		steps := 0
		m.before = func(string, fakeOp) error {
			if steps++; steps == 7 {
				hang("in the middle")
			}
			return nil
		}
		cfg, err := parseText("FILE", []byte(confB), nil)
		if err != nil {
			return err
		}
		_, err = e.Apply(ctx, Candidate{Name: "FILE", Bytes: []byte(confB), Config: cfg}, ApplyOptions{Confirm: time.Hour})
		return fmt.Errorf("apply came to its end: %w", err)
	}
	hang("pending")
	return nil
}

// hang tells the parent where the child is, and waits for its end: that of the test's stdin, should the parent die.
func hang(where string) {
	fmt.Println(where)
	_, _ = bufio.NewReader(os.Stdin).ReadByte()
	os.Exit(2)
}

// killed runs the child until it says where it is, and kills it there; meanwhile sees it alive.
func killed(t *testing.T, dir, where string, meanwhile func(pid int)) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	cmd.Stderr = os.Stderr
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if line == where+"\n" {
		meanwhile(cmd.Process.Pid)
	}
	// SIGKILL: no handler, no deferred function runs.
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // "signal: killed"
	if line != where+"\n" {
		t.Fatalf("the child said %q, %v; expected %q", line, err, where)
	}
}

// later is a clock that is ahead of another.
type later struct {
	Clock
	by time.Duration
	id string
}

func (l later) Boot() time.Duration { return l.Clock.Boot() + l.by }
func (l later) BootID() string      { return l.Clock.BootID() + l.id }

func TestARealKillMinusNine(t *testing.T) {
	t.Parallel()
	clock, err := SystemClock()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		then Clock
		want string
	}{
		{"in time", clock, confB},
		{"an hour later", later{clock, time.Hour, ""}, confA},
		{"after a reboot", later{clock, -clock.Boot(), "'"}, confA},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			locked := func(pid int) {
				_, err := Lock(filepath.Join(dir, "state"))
				want := fmt.Sprintf("state directory in use: another sluice (pid %d) holds %s; stop it, or give this one another state_dir",
					pid, filepath.Join(dir, "state", "lock"))
				if !errors.Is(err, ErrLocked) || err.Error() != want {
					t.Errorf("a second lock: %v\nwant: %s", err, want)
				}
			}
			killed(t, dir, "in the middle", locked)
			killed(t, dir, "pending", locked)
			unlock, err := Lock(filepath.Join(dir, "state"))
			if err != nil {
				t.Fatalf("the lock of a dead process: %v", err)
			}
			defer unlock()
			m, e, err := realSite(dir, c.then)
			if err != nil {
				t.Fatal(err)
			}
			if err := e.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			if m.String() != wanted(c.want) {
				t.Errorf("the machine holds\n%s\nwant\n%s", m, wanted(c.want))
			}
			p := e.Status().Pending
			if c.want == confA {
				if p != nil {
					t.Errorf("still pending: %+v", p)
				}
			} else if p == nil || p.Remaining <= 0 || p.Remaining >= 3600 {
				t.Errorf("pending %+v", p)
			}
		})
	}
}
