package disk

import (
	"bytes"
	"errors"
	"log/slog"
	"slices"
	"strings"
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
