package lab

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netns"
)

// deadLab makes what a lab has that was killed: its record, a namespace, a pin directory, and a process that lives on.
func deadLab(t *testing.T, dir string, r record) (id string, process *exec.Cmd) {
	t.Helper()
	id = "test" + randomHex(4)
	must(t, os.MkdirAll(filepath.Join(dir, id), 0o700))
	must(t, writeJSON(filepath.Join(dir, id, recordFile), r))
	ns, err := makeNamespace(prefix + id + "-tor")
	must(t, err)
	must(t, ns.close())
	must(t, os.MkdirAll(filepath.Join(bpffs, prefix+id, "gateway"), 0o700))
	process = exec.Command("sleep", "600")
	process.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	must(t, process.Start())
	t.Cleanup(func() {
		_ = process.Process.Kill()
		_ = process.Wait()
		_ = remove(id, dir)
	})
	started, err := startTime(process.Process.Pid)
	must(t, err)
	must(t, writeJSON(filepath.Join(dir, id, "serve.1.process"), identity{process.Process.Pid, started}))
	return id, process
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// left lists what there is of a lab.
func left(id, dir string) string {
	var out []string
	for _, path := range []string{filepath.Join(dir, id), filepath.Join(namespaceDir, prefix+id+"-tor"), filepath.Join(bpffs, prefix+id)} {
		if _, err := os.Stat(path); err == nil {
			out = append(out, path)
		}
	}
	return strings.Join(out, " ")
}

func TestDownRemovesWhatADeadLabLeft(t *testing.T) {
	dir := t.TempDir()
	// An owner whose pid somebody else has now.
	id, process := deadLab(t, dir, record{Owner: &identity{PID: os.Getpid(), Started: 1}})
	other, _ := deadLab(t, dir, record{})
	said, err := Down(dir, id)
	if err != nil || len(said) != 1 || said[0] != "lab "+id+" is gone" {
		t.Errorf("%v, %v", said, err)
	}
	if err := process.Wait(); err == nil || process.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("its process ended with %v", err)
	}
	if l := left(id, dir); l != "" {
		t.Errorf("left: %s", l)
	}
	if l := left(other, dir); strings.Count(l, other) != 3 {
		t.Errorf("of the lab that was not named there is only %q", l)
	}
	if said, err := Down(dir); err != nil || len(said) != 1 || left(other, dir) != "" {
		t.Errorf("without a name: %v, %v, left: %s", said, err, left(other, dir))
	}
	if said, err := Down(dir); err != nil || len(said) != 0 {
		t.Errorf("of nothing: %v, %v", said, err)
	}
}

func TestDownLeavesALabAloneWhoseOwnerLives(t *testing.T) {
	owner, err := self()
	must(t, err)
	dir := t.TempDir()
	id, process := deadLab(t, dir, record{Owner: &owner})
	said, err := Down(dir)
	if err != nil || len(said) != 1 || !strings.Contains(said[0], "is at work") {
		t.Errorf("%v, %v", said, err)
	}
	if l := left(id, dir); strings.Count(l, id) != 3 || process.Process.Signal(syscall.Signal(0)) != nil {
		t.Errorf("only this is left: %s", l)
	}
}

func TestARunSweepsWhatKilledOnesLeftAndNothingElse(t *testing.T) {
	owner, err := self()
	must(t, err)
	dir := t.TempDir()
	dead, process := deadLab(t, dir, record{Owner: &identity{PID: os.Getpid(), Started: 1}})
	working, _ := deadLab(t, dir, record{Owner: &owner})
	up, _ := deadLab(t, dir, record{})
	begun, _ := deadLab(t, dir, record{})
	must(t, os.Remove(filepath.Join(dir, begun, recordFile)))
	must(t, sweep(dir))
	if l := left(dead, dir); l != "" {
		t.Errorf("left: %s", l)
	}
	if err := process.Wait(); err == nil {
		t.Error("the process of a lab that is gone lived on")
	}
	for what, id := range map[string]string{"whose owner works": working, "that was left up": up, "that has just begun": begun} {
		if l := left(id, dir); strings.Count(l, id) != 3 {
			t.Errorf("of the lab %s there is only %q", what, l)
		}
	}
	must(t, sweep(dir)) // of nothing
}

func TestDownKillsNobodyWhoHasAPidThatWasFreed(t *testing.T) {
	dir := t.TempDir()
	id, process := deadLab(t, dir, record{})
	must(t, writeJSON(filepath.Join(dir, id, "serve.1.process"), identity{process.Process.Pid, 1}))
	if _, err := Down(dir); err != nil || left(id, dir) != "" {
		t.Errorf("%v, left: %s", err, left(id, dir))
	}
	if err := process.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("somebody else's process is gone: %v", err)
	}
}

func TestAnEndedProcessIsNotAlive(t *testing.T) {
	process := exec.Command("sleep", "600")
	must(t, process.Start())
	started, err := startTime(process.Process.Pid)
	must(t, err)
	id := identity{process.Process.Pid, started}
	if !id.alive() {
		t.Error("it runs, and is said to be dead")
	}
	must(t, process.Process.Kill())
	// A zombie, until it is waited for: nobody may take that for a process that still works.
	deadline := time.Now().Add(10 * time.Second)
	for id.alive() {
		if time.Now().After(deadline) {
			t.Fatal("killed, and still said to be alive")
		}
		runtime.Gosched()
	}
	_ = process.Wait()
	if id.alive() || (identity{}).alive() || (identity{PID: -1}).alive() {
		t.Error("nothing is said to be alive")
	}
}

func TestDoComesBackFromAPanic(t *testing.T) {
	ns, err := makeNamespace(prefix + "test" + randomHex(4) + "-do")
	must(t, err)
	t.Cleanup(func() { must(t, errors.Join(ns.close(), removeNamespace(ns.Name))) })
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	must(t, err)
	defer home.Close()
	func() {
		defer func() { _ = recover() }()
		_ = ns.Do(func() error { panic("inside") })
	}()
	now, err := netns.Get()
	must(t, err)
	defer now.Close()
	if !now.Equal(home) {
		t.Error("the thread stays in the namespace")
	}
	if err := ns.Do(func() error { return os.ErrClosed }); err != os.ErrClosed {
		t.Errorf("Do returns %v", err)
	}
}
