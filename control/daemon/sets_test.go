package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/control/compile"
	"sluice/control/config"
	"sluice/control/drain"
	"sluice/control/feed"
	"sluice/control/health"
	"sluice/control/tunnel"
	"sluice/control/workload"
)

// TestAFeedThatDoesNotFitLeavesWhatDid: management: holds 256 entries, which a feed of any kind can exceed.
func TestAFeedThatDoesNotFitLeavesWhatDid(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	write := func(n int) {
		t.Helper()
		var text strings.Builder
		for i := range n {
			fmt.Fprintf(&text, "192.0.%d.%d\n", i/200, i%200)
		}
		beside := path + ".new" // whoever looks reads all or nothing of it
		if err := os.WriteFile(beside, []byte(text.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(beside, path); err != nil {
			t.Fatal(err)
		}
	}
	cfg := parsed(t, `
interfaces: [{name: eth0, role: uplink, addresses: [198.18.0.2/30]}]
sets: [{name: staff, files: [f], watch: true}]
management: {accept: [{name: m, protocol: tcp, ports: [22], from: [staff]}]}
`)
	cfg.Resolve(dir)
	d := &Daemon{hub: newHub(), workloads: workload.New(workload.Options{}), tunnels: tunnel.New(tunnel.Options{}),
		health: health.New(health.Options{}), drain: drain.New(drain.Options{})}
	changed, reports := make(chan string, 100), make(chan string, 100)
	// entries is what compiles, and how much of the feed is in it.
	entries := func() string {
		desired, err := d.compile(cfg, compile.Runtime{}, pretend(cfg))
		if err != nil {
			return "error: " + err.Error()
		}
		return fmt.Sprint(len(desired.XDP.Generation.Failsafe.Rules[0].From))
	}
	d.feeds = feed.New(feed.Options{
		Dir: filepath.Join(dir, "state"), Log: slog.New(slog.DiscardHandler),
		Wanted:  func() ([]string, bool) { return cfg.Watched(), true },
		Changed: func() error { changed <- entries(); return nil },
		Notify:  func(feed.Change) {},
		Report:  func(p []feed.Problem) { reports <- strings.ReplaceAll(fmt.Sprint(p), dir+"/", "") },
	})
	await := func(from <-chan string, want string) {
		t.Helper()
		select {
		case got := <-from:
			if !strings.Contains(got, want) {
				t.Fatalf("got %q, want %q", got, want)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("nothing comes, want %q", want)
		}
	}

	// At first there is nothing to go on with.
	write(300)
	if err := prepareSets(d.feeds, cfg); err != nil {
		t.Fatal(err)
	}
	if got := entries(); !strings.Contains(got, "the rule needs 300 entries of prefix and port range, 256 of 256 are left") {
		t.Errorf("compiled: %s", got)
	}
	write(2)
	if err := prepareSets(d.feeds, cfg); err != nil {
		t.Fatal(err)
	}
	if got := entries(); got != "2" {
		t.Errorf("compiled: %s", got)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.feeds.Run(ctx) }()
	await(reports, "[]")
	write(300)
	await(changed, "2")
	await(reports, "what f holds does not fit: edge.yaml:4:23: management.accept[0]: the rule needs 300 entries")
	write(3)
	await(changed, "3")
	await(reports, "[]")
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestWhoIsTheFirstToWatchAMissingFileIsToldSo(t *testing.T) {
	cfg := parsed(t, "sets: [{name: s, files: [/nowhere/f], watch: true}]")
	d := &Daemon{feeds: feed.New(feed.Options{Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})}
	var list config.Errors
	err := prepareSets(d.feeds, cfg)
	want := "edge.yaml:1:8: sets[0]: cannot read /nowhere/f: no such file or directory; a watched file must be there and good when it is first applied, be it empty"
	if !errors.As(err, &list) || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}
