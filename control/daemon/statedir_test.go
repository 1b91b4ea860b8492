package daemon

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"sluice/control/disk"
	"sluice/control/host"
)

// Two who replace one file at a time would take the new one from each other.
func TestAFileOfFiltersThatFoundNoRoomIsLeftToWhoWritesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		d := &Daemon{host: &host.Host{}, unwritten: make(chan struct{}, 1), filters: newFilters()} // without what writes the file
		d.faults = disk.NewFaults(slog.New(slog.DiscardHandler), func() { d.unwritten <- struct{}{} })
		done := make(chan error)
		go func() { done <- d.keepState(ctx) }()
		asked := func(want int) {
			t.Helper()
			time.Sleep(roomEvery)
			synctest.Wait()
			n := 0
			for ; len(d.filters.unkept) > 0; n++ {
				<-d.filters.unkept
			}
			if n != want {
				t.Errorf("who writes is asked %d times, want %d", n, want)
			}
		}
		asked(0)
		d.faults.Wrote(filtersName, unix.ENOSPC)
		asked(1)
		asked(1) // again, as it was not written
		d.faults.Wrote(filtersName, nil)
		asked(0)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
