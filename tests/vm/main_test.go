package vm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// dir is Boot's of all guests. No test is parallel: an emulated processor is busy all the time, and two of them leave nothing to the
// packages that are tested beside this one.
var dir = place(os.Getpid())

func place(pid int) string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("sluice-guests-%d", pid))
}

func TestMain(m *testing.M) {
	os.Exit(func() int {
		if err := errors.Join(sweep(), os.MkdirAll(dir, 0o700)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		return m.Run()
	}())
}

// sweep removes what processes left that were killed or ran out of time.
func sweep() error {
	const any = 0
	pattern := strings.TrimSuffix(place(any), strconv.Itoa(any))
	left, err := filepath.Glob(pattern + "*")
	errs := []error{err}
	for _, path := range left {
		pid, err := strconv.Atoi(strings.TrimPrefix(path, pattern))
		if err == nil && errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
			errs = append(errs, os.RemoveAll(path))
		}
	}
	return errors.Join(errs...)
}

func TestWhatAKilledRunLeftIsRemoved(t *testing.T) {
	ended, running := place(1<<22+1), place(os.Getppid()) // no pid is above 1<<22
	for _, path := range []string{ended, running} {
		if err := os.MkdirAll(path, 0o700); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(path) })
	}
	if err := sweep(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(ended); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of an ended process: %v", err)
	}
	for _, path := range []string{running, dir} {
		if _, err := os.Stat(path); err != nil {
			t.Errorf("of a process that runs: %v", err)
		}
	}
}
