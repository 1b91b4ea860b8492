package keys

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAKeyThatOthersMayReplaceIsRefused(t *testing.T) {
	for _, c := range []struct {
		mode fs.FileMode
		uid  int
		says string // "": it is safe
	}{
		{0o700, 0, ""},
		{0o750, 0, ""},
		{0o755, 0, ""},
		{0o770, 0, "mode 0770"},
		{0o777, 0, "mode 0777"},
		{0o777 | fs.ModeSticky, 0, "mode 0777"},
		{0o702, 0, "mode 0702"},
		{0o700, 65534, "belongs to user 65534"},
	} {
		dir := filepath.Join(t.TempDir(), "keys")
		path := filepath.Join(dir, "k")
		if _, err := Generate(path); err != nil {
			t.Fatal(err)
		}
		link := filepath.Join(t.TempDir(), "link")
		if err := errors.Join(os.Chmod(dir, c.mode), os.Chown(dir, c.uid, -1), os.Symlink(path, link)); err != nil {
			t.Fatal(err)
		}
		for _, p := range []string{path, link} {
			err := CheckPlace(p)
			if _, loads := Load(p); loads != nil {
				t.Errorf("mode %04o of user %d: %v", c.mode, c.uid, loads)
			}
			switch {
			case c.says == "" && err != nil:
				t.Errorf("mode %04o of user %d: %v", c.mode, c.uid, err)
			case c.says != "" && (!errors.Is(err, ErrExposed) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), " "+dir)):
				t.Errorf("mode %04o of user %d: %v, want one that says %s and names %s", c.mode, c.uid, err, c.says, dir)
			}
		}
	}
}

func TestALinkThatOthersMayReplaceIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys", "k")
	if _, err := Generate(path); err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(t.TempDir(), "open")
	if err := errors.Join(os.Mkdir(open, 0o700), os.Chmod(open, 0o777), os.Symlink(path, filepath.Join(open, "k"))); err != nil {
		t.Fatal(err)
	}
	if err := CheckPlace(filepath.Join(open, "k")); !errors.Is(err, ErrExposed) {
		t.Errorf("a link in a directory of mode 0777: %v", err)
	}
}

func TestADirectoryOfOurOwnIsClosedToWhoMayLookIntoIt(t *testing.T) {
	for _, c := range []struct{ mode, was, then fs.FileMode }{
		{0o700, 0, 0o700}, {0o500, 0, 0o500}, {0o755, 0o755, 0o700}, {0o750, 0o750, 0o700}, {0o711, 0o711, 0o700},
		{0o770, 0, 0o770}, {0o777, 0, 0o777}, // others may have been here already
	} {
		dir := OwnDir(t.TempDir())
		if err := errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, c.mode)); err != nil {
			t.Fatal(err)
		}
		was, err := Tighten(dir)
		if err != nil || was != c.was {
			t.Errorf("mode %04o: it was %04o, %v", c.mode, was, err)
		}
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != c.then {
			t.Errorf("mode %04o is now %v, %v", c.mode, info.Mode(), err)
		}
	}
}

func TestADirectoryThatIsNotOurOwnIsLeftAlone(t *testing.T) {
	theirs := t.TempDir()
	if err := os.Chmod(theirs, 0o755); err != nil {
		t.Fatal(err)
	}
	state := t.TempDir()
	if was, err := Tighten(OwnDir(state)); was != 0 || err != nil {
		t.Errorf("none: %04o, %v", was, err)
	}
	if err := os.Symlink(theirs, OwnDir(state)); err != nil {
		t.Fatal(err)
	}
	if was, err := Tighten(OwnDir(state)); was != 0 || err != nil {
		t.Errorf("a link: %04o, %v", was, err)
	}
	if info, err := os.Stat(theirs); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("theirs is now %v, %v", info.Mode(), err)
	}
}
