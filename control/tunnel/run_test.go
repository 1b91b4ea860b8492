package tunnel

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/control/compile"
	"sluice/control/config"
)

// outside is what a Watcher has around it, all of it made up.
type outside struct {
	t    *testing.T
	path string

	mu       sync.Mutex
	tunnels  []config.Tunnel
	live     bool
	dns      map[string][]netip.Addr
	silent   bool // the peer answers no probe
	compiled []compile.TunnelNow
	why      []string
	events   []Event
	reported [][]Problem
	withheld [][]Down
	held     chan struct{} // not nil: a compilation takes until it is closed
	fail     error
	during   func() // not nil: what happens while peers are withheld
}

func (o *outside) watch(t *testing.T) *Watcher {
	t.Helper()
	var w *Watcher
	w = New(Options{
		Path: o.path,
		Wanted: func() ([]config.Tunnel, bool) {
			o.mu.Lock()
			defer o.mu.Unlock()
			return o.tunnels, o.live
		},
		Sources: map[string]Source{config.TypeWireGuard: func(context.Context) ([]Seen, error) { return nil, errors.New("no device") }},
		Resolve: func(_ context.Context, host string) ([]netip.Addr, error) {
			o.mu.Lock()
			defer o.mu.Unlock()
			if a, ok := o.dns[host]; ok {
				return a, nil
			}
			return nil, errors.New("no such host")
		},
		Ping: func(list []Ping) {
			o.mu.Lock()
			defer o.mu.Unlock()
			for _, p := range list {
				if !o.silent {
					go w.Answered(p.Tag, time.Now())
				}
			}
		},
		Underlay: func(_ context.Context, to []netip.Addr) (map[netip.Addr]int, error) {
			out := map[netip.Addr]int{}
			for _, a := range to {
				out[a] = 1500
			}
			return out, nil
		},
		Withhold: func(_ context.Context, down []Down) error {
			o.mu.Lock()
			if o.during != nil {
				o.during()
			}
			defer o.mu.Unlock()
			o.withheld = append(o.withheld, down)
			return o.fail
		},
		Changed: func(why string) error {
			o.mu.Lock()
			held := o.held
			o.mu.Unlock()
			if held != nil {
				<-held
			}
			o.mu.Lock()
			defer o.mu.Unlock()
			o.compiled = append(o.compiled, w.Now(&config.Config{Tunnels: o.tunnels})["fra1"])
			o.why = append(o.why, why)
			return o.fail
		},
		Notify: func(e Event) { o.mu.Lock(); defer o.mu.Unlock(); o.events = append(o.events, e) },
		Report: func(p []Problem) { o.mu.Lock(); defer o.mu.Unlock(); o.reported = append(o.reported, p) },
	})
	if err := w.Load(); err != nil {
		t.Fatal(err)
	}
	return w
}

// runs starts a Watcher; what is returned ends it and waits.
func (o *outside) runs(t *testing.T, w *Watcher) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	var once sync.Once
	end = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(end)
	return end
}

// until polls for at most 20 seconds.
func (o *outside) until(what string, ok func() bool) {
	o.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		o.mu.Lock()
		yes := ok()
		o.mu.Unlock()
		if yes {
			return
		}
		if time.Now().After(deadline) {
			o.t.Fatalf("after 20 s still not: %s; compiled %+v because of %q", what, o.compiled, o.why)
		}
	}
}

func (o *outside) set(change func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	change()
}

func newOutside(t *testing.T, tunnels ...config.Tunnel) *outside {
	return &outside{t: t, path: filepath.Join(t.TempDir(), "tunnels.json"), tunnels: tunnels, live: true, dns: map[string][]netip.Addr{}}
}

// quick is a tunnel whose peer has a name and is probed often.
func quick() config.Tunnel {
	t := probed(hub)
	t.Health = &config.Health{Interval: 50 * time.Millisecond, DownAfter: 3, UpAfter: 5}
	return t
}

