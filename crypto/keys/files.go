package keys

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Files are where a tunnel's private keys are: the present one, the one that is staged to follow it, and the one before.
type Files struct{ Present, Next, Old string }

// FilesOf returns the files beside the one that a configuration names. Links are followed: whoever names the same file, by
// whatever link, is to see its key change. A file that is not there has its own name.
func FilesOf(path string) Files {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	path = filepath.Clean(path)
	return Files{Present: path, Next: path + ".next", Old: path + ".old"}
}

// Advance makes the next key the present one, and that the old one. At any moment there is a present file, and it holds one key
// or the other. changed says which in the end, also beside an error: true, the next one, which a power cut may take back.
func (f Files) Advance() (changed bool, err error) { return f.advance(syncDir) }

func (f Files) advance(sync func(dir string) error) (changed bool, err error) {
	if err := os.Remove(f.Old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if err := os.Link(f.Present, f.Old); err != nil {
		return false, err
	}
	if err := os.Rename(f.Next, f.Present); err != nil {
		return false, errors.Join(err, os.Remove(f.Old))
	}
	if err = sync(filepath.Dir(f.Present)); err == nil {
		return true, nil
	}
	// What a power cut leaves is not known now: each step of the way back keeps both keys under some name, too.
	err = fmt.Errorf("the new key is not safely on the disk: %w", err)
	if undo := os.Link(f.Present, f.Next); undo != nil {
		return true, errors.Join(err, undo)
	}
	if undo := os.Rename(f.Old, f.Present); undo != nil {
		return true, errors.Join(err, undo, os.Remove(f.Next))
	}
	return false, err
}
