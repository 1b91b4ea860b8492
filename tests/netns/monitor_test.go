package netns

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice/cmd/lab"
	"sluice/control/api"
)

// follower is a client of the monitor that keeps what it heard.
type follower struct {
	stop  context.CancelFunc
	ended chan error

	mu   sync.Mutex
	have []api.Event
}

// follow returns when the stream has begun.
func (s *site) follow(drops bool) *follower { return s.followAll(api.MonitorRequest{Drops: drops}) }

func (s *site) followFlows() *follower { return s.followAll(api.MonitorRequest{Flows: true}) }

func (s *site) followAll(request api.MonitorRequest) *follower {
	s.t.Helper()
	ctx, stop := context.WithCancel(s.t.Context())
	f := &follower{stop: stop, ended: make(chan error, 1)}
	begun := make(chan struct{})
	go func() {
		client := s.Gateway.API()
		defer client.Close()
		f.ended <- client.Monitor(ctx, request, func(e api.Event) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			if len(f.have) == 0 {
				close(begun)
			}
			f.have = append(f.have, e)
			return nil
		})
	}()
	s.t.Cleanup(stop)
	select {
	case <-begun:
	case err := <-f.ended:
		s.t.Fatalf("the stream ended before it began: %v", err)
	case <-time.After(patience):
		s.t.Fatal("the stream does not begin")
	}
	return f
}

func (f *follower) events() []api.Event {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]api.Event{}, f.have...)
}

// hears waits for an event.
func (f *follower) hears(t *testing.T, what string, is func(api.Event) bool) api.Event {
	t.Helper()
	return f.hearsWithin(t, patience, what, is)
}

func (f *follower) hearsWithin(t *testing.T, limit time.Duration, what string, is func(api.Event) bool) api.Event {
	t.Helper()
	var found api.Event
	within(t, limit, func() error {
		for _, e := range f.events() {
			if is(e) {
				found = e
				return nil
			}
		}
		return fmt.Errorf("the monitor did not tell of %s", what)
	})
	return found
}

func TestMonitorTellsWhatHappens(t *testing.T) {
	t.Parallel()
	s := newGateway(t)
	f, plain := s.follow(true), s.follow(false)
	s.edit("node: {name: e2e-gateway}", "node: {name: e2e-gateway-2}")
	s.apply("--confirm", "1m")
	if r := s.sluice("confirm"); r.code != 0 {
		t.Fatalf("confirm: %+v", r)
	}
	s.ban(api.BanRequest{Targets: []string{"192.0.2.66"}, ForSeconds: 10, Why: "a test", By: "ann"})
	s.silent(s.Attacker, lab.Web4[0], 80) // while the ban holds
	s.silent(s.Client, lab.Web4[0], 22)
	s.bird.do("disable edge")
	for _, follower := range []*follower{f, plain} {
		for _, kind := range []string{"pending", "confirmed"} {
			follower.hears(t, kind, func(e api.Event) bool {
				return e.Engine != nil && string(e.Engine.Kind) == kind && e.Engine.Revision == 2
			})
		}
		for _, kind := range []string{"banned", "expired"} {
			follower.hears(t, kind, func(e api.Event) bool {
				return e.Ban != nil && e.Text == kind && e.Ban.Target == "192.0.2.66" && e.Ban.Why == "a test"
			})
		}
		follower.hears(t, "the lost session", func(e api.Event) bool { return e.BGP != nil && e.BGP.Neighbor == "tor" && !e.BGP.Up })
	}
	drop := f.hears(t, "a dropped SYN", func(e api.Event) bool {
		return e.Drop != nil && e.Drop.Reason == "default-drop" && e.Drop.Source == lab.Client4
	}).Drop
	if drop.Hook != "xdp" || drop.Interface != "eth0" || drop.Protocol != "tcp" || drop.Destination != lab.Web4[0] ||
		drop.DestinationPort == nil || *drop.DestinationPort != 22 || drop.TCPFlags != "S" || drop.Length == 0 {
		t.Errorf("the dropped SYN is told as %+v", drop)
	}
	f.hears(t, "a packet that a ban dropped", func(e api.Event) bool {
		return e.Drop != nil && e.Drop.Reason == "banned" && e.Drop.Ban == "192.0.2.66"
	})
	for _, e := range plain.events() {
		if e.Drop != nil {
			t.Errorf("told of a drop without being asked: %+v", e.Drop)
		}
	}
	link := "sluice-test0"
	s.must(s.Gateway.Namespace, "ip link add "+link+" type veth peer name sluice-test1")
	f.hears(t, "a new link", func(e api.Event) bool { return e.Link != nil && e.Link.Name == link && e.Link.Exists })
	s.must(s.Gateway.Namespace, "ip link del "+link)

	// Ctrl-C is a good end; that of the daemon is told.
	f.stop()
	if err := <-f.ended; !errors.Is(err, context.Canceled) {
		t.Errorf("after Ctrl-C: %v", err)
	}
	s.terminate()
	if err := <-plain.ended; !errors.Is(err, api.ErrUnreachable) {
		t.Errorf("after the daemon's end: %v", err)
	}
}

