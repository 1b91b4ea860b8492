package feed

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"sluice/control/config"
)

// stamp tells one state of a file from another. The zero stamp is no file.
type stamp struct {
	dev, ino     uint64
	size         int64
	mtime, ctime unix.Timespec
}

func stampOf(path string) stamp {
	var s unix.Stat_t
	if err := unix.Stat(path, &s); err != nil {
		return stamp{}
	}
	return stamp{s.Dev, s.Ino, s.Size, s.Mtim, s.Ctim}
}

// isWritten says whether an error is only that of a file that changes.
func isWritten(err error) bool { return errors.Is(err, errWritten) }

// errWritten says that a file changes while it is looked at.
var errWritten = errors.New("is being written")

// read reads a file that nobody writes. The stamp is that of what was read.
func read(path string) ([]netip.Prefix, stamp, error) {
	before := stampOf(path)
	if beingWritten(path) {
		return nil, before, fmt.Errorf("%s %w", path, errWritten)
	}
	contents, err := config.ReadSetFile(path)
	if stampOf(path) != before {
		return nil, before, fmt.Errorf("%s %w", path, errWritten)
	}
	if err == nil && contents == nil {
		contents = []netip.Prefix{} // nil is none
	}
	return contents, before, err
}

// beingWritten says whether any process has a file open for writing: then a read lease on it is refused (fcntl(2),
// F_SETLEASE). Where the filesystem has no leases it says no, and a file is taken once it has not changed for a while.
func beingWritten(path string) bool {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var s unix.Stat_t
	if err := unix.Fstat(fd, &s); err != nil || s.Mode&unix.S_IFMT != unix.S_IFREG {
		return false
	}
	_, err = unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_RDLCK)
	if err == nil {
		// Given back at once: while it is held, who opens the file for writing waits.
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_UNLCK)
	}
	return errors.Is(err, unix.EAGAIN)
}
