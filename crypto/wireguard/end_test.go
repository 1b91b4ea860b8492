package wireguard

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/crypto/keys"
	"sluice/crypto/path"
	"sluice/crypto/wireguard/child"
)

// A daemon must be one to kill, so an end of a tunnel is a process of its own that was started inside its namespace: this
// test binary again, told by this variable to serve. It holds the state directory.
const endVariable = "SLUICE_WIREGUARD_TEST_END"

func TestMain(m *testing.M) {
	var err error
	switch stateDir := os.Getenv(endVariable); {
	case len(os.Args) == 4 && os.Args[1] == child.Verb:
		ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
		defer stop()
		err = child.Run(ctx, os.Args[2], "test")
	case stateDir != "":
		err = serveEnd(stateDir, os.Stdin, os.Stdout)
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type request struct {
	Do     string // converge, observe, status, processes, restart, event, run, rotate, stop in rotate, probe, down or stop
	Want   State
	Next   string // the key file to rotate to
	Probes []child.Probe
	Holes  path.State // the blackholes, which the subsystem beside this one owns
}

type answer struct {
	Ops       []string
	State     State
	Status    []TunnelStatus
	Processes []Process
	Event     Event
	Probes    bool // by the process
	Probed    []Probed
	Error     string
}

// Probed is what became of a probe.
type Probed struct {
	Tag uint64
	Age time.Duration
	Why string // it was refused; "": it was answered
}

// gather waits for what becomes of n probes, for at most ten seconds.
func gather(probed <-chan Probed, n int) (out []Probed, err error) {
	late := time.After(10 * time.Second)
	for len(out) < n {
		select {
		case p := <-probed:
			out = append(out, p)
		case <-late:
			return out, errors.New("no answer in 10 s")
		}
	}
	slices.SortFunc(out, func(a, b Probed) int { return cmp.Compare(a.Tag, b.Tag) })
	return out, nil
}

// serveEnd answers requests, one JSON value each, until its input ends.
func serveEnd(stateDir string, in io.Reader, out io.Writer) error {
	probed := make(chan Probed, 10)
	d, err := New(slog.New(slog.NewTextHandler(os.Stderr, nil)), Options{
		StateDir: stateDir, Command: []string{"/proc/self/exe", child.Verb},
		Answered: func(tag uint64, at time.Time) { probed <- Probed{Tag: tag, Age: time.Since(at)} },
		Refused:  func(tag uint64, err error) { probed <- Probed{Tag: tag, Why: err.Error()} },
	})
	if err != nil {
		return err
	}
	holes, err := path.New(slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	requests, answers := json.NewDecoder(bufio.NewReader(in)), json.NewEncoder(out)
	for {
		var r request
		if err := requests.Decode(&r); err != nil {
			return nil
		}
		a, err := serveRequest(d, holes, r, probed)
		if err != nil {
			a.Error = err.Error()
		}
		if err := answers.Encode(a); err != nil || r.Do == "stop" {
			return err
		}
	}
}

func serveRequest(d *Driver, holes *path.Driver, r request, probed <-chan Probed) (a answer, err error) {
	ctx := context.Background()
	switch r.Do {
	case "converge":
		if err = dig(ctx, holes, r.Holes); err == nil {
			a.Ops, err = converge(ctx, d, r.Want)
		}
	case "observe":
		a.State, err = d.Observe(ctx)
	case "status":
		a.Status, err = d.Status(ctx)
	case "processes":
		a.Processes = d.Processes()
	case "restart":
		err = d.Restart("fra1")
	case "event":
		select {
		case a.Event = <-d.Events():
		case <-time.After(15 * time.Second):
			err = errors.New("no event in 15 s")
		}
	case "probe":
		if a.Probes = d.Probe("fra1", r.Probes); a.Probes {
			a.Probed, err = gather(probed, len(r.Probes))
		}
	case "run":
		go d.Run(ctx)
	case "rotate":
		err = d.Rotate(ctx, "fra1", r.Next)
	case "stop in rotate":
		err = stopInRotate(d, r.Next)
	case "down":
		err = errors.Join(d.Down(ctx), holes.Down(ctx))
	case "stop":
		d.Stop()
	}
	return a, err
}

// stopInRotate stops the driver once the device has its next key, and returns what Rotate returns.
func stopInRotate(d *Driver, next string) error {
	public, err := keys.PublicKey(next)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- d.Rotate(context.Background(), "fra1", next) }()
	for now := ""; now != public; time.Sleep(5 * time.Millisecond) {
		select {
		case err := <-ended:
			return fmt.Errorf("it ended before the stop: %w", err)
		default:
		}
		if list, err := d.Status(context.Background()); err == nil { // else it stands still for a moment
			now = list[0].PublicKey
		}
	}
	d.Stop()
	return <-ended
}

func dig(ctx context.Context, d *path.Driver, want path.State) error {
	have, err := d.Observe(ctx)
	if err != nil {
		return err
	}
	for _, op := range path.Diff(have, want) {
		err = errors.Join(err, d.Apply(ctx, op))
	}
	return err
}

// converge applies the difference, teardowns last, as the engine does.
func converge(ctx context.Context, d *Driver, want State) ([]string, error) {
	have, err := d.Observe(ctx)
	if err != nil {
		return nil, err
	}
	ops := Diff(have, want)
	for _, teardown := range []bool{false, true} {
		for _, op := range ops {
			if op.Teardown() != teardown {
				continue
			}
			if err := d.Apply(ctx, op); err != nil {
				return said(ops), err
			}
		}
	}
	return said(ops), nil
}

// end is a running process that holds one end.
type end struct {
	t     *testing.T
	holes path.State
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   *json.Decoder
}

func startEnd(t *testing.T, s *space) *end {
	t.Helper()
	return startEndOf(t, s, os.Args[0], s.stateDir)
}

// startEndOf runs a given binary, a copy of this test's.
func startEndOf(t *testing.T, s *space, binary, stateDir string) *end {
	t.Helper()
	cmd := exec.Command(binary)
	cmd.Env = append(os.Environ(), endVariable+"="+stateDir)
	cmd.Stderr = &testLog{t}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.Do(t, cmd.Start)
	e := &end{t, s.holes, cmd, in, json.NewDecoder(out)}
	t.Cleanup(e.kill)
	return e
}

func (e *end) ask(r request) answer {
	e.t.Helper()
	r.Holes = e.holes
	if err := json.NewEncoder(e.in).Encode(r); err != nil {
		e.t.Fatal(err)
	}
	var a answer
	done := make(chan error, 1)
	go func() { done <- e.out.Decode(&a) }()
	select {
	case err := <-done:
		if err != nil {
			e.t.Fatalf("%s: the end did not answer: %v", r.Do, err)
		}
	case <-time.After(20 * time.Second):
		e.t.Fatalf("%s: no answer in 20 s", r.Do)
	}
	return a
}

// must is ask for what may not fail.
func (e *end) must(r request) answer {
	e.t.Helper()
	a := e.ask(r)
	if a.Error != "" {
		e.t.Fatalf("%s: %s", r.Do, a.Error)
	}
	return a
}

// status is of the one tunnel. It is asked again where the process stood still for as long as Status waits.
func (e *end) status() (s TunnelStatus) {
	e.t.Helper()
	until(e.t, "the end tells the status of its tunnel", func() bool {
		a := e.ask(request{Do: "status"})
		if a.Error != "" || len(a.Status) != 1 {
			return false
		}
		s = a.Status[0]
		return true
	})
	return s
}

func (e *end) converge(want State) []string {
	e.t.Helper()
	return e.must(request{Do: "converge", Want: want}).Ops
}

func (e *end) observe() State {
	e.t.Helper()
	return e.must(request{Do: "observe"}).State
}

// kill is SIGKILL, and waits until the kernel has closed what the process held.
func (e *end) kill() {
	e.cmd.Process.Kill()
	e.cmd.Wait()
}

func (e *end) stop() {
	e.t.Helper()
	e.must(request{Do: "stop"})
	if err := e.cmd.Wait(); err != nil {
		e.t.Fatal(err)
	}
}

type testLog struct{ t *testing.T }

func (l *testLog) Write(p []byte) (int, error) {
	l.t.Logf("%s", p)
	return len(p), nil
}
