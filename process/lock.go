package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Lock takes the lock on the file at path, and writes into it the version of the binary that this process was started from. It is held
// until the process ends: the kernel says who has it, and no number in a file can be out of date.
func Lock(path, program string) error {
	// The file is never closed: to close any descriptor of it would give the lock up.
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("lock %s: %w", path, err)
	}
	if err := unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		return fmt.Errorf("lock %s: another process has it: %w", path, err)
	}
	if err := unix.Ftruncate(fd, 0); err != nil { // a former holder's
		return fmt.Errorf("lock %s: %w", path, os.NewSyscallError("ftruncate", err))
	}
	// A full disk costs no more than that nobody knows the version.
	if _, err := unix.Pwrite(fd, []byte(program), 0); err != nil && !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("lock %s: %w", path, os.NewSyscallError("write", err))
	}
	return nil
}

// LockedBy returns the process that has the lock, 0 for nobody.
func LockedBy(path string) (pid int, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	l := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &l); err != nil {
		return 0, fmt.Errorf("lock %s: %w", path, err)
	}
	if l.Type == unix.F_UNLCK {
		return 0, nil
	}
	return int(l.Pid), nil
}

// LockProgram is what Lock has written; "": the process is from before they told.
func LockProgram(path string) (string, error) {
	program, err := os.ReadFile(path)
	return string(program), err
}

// EndLocked ends the process that has the lock and removes the file.
func EndLocked(path string) error {
	pid, err := LockedBy(path)
	if err != nil {
		return err
	}
	if pid != 0 {
		if err := endLocked(path, pid); err != nil {
			return fmt.Errorf("end process %d, which has the lock %s: %w", pid, path, err)
		}
	}
	return remove(path)
}

// endLocked signals a process that is known to have had the lock after it was named, by a descriptor that another process of the same
// number cannot take over.
func endLocked(path string, pid int) error {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	defer unix.Close(pidfd)
	if still, err := LockedBy(path); err != nil || still != pid {
		return err
	}
	return end(pidfd)
}
