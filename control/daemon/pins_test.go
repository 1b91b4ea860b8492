package daemon

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// inotify does not care what file system it is.
func TestDeletedPinsAreHeardAlsoInADirectoryThatWasMadeAnew(t *testing.T) {
	above := t.TempDir()
	dir := filepath.Join(above, "sluice")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	made := func() {
		t.Helper()
		must(os.MkdirAll(filepath.Join(dir, "links", "xdp"), 0o700))
		must(os.MkdirAll(filepath.Join(dir, "gen", "xdp-1"), 0o700))
		must(os.WriteFile(filepath.Join(dir, "links", "xdp", "eth0"), nil, 0o600))
	}
	made()
	wake := make(chan struct{}, 1)
	w := watchPins(dir, wake, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.run(ctx) }()
	t.Cleanup(func() {
		cancel()
		must(<-ended)
		w.close()
	})
	const patience = 30 * time.Second
	heard := func(what string) {
		t.Helper()
		select {
		case <-wake:
		case <-time.After(patience):
			t.Fatalf("not heard in %s: %s", patience, what)
		}
	}
	// Nothing else: what was watched before a deletion is not what is made behind it.
	watched := func(rooms ...string) {
		t.Helper()
		slices.Sort(rooms)
		for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			have := w.watcher.WatchList()
			if slices.Sort(have); slices.Equal(have, rooms) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("watched are %q, want %q", have, rooms)
			}
		}
	}
	for _, c := range []struct {
		what string
		do   func() error
	}{
		{"a link", func() error { return os.Remove(filepath.Join(dir, "links", "xdp", "eth0")) }},
		{"a generation with what it holds", func() error { return os.RemoveAll(filepath.Join(dir, "gen", "xdp-1")) }},
		{"a directory that was moved away", func() error { return os.Rename(filepath.Join(dir, "links"), filepath.Join(above, "away")) }},
	} {
		must(c.do())
		heard(c.what)
	}
	must(os.RemoveAll(filepath.Join(above, "away")))
	for range 3 {
		must(os.RemoveAll(dir))
		heard("the whole directory")
		watched(above)
		made()
		watched(above, dir, filepath.Join(dir, "links"), filepath.Join(dir, "links", "xdp"), filepath.Join(dir, "gen"))
		heard("the directory again") // it wakes, as something may have gone before it was watched
	}
	for len(wake) > 0 {
		<-wake
	}
	must(os.WriteFile(filepath.Join(above, "other"), nil, 0o600))
	must(os.Remove(filepath.Join(above, "other")))
	must(os.Remove(filepath.Join(dir, "links", "xdp", "eth0")))
	heard("a link in the directory that was made anew")
}