func TestMonitorUnderAFloodIsBoundedAndCountsNothingAway(t *testing.T) {
	t.Parallel()
	s := newGateway(t)
	followers := []*follower{s.follow(true), s.follow(true), s.follow(true)}
	before := s.dropped()
	begin := time.Now()
	flooded, err := lab.Flood{Rate: 50000, Duration: 3 * time.Second}.Run(t.Context(), s.Site)
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(begin)
	// What was shown and what was not make up all that was dropped, for each follower: but for a stray before the flood.
	for i, f := range followers {
		eventually(t, func() error {
			shown, unseen := f.drops()
			if dropped := s.dropped() - before; shown+unseen < dropped || shown+unseen > dropped+100 || dropped < flooded.Packets/2 {
				return fmt.Errorf("follower %d: %d shown and %d not, of %d dropped (%d sent)", i, shown, unseen, dropped, flooded.Packets)
			}
			return nil
		})
		shown, unseen := f.drops()
		// Twice the rate: the first and the last window may be whole ones.
		if limit := 2 * 2000 * (took.Seconds() + 1); float64(shown) > limit {
			t.Errorf("follower %d was shown %d drops in %s, at most %.0f were to be", i, shown, took, limit)
		}
		t.Logf("follower %d: %d drops shown, %d not, in %s; %d packets sent", i, shown, unseen, took, flooded.Packets)
	}
	s.answers(s.Client, lab.Web4[0], 80, "web-1")
	s.linesOfJSON()
}

// dropped are all packets that were dropped so far, at every hook.
func (s *site) dropped() (n uint64) {
	s.t.Helper()
	for _, r := range show[[]api.Reason](s, "drops") {
		n += r.Packets
	}
	return n
}

// drops are those shown, and those that it was told not to have seen.
func (f *follower) drops() (shown, unseen uint64) {
	for _, e := range f.events() {
		switch e.Type {
		case api.EventDrop:
			shown++
		case api.EventUnseen, api.EventLost:
			unseen += e.Count
		}
	}
	return shown, unseen
}

// linesOfJSON runs the command itself until it has told of something, and ends it as Ctrl-C does.
func (s *site) linesOfJSON() {
	s.t.Helper()
	p, err := s.Gateway.Command("monitor", binary(), "monitor", "-o", "json", "--drops", "--socket", s.Gateway.Socket)
	if err != nil {
		s.t.Fatal(err)
	}
	var out []byte
	eventually(s.t, func() error {
		s.ban(api.BanRequest{Targets: []string{"10.77.0.1"}})
		out = s.logOf(p)
		if bytes.Count(out, []byte("\n")) < 2 {
			return errors.New("nothing is told")
		}
		return nil
	})
	for line := range strings.Lines(string(out)) {
		var e api.Event
		if strings.HasSuffix(line, "\n") && (json.Unmarshal([]byte(line), &e) != nil || e.Type == "" || e.Time.IsZero()) {
			s.t.Errorf("no event: %s", line)
		}
	}
	if err := p.Signal(syscall.SIGINT); err != nil {
		s.t.Fatal(err)
	}
	select {
	case <-p.Done():
	case <-time.After(patience):
		s.t.Fatal("Ctrl-C does not end the monitor")
	}
	if code := p.ExitCode(); code != 0 {
		s.t.Errorf("Ctrl-C ends the monitor with %d", code)
	}
}

func (s *site) logOf(p *lab.Process) []byte {
	s.t.Helper()
	out, err := os.ReadFile(p.Log)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}
