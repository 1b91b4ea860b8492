package slots

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"sluice/control/disk"
)

// volume is EFI/Linux of the ESP. FAT promises nothing about the order in which changes reach the disk: only sync divides what is
// there after a power cut from what may be.
type volume interface {
	list() ([]entry, error)
	create(name string) (newFile, error)
	open(name string) (readable, error) // what the disk holds, past the page cache
	rename(from, to string) error
	remove(name string) error
	sync() error
	free() (int64, error)
}

// newFile is a file that is being written; Sync makes its contents durable, not its name.
type newFile interface {
	io.WriteCloser
	Sync() error
}

// readable is a file that is read more than once.
type readable interface {
	io.ReaderAt
	io.Closer
}

// entry is one file.
type entry struct {
	name string
	size int64
}

// staged is the end of a name that systemd-boot passes over: it reads *.efi alone.
const staged = ".new"

// directory is the volume of a mounted ESP.
type directory string

// openESP finds EFI/Linux below where the ESP is to be mounted.
func openESP(mount string) (directory, error) {
	dir := filepath.Join(mount, "EFI", "Linux")
	if info, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
		return "", fmt.Errorf("there is no EFI system partition with EFI/Linux at %s: mount it there (systemctl start efi.mount)", mount)
	} else if err != nil {
		return "", err
	}
	return directory(dir), nil
}

func (d directory) path(name string) string { return filepath.Join(string(d), name) }

func (d directory) list() ([]entry, error) {
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return nil, err
	}
	var out []entry
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		if info.Mode().IsRegular() {
			out = append(out, entry{e.Name(), info.Size()})
		}
	}
	return out, nil
}

func (d directory) create(name string) (newFile, error) {
	return os.OpenFile(d.path(name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}

func (d directory) open(name string) (readable, error) {
	f, err := os.Open(d.path(name))
	if err != nil {
		return nil, err
	}
	// What was synced is clean, so the kernel forgets it, and reads the disk. A file system without a disk says no, and that is fine.
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	return f, nil
}

func (d directory) rename(from, to string) error { return os.Rename(d.path(from), d.path(to)) }

func (d directory) remove(name string) error { return os.Remove(d.path(name)) }

// sync is syncfs, then fsync of the directory. FAT renames to a name without clusters and of no length, which it gets when the inode is
// written: fsync of the directory alone would put an empty file on the disk. syncfs of FAT does not flush the disk's cache, and fsync does.
func (d directory) sync() error {
	f, err := os.Open(string(d))
	if err != nil {
		return err
	}
	if err := errors.Join(unix.Syncfs(int(f.Fd())), f.Close()); err != nil {
		return err
	}
	return disk.SyncDir(string(d))
}

func (d directory) free() (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(string(d), &s); err != nil {
		return 0, fmt.Errorf("%s: %w", string(d), err)
	}
	return int64(s.Bavail) * s.Bsize, nil
}
