package disk

import (
	"os"
	"path/filepath"
	"testing"
)

func TestReplaceLeavesTheOldContentsOrTheNewOnes(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	holds := func(want string) {
		t.Helper()
		if b, err := os.ReadFile(path); err != nil || string(b) != want {
			t.Errorf("it holds %q, %v, want %q", b, err, want)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
			t.Errorf("beside it are %v %v", entries, err)
		}
	}
	for _, text := range []string{"one", "two"} {
		// A crash before the rename leaves this.
		if err := os.WriteFile(path+".new", []byte("torn, and longer than what follows"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Replace(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
		holds(text)
	}
	f, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("never"); err != nil {
		t.Fatal(err)
	}
	if err := f.Abandon(); err != nil {
		t.Fatal(err)
	}
	holds("two")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := Replace(filepath.Join(dir, "none", "f"), nil); err == nil {
		t.Error("a directory that is not there is no error")
	}
}
