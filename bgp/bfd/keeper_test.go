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

// endAll ends with the test what a keeper that was killed has left.
func (s *site) endAll(t *testing.T, stateDir string) {
	t.Helper()
	t.Cleanup(func() {
		for _, pid := range s.pids(t, stateDir) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
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
	const interval = 2 * time.Second // either side waits for five of them and more, however busy this machine is
	bird := nstest.StartBird(t, s.peers, birdConfig(interval))
	dir := t.TempDir()
	s.endAll(t, dir)
	s.server = s.keeper(t, dir)
	wanted := []bfd.Config{session("IPv4", interval), session("IPv6", interval)}
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
	nstest.Eventually(t, patience, func() string { // it may hear of the beginning only now
		return nstest.Want("sessions of BIRD that are up", strings.Count(bird.Do(t, "show bfd sessions"), "Up"), len(wanted))
	})

	// One that hangs is found by nobody's asking.
	if err := syscall.Kill(first, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	s.another(t, dir, first)
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

// another waits until another process holds the sessions.
func (s *site) another(t *testing.T, stateDir string, than int) {
	t.Helper()
	nstest.Eventually(t, patience, func() string {
		if pids := s.pids(t, stateDir); len(pids) != 1 || pids[0] == than {
			return fmt.Sprintf("processes %v after %d", pids, than)
		}
		return ""
	})
	nstest.Eventually(t, patience, func() string {
		if len(s.status(t)) == 0 {
			return "no sessions"
		}
		return ""
	})
}

// The next process goes on where the one before ended, with its discriminators: the peer does not notice.
func TestAProcessThatDiesCostsNoSession(t *testing.T) {
	t.Parallel()
	s := newBareSite(t)
	const interval = 2 * time.Second // BIRD waits for five of them, however busy this machine is
	bird := nstest.StartBird(t, s.peers, birdConfig(interval))
	dir := t.TempDir()
	s.server = s.keeper(t, dir)
	t.Cleanup(func() { nstest.Must[any](t, s.server, "down", nil) })
	s.set(t, session("IPv4", interval), session("IPv6", interval))
	s.becomes(t, bfd.Up)
	since := func() map[string]time.Time {
		out := map[string]time.Time{}
		for _, line := range strings.Split(bird.Do(t, "show bfd sessions"), "\n") {
			if f := strings.Fields(line); len(f) > 3 && f[2] == "Up" {
				out[f[0]], _ = time.Parse("15:04:05.000", f[3])
			}
		}
		return out
	}
	nstest.Eventually(t, patience, func() string { return nstest.Want("sessions of BIRD that are up", len(since()), 2) })
	before, first := since(), s.one(t, dir)
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.another(t, dir, first)
	nstest.Eventually(t, patience, func() string { // both ways, and with the intervals agreed on again
		for _, st := range s.status(t) {
			if st.State != bfd.Up || st.Failures > 0 || st.Sent < 3 || st.Received < 3 {
				return fmt.Sprintf("%+v", st)
			}
		}
		return ""
	})
	now := since()
	for peer, was := range before { // BIRD reckons it anew each time it is asked; a new session takes seconds
		if at, up := now[peer]; !up || at.Sub(was).Abs() > time.Second {
			t.Errorf("BIRD has the session with %s since %s (%t), and had it since %s", peer, at, up, was)
		}
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

// Nobody asks for anything here: the keeper itself does.
func TestAProcessThatHangsIsNoticedAndReplaced(t *testing.T) {
	t.Parallel()
	s := newBareSite(t)
	dir := t.TempDir()
	s.endAll(t, dir)
	s.server = s.keeper(t, dir)
	s.set(t, session("IPv4", base))
	first := s.one(t, dir)
	if err := syscall.Kill(first, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	s.another(t, dir, first)
	nstest.Eventually(t, patience, func() string {
		told := nstest.Must[[]string](t, s.server, "trouble", nil)
		if len(told) != 2 || !strings.Contains(told[0], "hung and was killed") || told[1] != "" {
			return fmt.Sprintf("told %q", told)
		}
		return ""
	})
	s.only(t)
}

func TestAProcessWhoseSocketWasRemovedIsReplacedByTheNextDaemon(t *testing.T) {
	t.Parallel()
	s := newBareSite(t)
	dir := t.TempDir()
	s.endAll(t, dir)
	var first int
	begin := func() {
		s.server = s.keeper(t, dir)
		s.set(t, session("IPv4", base))
		first = s.one(t, dir)
	}
	for what, next := range map[string]func(){
		"a start": func() {
			s.set(t, session("IPv4", base))
			s.another(t, dir, first)
			s.only(t)
			s.set(t)
		},
		"a start without sessions": func() { s.set(t) },
		"down":                     func() { nstest.Must[any](t, s.server, "down", nil) },
	} {
		begin()
		s.server.Kill()
		if err := os.RemoveAll(filepath.Join(dir, "bfd")); err != nil {
			t.Fatal(err)
		}
		s.server = s.keeper(t, dir)
		next()
		if pids := s.pids(t, dir); len(pids) != 0 {
			t.Fatalf("after %s: processes %v, the one of before was %d", what, pids, first)
		}
		s.server.Kill()
	}
}
