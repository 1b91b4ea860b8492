// Package disk writes the files of the state directory that no revision holds.
package disk

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Replace puts data in the place of path, mode 0600: a reader, also one after a crash, sees the old contents or the new
// ones. Only one process may do so at a time; the lock on the state directory sees to that.
func Replace(path string, data []byte) error {
	f, err := Create(path)
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return errors.Join(err, f.Abandon())
	}
	return errors.Join(f.Commit(), f.Close())
}

// File is a new file that takes the place of path when it is committed.
type File struct {
	*os.File
	path string
}

// Create begins a file beside path. Commit or Abandon ends what it began.
func Create(path string) (*File, error) {
	fresh := path + ".new"
	// What a crash left.
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f, err := os.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	return &File{f, path}, nil
}

// Commit puts the file in its place once its contents are on the disk. It stays open. After an error the old one is there.
func (f *File) Commit() error {
	if err := f.Sync(); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	if err := os.Rename(f.Name(), f.path); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(f.path))
}

// Abandon removes the file.
func (f *File) Abandon() error { return errors.Join(f.Close(), os.Remove(f.Name())) }

// SyncDir makes the names in a directory durable.
func SyncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Full says whether a file could not be written because its disk has no room, or takes nothing more.
func Full(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EROFS)
}
