package engine

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrLocked says that another daemon works on the state directory.
var ErrLocked = errors.New("state directory in use")

// Lock takes stateDir for this process, until unlock or the end of the process. The lock is the kernel's flock; the pid
// in the file is for people. The file stays: removing it would let two processes hold locks on two files of one name. A disk that takes
// nothing more is no reason not to come up: what was confirmed can be read.
func Lock(stateDir string) (unlock func(), err error) {
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return nil, fmt.Errorf("state_dir %s: %w", stateDir, err)
	}
	path := filepath.Join(stateDir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	readOnly := errors.Is(err, unix.EROFS)
	if readOnly {
		f, err = os.Open(path)
	}
	if readOnly && errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("state_dir %s is on a file system that is read-only, and holds nothing to start from; mount it writable, or give another state_dir", stateDir)
	}
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("locking %s: %w", path, err)
		}
		// The holder may not have written its pid yet.
		pid, _ := io.ReadAll(io.LimitReader(f, 20))
		who := "another sluice"
		if p := strings.TrimSpace(string(pid)); p != "" && !readOnly {
			who += " (pid " + p + ")"
		}
		return nil, fmt.Errorf("%w: %s holds %s; stop it, or give this one another state_dir", ErrLocked, who, path)
	}
	if readOnly { // the pid is a former one's
		return func() { f.Close() }, nil
	}
	if err := writePID(f); err != nil && !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) { // then who asks is told no pid
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return func() { f.Close() }, nil
}

func writePID(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	return err
}
