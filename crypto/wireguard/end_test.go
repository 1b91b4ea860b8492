package wireguard

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"testing"
	"time"
)

// The sockets of an embedded device are made on threads of the runtime's choice, so an end of a tunnel is a process of
// its own that was started inside its namespace: this test binary again, told by this variable to serve.
const endVariable = "SLUICE_WIREGUARD_TEST_END"

func TestMain(m *testing.M) {
	if os.Getenv(endVariable) != "" {
		if err := serveEnd(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

type request struct {
	Do   string // converge, observe, status, down or stop
	Want State
}

type answer struct {
	Ops    []string
	State  State
	Status []TunnelStatus
	Error  string
}

// serveEnd answers requests, one JSON value each, until its input ends.
func serveEnd(in io.Reader, out io.Writer) error {
	d, err := New(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return err
	}
	requests, answers := json.NewDecoder(bufio.NewReader(in)), json.NewEncoder(out)
	for {
		var r request
		if err := requests.Decode(&r); err != nil {
			return nil
		}
		a, err := serveRequest(d, r)
		if err != nil {
			a.Error = err.Error()
		}
		if err := answers.Encode(a); err != nil || r.Do == "stop" {
			return err
		}
	}
}

func serveRequest(d *Driver, r request) (a answer, err error) {
	ctx := context.Background()
	switch r.Do {
	case "converge":
		a.Ops, err = converge(ctx, d, r.Want)
	case "observe":
		a.State, err = d.Observe(ctx)
	case "status":
		a.Status, err = d.Status(ctx)
	case "down":
		err = d.Down(ctx)
	case "stop":
		d.Stop()
	}
	return a, err
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
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

func startEnd(t *testing.T, s *space) *end {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), endVariable+"=1")
	cmd.Stderr = &testLog{t}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.do(t, cmd.Start)
	e := &end{t, cmd, in, json.NewDecoder(out)}
	t.Cleanup(e.kill)
	return e
}

func (e *end) ask(r request) answer {
	e.t.Helper()
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
