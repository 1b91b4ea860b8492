package netns

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"sluice/control/api"
	"sluice/crypto/wireguard/child"
)

// TestAnUpgradeLeavesTheProcessesOfTunnelsUntilTheyAreExchanged: they carry on, are told of, and cost a handshake when the operator wants.
func TestAnUpgradeLeavesTheProcessesOfTunnelsUntilTheyAreExchanged(t *testing.T) {
	t.Parallel()
	next := buildNext(t)
	s := newTunnels(t, nil)
	e := s.startEchoes(s.Workload(1), innerHost)
	e.more(50)
	before := s.status().Processes
	if len(before) != 2 || before[0].Tunnels[0] != "fra1" || before[0].Version != s.status().Version {
		t.Fatalf("processes %+v", before)
	}
	s.doctorKnowsOurs(before)
	s.terminate()
	e.more(50)
	s.startNext(next)
	e.more(50)
	e.loses(0, "over the upgrade")
	says := func(tunnel int) string {
		return fmt.Sprintf("process     tunnel fra%d: pid %d is of version %s until: sluice tunnel restart fra%d\n",
			tunnel, before[tunnel-1].PID, before[0].Version, tunnel)
	}
	if r := s.sluice("show", "status"); !strings.Contains(r.out, says(1)) || !strings.Contains(r.out, says(2)) {
		t.Errorf("show status after the upgrade:\n%s%s\nwant %q", r.out, r.err, says(1))
	}
	s.exchangeCostsAHandshake(e, before[0])
	s.nothingToDo()
	after := s.status().Processes
	if len(after) != 2 || after[0].PID == before[0].PID || after[0].Version != "next" || after[1].PID != before[1].PID {
		t.Errorf("processes %+v, before %+v", after, before)
	}
	if r := s.sluice("show", "status"); strings.Contains(r.out, "tunnel fra1:") || !strings.Contains(r.out, says(2)) {
		t.Errorf("show status after the exchange:\n%s", r.out)
	}
	if err := syscall.Kill(after[0].PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	// Whoever comes first, the daemon or the operator, it runs again.
	if r := s.sluice("tunnel", "restart", "fra1"); r.code != 0 || !strings.HasPrefix(r.out, "tunnel fra1: ") {
		t.Errorf("restart of one that was killed: %+v", r)
	}
	if now := s.status().Processes; len(now) != 2 || now[0].PID == after[0].PID {
		t.Errorf("processes %+v, before %+v", now, after)
	}
	if r := s.sluice("tunnel", "restart", "nix"); r.code != 1 || !strings.Contains(r.err, "there is no tunnel \"nix\"") {
		t.Errorf("restart of none: %+v", r)
	}
}

// exchangeCostsAHandshake has the process of fra1 exchanged. A machine that stands still meanwhile loses more than a handshake's echoes: one of
// three exchanges must not, and none may lose more than a way that is cut.
func (s *site) exchangeCostsAHandshake(e *echoes, before api.Process) {
	s.t.Helper()
	var gaps []int
	for range 3 {
		r := s.sluice("tunnel", "restart", "fra1")
		if want := fmt.Sprintf("tunnel fra1: process %d of version %s was exchanged for ", before.PID, before.Version); r.code != 0 || !strings.HasPrefix(r.out, want) {
			s.t.Errorf("restart: %+v, want %q", r, want)
		}
		e.more(100)
		s.routeIs("fra1")
		old := len(gaps)
		_, gaps = e.gaps()
		now, sum := gaps[min(old, len(gaps)):], 0 // a late answer may have closed one of before
		for _, n := range now {
			sum += n
		}
		s.t.Logf("lost %v echoes of 50 a second while the process was exchanged", now)
		if sum > lostAtMost {
			s.t.Errorf("lost while the process was exchanged: %v", now)
		}
		if len(now) <= 1 && sum <= 100 {
			return
		}
		processes := s.status().Processes
		if len(processes) != 2 {
			s.t.Fatalf("processes %+v", processes)
		}
		before = processes[0]
	}
	s.t.Errorf("lost while the process was exchanged three times: %v, want one handshake's once", gaps)
}

// doctorKnowsOurs: the process of a tunnel is no intruder at its port, and bears a name of its own.
func (s *site) doctorKnowsOurs(processes []api.Process) {
	s.t.Helper()
	r := s.sluice("doctor")
	for _, port := range []string{"fra1/udp-51820", "fra2/udp-51821"} {
		if !strings.Contains(r.out, "ok       tunnel-port/"+port+" nobody else holds it") {
			s.t.Errorf("the doctor takes our own process at %s for another:\n%s%s", port, r.out, r.err)
		}
	}
	for _, p := range processes {
		if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", p.PID)); err != nil || string(name) != child.Verb+"\n" {
			s.t.Errorf("process %d is called %q, %v", p.PID, name, err)
		}
	}
}
