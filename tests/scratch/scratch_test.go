package scratch

import (
	"errors"
	"os"
	"testing"
)

func TestWhatAKilledRunLeftIsRemoved(t *testing.T) {
	const name = "sluice-scratch"
	ended, running := place(name, 1<<22+1), place(name, os.Getppid()) // no pid is above 1<<22
	for _, path := range []string{ended, running} {
		if err := os.MkdirAll(path, 0o700); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(path) })
	}
	dir, err := Dir(name)
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err != nil {
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
