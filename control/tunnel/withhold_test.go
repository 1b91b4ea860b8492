package tunnel

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/control/config"
)

func TestNobodyIsBusyWhileAVersionWaitsForItsCompilation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		free := make(chan struct{})
		w := New(Options{Changed: func(string) error { <-free; return nil }})
		rounds := 0
		const endless = 100
		var wait sync.WaitGroup
		for _, task := range []func(context.Context){w.withhold, w.apply, func(ctx context.Context) {
			for rounds < endless {
				select {
				case <-ctx.Done():
					return
				case <-w.again:
				}
				rounds++
				w.step()
			}
		}} {
			wait.Go(func() { task(ctx) })
		}
		for n := range 3 { // the first is compiled, and those behind it wait for that
			before := rounds
			w.locked(func(m *machine) { m.change(Event{UnderlayChanged, "fra1", "", "one more"}) })
			poke(w.again)
			synctest.Wait()
			for range 10 {
				w.Answered(1<<32, time.Now())
				synctest.Wait()
			}
			if rounds -= before; rounds != 1 {
				t.Errorf("change %d: %d rounds, want one", n, rounds)
			}
			rounds += before
		}
		close(free)
		synctest.Wait()
		w.locked(func(m *machine) {
			if m.version != 3 || m.applied != 3 {
				t.Errorf("of %d versions %d are applied", m.version, m.applied)
			}
		})
		cancel()
		wait.Wait()
	})
}

func TestRoutesThatCouldNotBeTakenAwayAreTriedAgainAndDoNotCountAsGone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tunnels.json")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		conf := probed(e1)
		var mu sync.Mutex
		var tries []time.Time
		var told string
		busy, log := errors.New("netlink: interrupted"), &bytes.Buffer{}
		failing := func() error { mu.Lock(); defer mu.Unlock(); return busy }
		w := New(Options{
			Path: path, Log: slog.New(slog.NewTextHandler(log, nil)),
			Wanted:   func() ([]config.Tunnel, bool) { return []config.Tunnel{conf}, true },
			Ping:     func([]Ping) {},
			Underlay: func(context.Context, []netip.Addr) (map[netip.Addr]int, error) { return nil, nil },
			Changed:  func(string) error { return failing() },
			Withhold: func(_ context.Context, down []Down) error {
				if len(down) != 1 || down[0].Peer != "a" {
					t.Errorf("withheld %+v", down)
				}
				mu.Lock()
				defer mu.Unlock()
				tries = append(tries, time.Now())
				return busy
			},
			Report: func(list []Problem) {
				mu.Lock()
				defer mu.Unlock()
				if told = ""; len(list) > 0 {
					told = list[0].Text
				}
			},
		})
		done := make(chan error)
		go func() { done <- w.Run(ctx) }()
		look := func(withdrawn bool) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if len(tries) == 0 || strings.HasSuffix(told, "its routes are withdrawn") != withdrawn {
				t.Errorf("after %d tries: %q", len(tries), told)
			}
		}
		time.Sleep(settling + 10*time.Second) // which the clock of the bubble skips
		for range 5 {
			poke(w.dirty)
			look(false)
		}
		mu.Lock()
		for i := 1; i < len(tries); i++ {
			if since := tries[i].Sub(tries[i-1]); since != withholdEvery {
				t.Errorf("try %d came %s after the one before", i, since)
			}
		}
		if n := strings.Count(log.String(), "cannot be taken away"); len(tries) < 3 || n != 1 {
			t.Errorf("%d tries, of which %d are in the log", len(tries), n)
		}
		busy = nil
		mu.Unlock()
		time.Sleep(2 * withholdEvery)
		look(true)
		mu.Lock()
		n := len(tries)
		mu.Unlock()
		time.Sleep(time.Minute)
		if synctest.Wait(); len(tries) != n {
			t.Errorf("%d tries after one that went well", len(tries)-n)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
