package keys

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// Whatever fails, the answer is right about which key the present file holds, and no key but the oldest is lost.
func TestWhatAdvanceSaysIsWhatTheFileHolds(t *testing.T) {
	failed := errors.New("input/output error")
	for name, c := range map[string]struct {
		arrange func(f Files) error
		sync    func(f Files) error
		changed bool
		err     error
		next    string // what it holds in the end; "": it is not there
		old     string
	}{
		"all is well":               {nil, nil, true, nil, "", "one"},
		"the disk does not take it": {nil, func(Files) error { return failed }, false, failed, "two", ""},
		"nor back, for the name is taken": {nil, func(f Files) error {
			return errors.Join(failed, os.WriteFile(f.Next, []byte("three"), 0o600))
		}, true, failed, "three", "one"},
		"nor back, for the old one is gone": {nil, func(f Files) error {
			return errors.Join(failed, os.Remove(f.Old))
		}, true, fs.ErrNotExist, "", ""},
		"nothing is staged": {func(f Files) error { return os.Remove(f.Next) }, nil, false, fs.ErrNotExist, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := FilesOf(filepath.Join(t.TempDir(), "k"))
			err := errors.Join(os.WriteFile(f.Old, []byte("zero"), 0o600), os.WriteFile(f.Present, []byte("one"), 0o600), os.WriteFile(f.Next, []byte("two"), 0o600))
			if err == nil && c.arrange != nil {
				err = c.arrange(f)
			}
			if err != nil {
				t.Fatal(err)
			}
			changed, err := f.advance(func(dir string) error {
				if dir != filepath.Dir(f.Present) || text(t, f.Present) != "two" {
					t.Errorf("synced %s, which holds %q", dir, text(t, f.Present))
				}
				if c.sync == nil {
					return nil
				}
				return c.sync(f)
			})
			if changed != c.changed || !errors.Is(err, c.err) {
				t.Errorf("changed %v, %v", changed, err)
			}
			present := map[bool]string{false: "one", true: "two"}[changed]
			if got := [3]string{text(t, f.Present), text(t, f.Next), text(t, f.Old)}; got != [3]string{present, c.next, c.old} {
				t.Errorf("present, next and old hold %q, want %q, %q and %q", got, present, c.next, c.old)
			}
		})
	}
}

func text(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return string(data)
}

func TestAKeyBehindALinkChangesForAllWhoNameIt(t *testing.T) {
	real, dir := filepath.Join(t.TempDir(), "keys", "k"), t.TempDir()
	link, missing := filepath.Join(dir, "link"), filepath.Join(dir, "x", "..", "missing")
	if _, err := Generate(real); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	f := FilesOf(link)
	if f != FilesOf(real) || f.Present != real || f.Next != real+".next" || f.Old != real+".old" {
		t.Errorf("behind the link %+v", f)
	}
	if got := FilesOf(missing).Present; got != filepath.Join(dir, "missing") {
		t.Errorf("of none %s", got)
	}
	public, err := Generate(f.Next)
	if err != nil {
		t.Fatal(err)
	}
	if changed, err := f.Advance(); !changed || err != nil {
		t.Fatal(changed, err)
	}
	for _, file := range []string{link, real} {
		if got, err := PublicKey(file); got != public || err != nil {
			t.Errorf("%s holds the key of %s, want %s: %v", file, got, public, err)
		}
	}
	if at, err := os.Readlink(link); at != real || err != nil {
		t.Errorf("the link leads to %s, %v", at, err)
	}
}
