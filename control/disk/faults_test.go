package disk

import (
	"bytes"
	"errors"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

func TestWhatCannotBeWrittenIsToldWhenItChanges(t *testing.T) {
	var log bytes.Buffer
	told := 0
	f := NewFaults(slog.New(slog.NewTextHandler(&log, nil)), func() { told++ })
	full := errors.New("no space left on device")
	for range 5 {
		f.Wrote("host.json", full)
	}
	f.Wrote("bans.json", full)
	f.Damaged("drain.json", "the box stays drained")
	unwritten, damaged := f.List()
	if !slices.Equal(unwritten, []string{"bans.json: no space left on device", "host.json: no space left on device"}) ||
		!slices.Equal(damaged, []string{"drain.json: the box stays drained"}) {
		t.Errorf("%q %q", unwritten, damaged)
	}
	if n := strings.Count(log.String(), "file=host.json"); n != 1 || told != 3 {
		t.Errorf("told %d times, and %d of host.json in the log:\n%s", told, n, &log)
	}
	f.Wrote("host.json", errors.New("read-only file system"))
	if n := strings.Count(log.String(), "level=ERROR"); n != 3 {
		t.Errorf("%d errors are in the log:\n%s", n, &log)
	}
	if !f.Unwritten() || !f.Unwritten("x", "host.json") || f.Unwritten("x") {
		t.Error("not all is known to be unwritten")
	}
	for _, file := range []string{"host.json", "bans.json", "drain.json", "never.json"} {
		f.Wrote(file, nil)
	}
	if unwritten, damaged := f.List(); len(unwritten)+len(damaged) > 0 || f.Unwritten() {
		t.Errorf("left: %q %q", unwritten, damaged)
	}
	if n := strings.Count(log.String(), "written again"); n != 2 {
		t.Errorf("%d files are written again:\n%s", n, &log)
	}
	(*Faults)(nil).Wrote("x", full)
	(*Faults)(nil).Damaged("x", "y")
}

// What is told last must be what holds: who hears of a change reads the list, and then keeps it.
func TestWhoIsToldOfTwoChangesAtOnceEndsWithTheLast(t *testing.T) {
	for range 100 {
		var f *Faults
		var mu sync.Mutex
		var kept []string
		read, keep, once := make(chan struct{}), make(chan struct{}), sync.Once{}
		f = NewFaults(slog.New(slog.DiscardHandler), func() {
			list, _ := f.List()
			once.Do(func() {
				close(read)
				<-keep
			})
			mu.Lock()
			defer mu.Unlock()
			kept = list
		})
		var wait sync.WaitGroup
		wait.Go(func() { f.Wrote("host.json", errors.New("no space left on device")) })
		<-read
		wait.Go(func() { f.Wrote("host.json", nil) })
		for f.Unwritten() {
			runtime.Gosched()
		}
		close(keep)
		if wait.Wait(); len(kept) > 0 {
			t.Fatalf("kept in the end: %q", kept)
		}
	}
}
