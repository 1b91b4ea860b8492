package netns

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/cmd/lab"
	"sluice/control/api"
)

// requests is how many must be answered in each phase of a restart.
const requests = 100

// witness looks at what must not change while the daemon is away.
type witness struct {
	*site
	stream  *lab.Stream
	monitor *lab.Process // `ip monitor` of the ToR's routes
	begin   time.Time
	stop    chan struct{}
	wait    sync.WaitGroup
	lacking error // the first time that BIRD lacked a route
}

// watch starts a client that counts lost requests, and looks at BIRD's table and at the ToR's kernel without end.
func (s *site) watch() *witness {
	s.t.Helper()
	for i := range lab.Web4 {
		s.answers(s.Client, lab.Web4[i], 80, fmt.Sprintf("web-%d", i+1))
	}
	monitor, err := s.ToR.Command("monitor", "ip", "monitor", "route")
	if err != nil {
		s.t.Fatal(err)
	}
	w := &witness{site: s, monitor: monitor, begin: time.Now(), stop: make(chan struct{})}
	w.stream = s.Client.StartStream(s.t.Context(), lab.Web4[0], lab.Web6[0], lab.Web4[1], lab.Web6[1])
	s.t.Cleanup(w.stream.Stop)
	w.wait.Go(func() {
		for {
			select {
			case <-w.stop:
				return
			case <-time.After(10 * time.Millisecond):
			}
			if err := s.bird.has(advertised...); err != nil && w.lacking == nil {
				w.lacking = fmt.Errorf("%s after the beginning: %w", time.Since(w.begin), err)
			}
		}
	})
	return w
}

// goesOn waits for more answers.
func (w *witness) goesOn() {
	w.t.Helper()
	base := w.stream.Answered()
	eventually(w.t, func() error {
		if n := w.stream.Answered() - base; n < requests {
			return fmt.Errorf("%d of %d requests answered", n, requests)
		}
		return nil
	})
}

// verdict fails the test if anything was lost since watch.
func (w *witness) verdict() {
	w.t.Helper()
	w.goesOn()
	w.stream.Stop()
	close(w.stop)
	w.wait.Wait()
	load := w.stream.Between(w.begin, time.Now())
	w.t.Logf("the client: %s", load)
	if load.Lost != 0 || load.Sent < requests {
		w.t.Errorf("%d of %d requests were lost, the first: %v", load.Lost, load.Sent, load.Err)
	}
	if w.lacking != nil {
		w.t.Error(w.lacking)
	}
	log, err := os.ReadFile(w.monitor.Log)
	if err != nil {
		w.t.Fatal(err)
	}
	for line := range strings.Lines(string(log)) {
		if strings.HasPrefix(line, "Deleted") && strings.Contains(line, "proto bird") {
			w.t.Errorf("the ToR's kernel: %s", line)
		}
	}
}

// kept are the things that a restart must not touch: an attachment or a generation that was made again has new ids.
func (s *site) kept() string {
	st := s.status()
	return fmt.Sprintf("xdp %s\ntc %s\n%s%s", st.XDPGeneration, st.TCGeneration, s.pins(), s.must(s.Gateway.Namespace, "ip -d link"))
}

func testRestart(t *testing.T, end func(*site)) {
	t.Parallel()
	s := newGateway(t)
	eventually(t, func() error { return s.learned(bothDefaults) })
	before, pid := s.kept(), s.status().PID
	w := s.watch()
	w.goesOn()
	end(s)
	eventually(t, func() error { // BIRD has seen the end, and keeps the routes
		if out := s.bird.do("show protocols edge"); strings.Contains(out, "Established") {
			return errors.New("the session is still up")
		}
		return nil
	})
	w.goesOn()
	if err := s.learned(bothDefaults); err != nil {
		t.Errorf("without a daemon: %v", err)
	}
	s.start()
	s.established()
	w.verdict()
	if now := s.kept(); now != before {
		t.Errorf("the new daemon did not adopt what it found. Before:\n%s\nafter:\n%s", before, now)
	}
	if now := s.status().PID; now == pid {
		t.Errorf("pid %d is that of the old daemon", now)
	}
	eventually(t, func() error { return s.learned(bothDefaults) })
	if r := s.sluice("plan", "-c", s.Gateway.File); r.code != 0 || !strings.Contains(r.out, "nothing to do") {
		t.Errorf("plan of the unchanged file:\n%s%s", r.out, r.err)
	}
	if n := len(show[[]api.Interface](s, "interfaces")); n != 3 {
		t.Errorf("show interfaces has %d lines, want 3", n)
	}
}

func TestKillNineAndARestartLoseNoRequestAndNoRoute(t *testing.T) {
	testRestart(t, (*site).kill)
}

func TestSIGTERMAndARestartLoseNoRequestAndNoRoute(t *testing.T) {
	testRestart(t, (*site).terminate)
}
