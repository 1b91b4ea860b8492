package nstest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
)

// roleVariable tells the test binary that it is a child.
const roleVariable = "SLUICE_NSTEST_ROLE"

// Handler answers a call. Its argument and result travel as JSON.
type Handler func(argument json.RawMessage) (any, error)

// Child is the test binary, run once more inside a namespace: the way to have code there that makes sockets on any
// thread. Its TestMain must call Serve.
type Child struct {
	cmd *exec.Cmd
	in  *json.Encoder
	out *json.Decoder
}

type call struct {
	Method   string
	Argument json.RawMessage
}

type reply struct {
	Result json.RawMessage
	Error  string
}

// Role is the role that this process was started for; "" in the test itself.
func Role() string { return os.Getenv(roleVariable) }

// Serve answers calls from standard input until it ends.
func Serve(handlers map[string]Handler) error {
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var c call
		if err := in.Decode(&c); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		var r reply
		h := handlers[c.Method]
		if h == nil {
			h = func(json.RawMessage) (any, error) { return nil, fmt.Errorf("no method %q", c.Method) }
		}
		result, err := h(c.Argument)
		if err != nil {
			r.Error = err.Error()
		} else if r.Result, err = json.Marshal(result); err != nil {
			return err
		}
		if err := out.Encode(r); err != nil {
			return err
		}
	}
}

// Child starts the test binary in the namespace. What it logs is shown when the test fails.
func (ns *NS) Child(t testing.TB, role string) *Child {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	log := &bytes.Buffer{}
	cmd.Stderr = log
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // after the kill below, so that nobody writes the buffer any more
		if t.Failed() {
			t.Logf("%s said:\n%s", role, log)
		}
	})
	ns.Start(t, cmd)
	return &Child{cmd: cmd, in: json.NewEncoder(in), out: json.NewDecoder(out)}
}

// Kill is kill -9.
func (c *Child) Kill() { Kill(c.cmd) }

// Call asks the child and returns its error. A broken pipe fails the test.
func Call[Result any](t testing.TB, c *Child, method string, argument any) (Result, error) {
	t.Helper()
	var result Result
	var r reply
	raw, err := json.Marshal(argument)
	if err == nil {
		err = c.in.Encode(call{method, raw})
	}
	if err == nil {
		err = c.out.Decode(&r)
	}
	if err == nil && r.Error == "" {
		err = json.Unmarshal(r.Result, &result)
	}
	if err != nil {
		t.Fatalf("%s: %v", method, err)
	}
	if r.Error != "" {
		return result, errors.New(r.Error)
	}
	return result, nil
}

// Must is Call for calls that have to succeed.
func Must[Result any](t testing.TB, c *Child, method string, argument any) Result {
	t.Helper()
	result, err := Call[Result](t, c, method, argument)
	if err != nil {
		t.Fatalf("%s: %v", method, err)
	}
	return result
}
