package health

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"sluice/control/disk"
)

var (
	one = netip.MustParseAddr("198.18.0.1")
	two = netip.MustParseAddr("2001:db8::2")
)

func watcher(t *testing.T, path, boot string) *Watcher {
	t.Helper()
	w := New(Options{Path: path, BootID: boot, Log: slog.New(slog.DiscardHandler), Notify: func(string) {}, Changed: func(string) error { return nil }})
	if err := w.Load(); err != nil {
		t.Fatal(err)
	}
	return w
}

func TestAnAddressIsGivenUpAndTakenAgain(t *testing.T) {
	w := watcher(t, filepath.Join(t.TempDir(), "health.json"), "boot")
	wanted := []netip.Addr{one, two}
	for i, step := range []struct {
		answer bool
		times  int
		want   bool
	}{
		{false, 10, false}, {true, 1, true}, // the first answer counts
		{false, DownAfter - 1, true}, {true, 1, true}, {false, DownAfter - 1, true}, {false, 1, false},
		{true, UpAfter - 1, false}, {false, 1, false}, {true, UpAfter - 1, false}, {true, 1, true},
	} {
		for range step.times {
			w.judge(wanted, map[netip.Addr]bool{one: step.answer})
		}
		if got := w.Reached(); got[one] != step.want || got[two] {
			t.Fatalf("step %d: %v", i, got)
		}
	}
	w.judge([]netip.Addr{two}, nil)
	w.judge(wanted, nil)
	if got := w.Reached(); len(got) != 0 {
		t.Errorf("one that nobody asked for meanwhile: %v", got)
	}
}

func TestWhatWasFoundHoldsOverARestartAndNotOverAReboot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "health.json")
	w := watcher(t, path, "boot")
	if err := w.tell(nil, map[netip.Addr]bool{one: true, two: true}); err != nil {
		t.Fatal(err)
	}
	if got := watcher(t, path, "boot").Reached(); !maps.Equal(got, map[netip.Addr]bool{one: true, two: true}) {
		t.Errorf("after a restart: %v", got)
	}
	if got := watcher(t, path, "another").Reached(); len(got) != 0 {
		t.Errorf("after a reboot: %v", got)
	}
}

func TestAFullDiskHoldsUpNoAnnouncement(t *testing.T) {
	path := filepath.Join(t.TempDir(), "health.json")
	obstacle := filepath.Join(path+".new", "in the way")
	if err := os.MkdirAll(obstacle, 0o700); err != nil {
		t.Fatal(err)
	}
	w := watcher(t, path, "boot")
	w.opts.Faults = disk.NewFaults(slog.New(slog.DiscardHandler), func() {})
	told := ""
	w.opts.Changed = func(why string) error { told = why; return nil }
	if err := w.tell(nil, map[netip.Addr]bool{one: true}); err != nil || told != "198.18.0.1 answers" {
		t.Errorf("told %q, %v", told, err)
	}
	if !w.unsaved || !w.opts.Faults.Unwritten("health.json") {
		t.Error("nobody knows that it is not on the disk")
	}
	if err := os.RemoveAll(path + ".new"); err != nil {
		t.Fatal(err)
	}
	if w.save(); w.unsaved || w.opts.Faults.Unwritten() {
		t.Error("it is on the disk, and nobody knows")
	}
	if got := watcher(t, path, "boot").Reached(); !got[one] {
		t.Errorf("after a restart: %v", got)
	}
}

// TestAChangeIsToldUntilItIsTaken: the engine may be in the middle of something.
func TestAChangeIsToldUntilItIsTaken(t *testing.T) {
	var refusals atomic.Int32
	refusals.Store(2)
	taken := make(chan string, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var w *Watcher
	w = New(Options{
		Path: filepath.Join(t.TempDir(), "health.json"), Log: slog.New(slog.DiscardHandler), Notify: func(string) {},
		Wanted: func() []netip.Addr { return []netip.Addr{one, two} },
		Reach: func(_ context.Context, a netip.Addr) error {
			if a == one {
				return nil
			}
			return errors.New("silent")
		},
		Changed: func(why string) error {
			w.Wake()
			if refusals.Add(-1) >= 0 {
				return errors.New("busy")
			}
			taken <- why
			return nil
		},
	})
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	if why := <-taken; why != "198.18.0.1 answers" {
		t.Errorf("told %q", why)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
