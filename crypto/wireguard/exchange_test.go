package wireguard

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestTheProcessIsExchangedOnRequest(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.up(t)
	pid := p.a.process(t, "fra1")
	wantProcesses := func(pid int) {
		t.Helper()
		if diff := cmp.Diff([]Process{{Tunnel: "fra1", PID: pid, Program: "test"}}, p.endA.must(request{Do: "processes"}).Processes); diff != "" {
			t.Error(diff)
		}
	}
	wantProcesses(pid)
	s := startStream(t, p.a.dial(t, "udp", "10.20.0.1"))
	s.goesOn(50)
	p.endA.must(request{Do: "restart"})
	wantError(t, p.endA.ask(request{Do: "restart"}), "tunnel fra1 has no process of its own")
	p.send(t) // nobody runs the tunnel
	p.endA.converge(p.wantA)
	s.goesOn(50)
	lost, of := s.lost(time.Second)
	t.Logf("%d of %d datagrams were lost", lost, of) // those of the new process's handshakes
	now := p.a.process(t, "fra1")
	if now == pid {
		t.Errorf("process %d runs the tunnel still", now)
	}
	wantProcesses(now)
	p.fence(t)
	if marked, _ := p.wire.seen(); marked != 0 {
		t.Errorf("%d frames in clear", marked)
	}
}