func TestAWatcherTellsWhatItFindsOutAndKeepsItForTheNext(t *testing.T) {
	o := newOutside(t, quick())
	w := o.watch(t)
	end := o.runs(t, w)
	o.until("the name is a problem", func() bool { n := len(o.reported); return n > 0 && len(o.reported[n-1]) == 1 })
	o.set(func() { o.dns[hub] = addresses("198.51.100.7") })
	w.Wake() // and tunnels that are the same are no reason to ask again: that comes by itself after 5 s
	at := netip.MustParseAddrPort(e1)
	o.until("the endpoint is known", func() bool { n := len(o.compiled); return n > 0 && o.compiled[n-1].Peers["a"].Endpoint == at })
	o.until("the underlay is known", func() bool { n := len(o.compiled); return o.compiled[n-1].Underlay == 1500 })
	o.until("nothing is a problem", func() bool { return len(o.reported[len(o.reported)-1]) == 0 })
	o.set(func() { o.silent = true })
	o.until("the peer is down", func() bool { return o.compiled[len(o.compiled)-1].Peers["a"].Down })
	o.until("the file says so", func() bool { data, _ := os.ReadFile(o.path); return strings.Contains(string(data), `"down": true`) })
	end()

	n := len(o.compiled) // nobody writes it any more
	if n > 3 {
		t.Errorf("compiled %d times because of %q", n, o.why)
	}
	before := o.compiled[n-1]
	reports := len(o.reported)
	o.set(func() { o.compiled, o.dns = nil, nil })
	next := o.watch(t)
	if now := next.Now(&config.Config{Tunnels: o.tunnels})["fra1"]; now.Underlay != before.Underlay || now.Peers["a"] != before.Peers["a"] {
		t.Errorf("after a restart %+v, before %+v", now, before)
	}
	o.runs(t, next)
	o.until("the next one has looked around", func() bool { return len(o.reported) > reports+1 })
	o.set(func() {
		if len(o.compiled) > 0 {
			t.Errorf("a restart compiles %+v because of %q", o.compiled, o.why)
		}
	})
	o.set(func() { o.silent = false })
	o.until("the peer is up", func() bool { n := len(o.compiled); return n > 0 && !o.compiled[n-1].Peers["a"].Down })
	if s := next.Status(); len(s) != 1 || s[0].Underlay != 1500 || s[0].Peers[0].Endpoint != at || s[0].Peers[0].From != hub+":51820" {
		t.Errorf("status %+v", s)
	}
	o.set(func() { o.tunnels = nil })
	next.Wake()
	o.until("no tunnel, no file", func() bool { _, err := os.Stat(o.path); return errors.Is(err, os.ErrNotExist) })
	o.until("no tunnel, no problem", func() bool { return o.reported[len(o.reported)-1] == nil })
}

func TestWithoutALiveRevisionWhatIsKeptStays(t *testing.T) {
	o := newOutside(t, quick())
	kept := `{"schema": 1, "tunnels": {"fra1": {"underlay": 1400, "peers": {"a": {"endpoint": "198.51.100.7:51820"}}}}, "names": {"hub.example": ["198.51.100.7"]}}`
	if err := os.WriteFile(o.path, []byte(kept), 0o600); err != nil {
		t.Fatal(err)
	}
	o.live = false
	w := o.watch(t)
	o.runs(t, w)
	w.Wake()
	if now := w.Now(&config.Config{Tunnels: o.tunnels})["fra1"]; now.Underlay != 1400 || now.Peers["a"].Endpoint.String() != e1 {
		t.Errorf("%+v", now)
	}
	o.set(func() { o.live = true })
	w.Wake()
	o.until("tunnels are followed", func() bool { return len(o.reported) > 0 })
	if now := w.Now(&config.Config{Tunnels: o.tunnels})["fra1"]; now.Underlay == 0 || now.Peers["a"].Endpoint.String() != e1 {
		t.Errorf("%+v", now)
	}
}

