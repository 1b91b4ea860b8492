package daemon

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"sluice/tests/nstest"
)

func TestANetworkNamespaceHasOneDaemon(t *testing.T) {
	var log bytes.Buffer
	say := slog.New(slog.NewTextHandler(&log, nil))
	nstest.Enter(t)
	unlock, err := lockNamespace(say)
	if err != nil {
		t.Fatal(err)
	}
	for range 100 { // and who asks again and again fills no queue
		if _, err := lockNamespace(say); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("another sluice (pid %d)", os.Getpid())) {
			t.Fatalf("a second one: %v", err)
		}
	}
	nstest.New(t).Do(t, func() error {
		other, err := lockNamespace(say)
		if err == nil {
			other()
		}
		return err
	})
	unlock()
	if unlock, err = lockNamespace(say); err != nil {
		t.Fatalf("after the first has gone: %v", err)
	}
	unlock()
	if log.Len() > 0 {
		t.Errorf("it said %s", &log)
	}
}

const squatVerb = "squat"

// squat takes the name, says so, and ends with its input.
func squat(name string) error {
	l, err := net.Listen("unix", name)
	if err != nil {
		return err
	}
	defer l.Close()
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
	return nil
}

// Whoever may run a program could keep the gateway from starting otherwise.
func TestTheNameOfAnotherUserIsPassedOver(t *testing.T) {
	var log bytes.Buffer
	nstest.Enter(t)
	squatter := exec.Command("/proc/self/exe", squatVerb, namespaceName, "test")
	squatter.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	in, err := squatter.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := squatter.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := squatter.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close(); _ = squatter.Wait() })
	if _, err := out.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	unlock, err := lockNamespace(slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	unlock()
	if !strings.Contains(log.String(), fmt.Sprintf("pid=%d uid=65534", squatter.Process.Pid)) {
		t.Errorf("it said %q", &log)
	}
}
