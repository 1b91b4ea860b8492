package disk

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tree is every file below a directory, with its contents.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		out[name] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func put(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := Replace(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
}

func use(t *testing.T, dir string, format, newer int) string {
	t.Helper()
	got, err := adopt(dir, format)
	if err != nil || got != newer {
		t.Fatalf("format %d: a newer one %d, want %d; %v", format, got, newer, err)
	}
	return formatDir(dir, format)
}

func same(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	if !maps.Equal(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// A newer version, a roll-back, and an update again: nobody writes into what another format holds, and what was in use last goes on.
func TestVersionsWithOtherFormatsTakeTurns(t *testing.T) {
	dir := t.TempDir()
	old := map[string]string{"revisions/1/config.yaml": "one", "bans.json": "b1", "bans.journal": "j1", "sets/x.netset": "s"}
	common := map[string]string{"keys/fra1.key": "secret", "ipsec/fra1.json": "epoch 7", "host.json": "h", "lock": "1", "journal/x/system.journal": "logs"}
	put(t, dir, old)
	put(t, dir, common)
	if use(t, dir, 1, 0) != dir {
		t.Error("format 1 has a directory of its own")
	}
	if _, err := os.Lstat(filepath.Join(dir, formatFile)); err == nil {
		t.Error("what was there before formats has a file now")
	}

	// The update begins with all of it, and with nothing that is common to both.
	second := use(t, dir, 2, 0)
	same(t, "after the update", tree(t, second), old)
	put(t, second, map[string]string{"bans.json": `{"schema": 99}`, "revisions/2/config.yaml": "two", "new.db": "x"})
	f, err := os.OpenFile(filepath.Join(second, "bans.journal"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(" and more"); err != nil || f.Close() != nil {
		t.Fatal(err)
	}
	written := tree(t, second)

	// The old version comes back to what it had, and leaves the newer one's alone.
	for range 2 {
		use(t, dir, 1, 2)
		for name, text := range old {
			if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != text {
				t.Errorf("%s is %q, %v", name, got, err)
			}
		}
		same(t, "what is newer", tree(t, second), written)
	}
	put(t, dir, map[string]string{"bans.json": "b3", "revisions/3/config.yaml": "three"})
	same(t, "what is newer", tree(t, second), written)

	// The update again: what was in use last goes on, and what it had itself is kept aside.
	use(t, dir, 2, 0)
	want := maps.Clone(old)
	want["bans.json"], want["revisions/3/config.yaml"] = "b3", "three"
	same(t, "after the second update", tree(t, second), want)
	same(t, "aside", tree(t, second+".before"), written)
	use(t, dir, 2, 0)
	same(t, "after a restart", tree(t, second), want)

	third := use(t, dir, 3, 0)
	same(t, "one further", tree(t, third), want)
	for name, text := range common {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != text {
			t.Errorf("%s is %q, %v", name, got, err)
		}
	}
}

// A crash before the file says so leaves the former format in use; the copy is begun anew.
func TestAnInterruptedTakeOverBeginsAnew(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, map[string]string{"bans.json": "b1", "format-2.new/bans.json": "half", "format-2/bans.json": "of an update that was cut off"})
	second := use(t, dir, 2, 0)
	same(t, "taken over", tree(t, second), map[string]string{"bans.json": "b1"})
	if _, err := os.Lstat(second + ".new"); err == nil {
		t.Error("the copy is still there")
	}
}

func TestAFormatThatCannotBeReadIsSaid(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, map[string]string{"format": "two", "bans.json": "b"})
	if _, err := adopt(dir, 1); err == nil || !strings.Contains(err.Error(), `format holds "two"`) {
		t.Error(err)
	}
	if got, err := adopt(filepath.Join(dir, "none"), 1); got != 0 || err != nil {
		t.Error(got, err)
	}
}