func TestADamagedFileIsSaidAndForgotten(t *testing.T) {
	o := newOutside(t)
	for _, text := range []string{"{", `{"schema": 99}`} {
		if err := os.WriteFile(o.path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		w := New(Options{Path: o.path})
		if err := w.Load(); err == nil || !strings.Contains(err.Error(), o.path) {
			t.Errorf("%s: %v", text, err)
		}
		if now := w.Now(&config.Config{Tunnels: []config.Tunnel{one(e1)}})["fra1"]; now.Peers["a"].Endpoint.String() != e1 {
			t.Errorf("%+v", now)
		}
	}
}

func TestReasonsAreFew(t *testing.T) {
	if got := reasons([]string{"a", "b", "c", "d", "e"}); got != "a; b; c; and 2 more" {
		t.Error(got)
	}
}

func TestAPeerThatIsDownIsWithheldWhileSomethingElseIsCompiled(t *testing.T) {
	o := newOutside(t, quick())
	o.dns[hub] = addresses("198.51.100.7")
	w := o.watch(t)
	o.runs(t, w)
	o.until("the peer is up", func() bool {
		s := w.Status()
		return len(s) == 1 && s[0].Peers[0].Probe.Last > 0 && len(o.compiled) > 0
	})
	held := make(chan struct{})
	o.set(func() { o.held, o.dns = held, map[string][]netip.Addr{} })
	w.locked(func(m *machine) { m.change(Event{UnderlayChanged, "fra1", "", "something else"}) })
	poke(w.again)
	o.set(func() { o.silent, o.compiled = true, nil })
	o.until("it is withheld", func() bool { return len(o.withheld) == 1 })
	o.until("the file says so", func() bool { data, _ := os.ReadFile(o.path); return strings.Contains(string(data), `"down": true`) })
	o.set(func() {
		want := Down{Tunnel: "fra1", Type: config.TypeWireGuard, Peer: "a", PublicKeys: []string{"key-a"}}
		if got := o.withheld[0]; len(got) != 1 || !got[0].same(want) || len(o.compiled) > 0 {
			t.Errorf("withheld %+v, compiled %+v", got, o.compiled)
		}
		o.held, o.silent = nil, false
	})
	// It is back before the engine is free. What is compiled then may lack its routes; what is compiled last does not.
	o.until("it is not withheld any more", func() bool { return len(o.withheld) == 2 && len(o.withheld[1]) == 0 })
	close(held)
	o.until("it was compiled since", func() bool { n := len(o.compiled); return n > 1 && !o.compiled[n-1].Peers["a"].Down })
}

func TestWhoIsNotProbedAnyMoreIsCompiledAgain(t *testing.T) {
	o := newOutside(t, quick())
	o.dns[hub] = addresses("198.51.100.7")
	o.silent = true
	if err := os.WriteFile(o.path, []byte(`{"schema": 1, "tunnels": {"fra1": {"underlay": 1500, "peers": {"a": {"endpoint": "198.51.100.7:51820", "probe": "10.20.0.1", "down": true}}}}, "names": {"hub.example": ["198.51.100.7"]}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	w := o.watch(t)
	o.runs(t, w)
	o.until("it is withheld from the start", func() bool { return len(o.withheld) == 1 && len(o.withheld[0]) == 1 })
	o.set(func() {
		if len(o.compiled) > 0 {
			t.Errorf("compiled %+v though the first compilation knew it", o.compiled)
		}
		o.tunnels = []config.Tunnel{one(hub)}
	})
	w.Wake()
	o.until("it is compiled once nothing is withheld", func() bool {
		return len(o.compiled) == 1 && len(o.withheld) == 2 && len(o.withheld[1]) == 0 && strings.Contains(o.why[0], "not probed any more")
	})
}

func TestASourceIsAskedAsOftenAsItIsWorth(t *testing.T) {
	for _, c := range []struct {
		took             time.Duration
		staged, choosing bool
		want             time.Duration
	}{
		{time.Millisecond, false, true, time.Second},
		{20 * time.Millisecond, false, true, 2 * time.Second},
		{time.Second, false, true, 5 * time.Second},
		{time.Millisecond, false, false, 30 * time.Second},
		{time.Millisecond, true, true, 200 * time.Millisecond},
		{3 * time.Millisecond, true, false, 300 * time.Millisecond},
		{time.Second, true, true, 500 * time.Millisecond},
	} {
		if got := pauseOfPolls(c.took, c.staged, c.choosing); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}
