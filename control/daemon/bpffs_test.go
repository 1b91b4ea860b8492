package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/xdp/pin"
)

func TestOnlyOneDaemonHoldsABPFDir(t *testing.T) {
	parent, err := os.MkdirTemp(bpffs, "sluice-lock-")
	if err != nil {
		t.Fatalf("%v: a bpffs must be mounted at %s", err, bpffs)
	}
	t.Cleanup(func() { _ = os.RemoveAll(parent) })
	dir := filepath.Join(parent, "a")
	unlock, err := lockBPFDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockBPFDir(dir); err == nil || !strings.Contains(err.Error(), "another sluice works on bpf_dir "+dir) {
		t.Errorf("a second lock: %v", err)
	}
	if err := os.Mkdir(filepath.Join(dir, "maps"), 0o700); err != nil {
		t.Fatal(err)
	}
	unlock()
	if unlock, err = lockBPFDir(dir); err != nil {
		t.Fatalf("after the first has gone: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "maps")); err != nil {
		t.Fatalf("what is pinned stays: %v", err)
	}
	unlock()
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an empty directory stays: %v", err)
	}
}

func TestABPFDirElsewhereIsRefusedAndNotMade(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pins")
	if _, err := lockBPFDir(dir); !errors.Is(err, pin.ErrNotBPFFS) {
		t.Errorf("on a disk: %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it was made: %v", err)
	}
	if _, err := lockBPFDir("pins"); err == nil || !strings.Contains(err.Error(), "absolute path") {
		t.Errorf("a relative path: %v", err)
	}
}
