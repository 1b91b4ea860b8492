package netns

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// processOf is the gateway's process of a tunnel.
func (s *site) processOf(tunnel string) int {
	s.t.Helper()
	for _, pid := range processes(s.t, s.Gateway) {
		words, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && strings.Contains(string(words), "\x00"+tunnel+"\x00") {
			return pid
		}
	}
	s.t.Fatalf("no process runs %s", tunnel)
	return 0
}

func (s *site) routeIsWithin(want string, limit time.Duration) {
	s.t.Helper()
	within(s.t, limit, func() error {
		if got := s.route(); got != want {
			return fmt.Errorf("%s is reached by %s, want %s", innerHost, got, want)
		}
		return nil
	})
}

// TestTrafficLeavesATunnelWhoseProcessStandsStill before anybody has found that out, and comes back when it has another one.
func TestTrafficLeavesATunnelWhoseProcessStandsStill(t *testing.T) {
	t.Parallel()
	s := newTunnels(t, nil)
	pid := s.processOf("fra1")
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Kill(pid, syscall.SIGCONT) }()
	s.routeIs("fra2")
	if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err != nil || !strings.Contains(string(stat), ") T ") {
		t.Errorf("the routes stood until the process was ended: %q, %v", stat, err)
	}
	s.routeIsWithin("fra1", time.Minute)
	if now := s.processOf("fra1"); now == pid {
		t.Error("the process that stood still goes on")
	}
}

// TestTrafficLeavesATunnelThatCannotBeStarted: its process has died while there was no daemon, and the next one cannot read the key.
func TestTrafficLeavesATunnelThatCannotBeStarted(t *testing.T) {
	t.Parallel()
	s := newTunnels(t, nil)
	key := filepath.Join(s.Dir, "gateway-1.key")
	if err := os.Rename(key, key+".away"); err != nil {
		t.Fatal(err)
	}
	pid := s.processOf("fra1")
	s.terminate()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := s.Gateway.StartDaemon(); err != nil {
		t.Fatal(err)
	}
	s.routeIs("fra2")
	e := s.startEchoes(s.Workload(1), innerHost)
	e.more(50)
	if err := os.Rename(key+".away", key); err != nil {
		t.Fatal(err)
	}
	s.routeIsWithin("fra1", 2*time.Minute) // it is tried again at most a minute apart
	e.more(50)
}
