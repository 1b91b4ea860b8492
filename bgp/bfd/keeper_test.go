package bfd_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/bgp/bfd"
	"sluice/tests/nstest"
)

// keeper is a daemon's half, as a process of its own in the namespace of a site.
func (s *site) keeper(t *testing.T, stateDir string) *nstest.Child {
	t.Helper()
	return s.ours.Child(t, keeperRole+" "+stateDir)
}

func (s *site) pids(t *testing.T, stateDir string) (pids []int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		line, _ := os.ReadFile(f) // it may have ended
		if strings.Contains(string(line), "\x00"+bfd.Verb+"\x00") && strings.Contains(string(line), stateDir) {
			pid := 0
			fmt.Sscanf(f, "/proc/%d/", &pid)
			pids = append(pids, pid)
		}
	}
	return pids
}

// one is the only process of the keeper's.
func (s *site) one(t *testing.T, stateDir string) int {
	t.Helper()
	pids := s.pids(t, stateDir)
	if len(pids) != 1 {
		t.Fatalf("processes %v", pids)
	}
	return pids[0]
}

// realTime fails unless every thread of a process is scheduled before all that is not real-time.
func realTime(t *testing.T, pid int) {
	t.Helper()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil || len(tasks) < 2 {
		t.Fatalf("threads %v: %v", tasks, err)
	}
	for _, task := range tasks {
		tid := 0
		fmt.Sscan(task.Name(), &tid)
		a, err := unix.SchedGetAttr(tid, 0)
		if errors.Is(err, unix.ESRCH) {
			continue // it has ended
		}
		if err != nil || a.Policy != unix.SCHED_RR || a.Priority == 0 {
			t.Errorf("thread %d of %d: %+v, %v", tid, len(tasks), a, err)
		}
	}
}

func TestSessionsOutliveTheDaemonAndNotTheirProcess(t *testing.T) {
	t.Parallel()
	s := newBareSite(t)
	bird := nstest.StartBird(t, s.peers, birdConfig(base))
	dir := t.TempDir()
	t.Cleanup(func() {
		for _, pid := range s.pids(t, dir) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	s.server = s.keeper(t, dir)
	wanted := []bfd.Config{session("IPv4", base), session("IPv6", base)}
	s.set(t, wanted...)
	s.becomes(t, bfd.Up)
	first := s.one(t, dir)
	realTime(t, first)
	before := s.status(t)

	s.server.Kill() // kill -9
	s.server = s.keeper(t, dir)
	s.set(t, wanted...)
	for i, st := range s.status(t) {
		if b := before[i]; st.State != bfd.Up || st.Since != b.Since || st.Failures != b.Failures || st.Discriminator != b.Discriminator || st.Received < b.Received {
			t.Errorf("before the daemon's death %+v, after it %+v", b, st)
		}
	}
	if now := s.one(t, dir); now != first {
		t.Errorf("process %d instead of %d", now, first)
	}
	if shown := bird.Do(t, "show bfd sessions"); strings.Count(shown, "Up") != len(wanted) {
		t.Errorf("BIRD has\n%s", shown)
	}

	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	nstest.Eventually(t, patience, func() string {
		if pids := s.pids(t, dir); len(pids) != 1 || pids[0] == first {
			return fmt.Sprintf("processes %v after %d was killed", pids, first)
		}
		return ""
	})
	nstest.Eventually(t, patience, func() string { return nstest.Want("sessions", len(s.status(t)), len(wanted)) })
	s.becomes(t, bfd.Up)

	s.set(t)
	nstest.Eventually(t, patience, func() string { return nstest.Want("processes", len(s.pids(t, dir)), 0) })
	s.set(t, wanted...)
	s.becomes(t, bfd.Up)
	nstest.Must[any](t, s.server, "down", nil)
	nstest.Eventually(t, patience, func() string { return nstest.Want("processes", len(s.pids(t, dir)), 0) })
	if left, err := os.ReadDir(filepath.Join(dir, "bfd")); !os.IsNotExist(err) {
		t.Errorf("files are left: %v, %v", left, err)
	}
}

func TestAPortInUseEndsTheProcessWithItsReason(t *testing.T) {
	t.Parallel()
	s := newSite(t) // its server has the port
	s.set(t, session("IPv4", time.Second))
	other := s.keeper(t, t.TempDir())
	_, err := nstest.Call[any](t, other, "set", []bfd.Config{session("IPv4", time.Second)})
	if err == nil || !strings.Contains(err.Error(), "stop the other BFD daemon") {
		t.Errorf("%v", err)
	}
}
