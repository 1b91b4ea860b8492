package nstest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/tests/birdc"
)

// Bird is a BIRD 2 of its own in a namespace.
type Bird struct {
	cmd    *exec.Cmd
	config string
	socket string
	log    string
	head   string // of every configuration
}

// Log is what it has logged so far.
func (b *Bird) Log(t testing.TB) string {
	t.Helper()
	said, err := os.ReadFile(b.log)
	if err != nil {
		t.Fatal(err)
	}
	return string(said)
}

// Kill is kill -9.
func (b *Bird) Kill() { Kill(b.cmd) }

// Configure has BIRD go over to another configuration. Sessions that it does not change stay up.
func (b *Bird) Configure(t testing.TB, config string) {
	t.Helper()
	b.write(t, b.head+config)
	b.Do(t, "configure")
}

// StartBird starts BIRD with the configuration, to which log and device protocol are added.
func StartBird(t testing.TB, ns *NS, config string) *Bird {
	t.Helper()
	dir, err := os.MkdirTemp("", "bird") // not t.TempDir: a socket's path holds 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	b := &Bird{config: filepath.Join(dir, "bird.conf"), socket: filepath.Join(dir, "bird.ctl"), log: filepath.Join(dir, "bird.log")}
	t.Cleanup(func() {
		if said, _ := os.ReadFile(b.log); t.Failed() {
			t.Logf("BIRD said:\n%s", said)
		}
	})
	b.head = fmt.Sprintf("log %q all;\nprotocol device {}\n", b.log)
	b.write(t, b.head+config)
	b.cmd = exec.Command("/usr/sbin/bird", "-f", "-c", b.config, "-s", b.socket, "-P", filepath.Join(dir, "bird.pid"))
	b.cmd.Stderr = os.Stderr
	ns.Start(t, b.cmd)
	Eventually(t, 10*time.Second, func() string {
		if _, err := b.Ask("show status"); err != nil {
			return err.Error()
		}
		return ""
	})
	return b
}

func (b *Bird) write(t testing.TB, config string) {
	t.Helper()
	if err := os.WriteFile(b.config, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Freeze stops BIRD in its tracks: its kernel goes on acknowledging what comes, and nobody answers.
func (b *Bird) Freeze(t testing.TB) {
	t.Helper()
	if err := b.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
}

// Urgent gives it real-time priority, as if it had a machine of its own.
func (b *Bird) Urgent(t testing.TB) {
	t.Helper()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", b.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		tid, err := strconv.Atoi(task.Name())
		if err == nil {
			err = unix.SchedSetAttr(tid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: 1}, 0)
		}
		if err != nil && !errors.Is(err, unix.ESRCH) {
			t.Fatalf("real-time priority for BIRD: %v", err)
		}
	}
}

// Do is Ask with a format, for commands that have to succeed.
func (b *Bird) Do(t testing.TB, format string, args ...any) string {
	t.Helper()
	out, err := b.Ask(fmt.Sprintf(format, args...))
	if err != nil {
		t.Fatalf("birdc "+format+": %v", append(args, err)...)
	}
	return out
}

// Ask sends it a command of birdc.
func (b *Bird) Ask(command string) (string, error) { return birdc.Ask(b.socket, command) }
