package pin

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
)

// Holds says whether every one of these hooks has its link and its slot, and whether a complete generation of the owner is there whose
// digest begins with this one. It reads names only: whether pins hold what they should is not asked.
func (d *Dir) Holds(hooks []Hook, owner, digest string) (bool, error) {
	listed := map[string][]string{}
	for _, h := range hooks {
		for _, path := range []string{d.linkPath(h), d.slotPath(h)} {
			room := filepath.Dir(path)
			if _, ok := listed[room]; !ok {
				var err error
				if listed[room], err = names(room); err != nil {
					return false, err
				}
			}
			if _, ok := slices.BinarySearch(listed[room], filepath.Base(path)); !ok {
				return false, nil
			}
		}
	}
	digests, err := d.Generations(owner)
	return slices.ContainsFunc(digests, func(is string) bool { return strings.HasPrefix(is, digest) }), err
}

// EachRoom calls each for the directories at and below path, which is in d or d itself, that have what Holds looks for, and before it looks
// into one: who watches it then misses nothing.
func (d *Dir) EachRoom(path string, each func(room string)) error {
	return filepath.WalkDir(path, func(at string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // it went meanwhile
			return nil
		case err != nil || !e.IsDir():
			return err
		case filepath.Dir(at) == filepath.Join(d.path, gensDir): // a generation, which Holds knows by its name
			return fs.SkipDir
		}
		each(at)
		return nil
	})
}
