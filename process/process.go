// Package process keeps small processes of the same binary, which hold what must not stop with the daemon: how one is
// started, found again, spoken to and ended. It knows nothing of what they are for.
//
// The daemon binds a unix socket, in its own network namespace, and hands it down beside other files; the next daemon finds the
// process by that socket, and the kernel tells who listens there (Place, Client; Server is the other end). A process that
// nobody speaks to is found by a lock on a file instead (Lock).
package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Errors that a caller may branch on.
var (
	// ErrNone says that no process answers.
	ErrNone = errors.New("no process answers")
	// ErrForeign says that somebody else is where our process should be.
	ErrForeign = errors.New("is not a process of Sluice's")
)

// Processes of ours that only have to go: one that speaks other requests, one that hangs.
var (
	errVersion = errors.New("the process is of another version")
	errStuck   = fmt.Errorf("the process has not answered in %s", answerTime)
)

// Replaceable says whether err, of Adopt, is about a process of ours that only has to go; Evict makes it go.
func Replaceable(err error) bool { return errors.Is(err, errVersion) || errors.Is(err, errStuck) }

// Limits of waiting.
const (
	answerTime = 10 * time.Second // for an answer; a process that needs more is stuck
	endTime    = 2 * time.Second  // for an end in good order, then it is killed
)

// Descriptors that are handed down: the socket of Start, and the first of its files.
const (
	socketFD  = 3
	FirstFile = 4
)

// Spawn starts a program that lives on when the caller does not, in the network namespace of the calling thread. files are
// its descriptors from 3 on, blocking ones (os/exec makes them so). gone is closed once it has ended, and cmd.ProcessState is set by
// then; both as long as the caller lives.
func Spawn(command []string, stderr *os.File, files ...*os.File) (cmd *exec.Cmd, gone <-chan struct{}, err error) {
	cmd = exec.Command(command[0], command[1:]...)
	cmd.Args[0] = "sluice"
	cmd.Env = []string{} // nil would be the daemon's
	cmd.Dir = "/"
	if stderr != nil {
		cmd.Stderr = stderr
	}
	cmd.ExtraFiles = files
	// A session of its own: what ends the daemon's process group leaves it be.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // so that it is no zombie; ProcessState tells how it ended
		close(ended)
	}()
	return cmd, ended, nil
}

// end ends a process, and waits until it has.
func end(pidfd int) error {
	for _, signal := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		if err := unix.PidfdSendSignal(pidfd, signal, nil, 0); errors.Is(err, unix.ESRCH) {
			return nil
		} else if err != nil {
			return err
		}
		if ended(pidfd, endTime) {
			return nil
		}
	}
	return errors.New("it does not end")
}

// ended waits for the end of a process; a pidfd can be read from then on.
func ended(pidfd int, wait time.Duration) bool {
	deadline := time.Now().Add(wait)
	for {
		fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(max(0, time.Until(deadline)).Milliseconds()))
		if n > 0 || err == nil || !errors.Is(err, unix.EINTR) {
			return n > 0
		}
	}
}

// NetNS returns the inode of a process's network namespace.
func NetNS(pid int) (uint64, error) {
	info, err := os.Stat(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return 0, err
	}
	return info.Sys().(*syscall.Stat_t).Ino, nil
}

// Command is a process's command line; none of one that has ended.
func Command(pid int) []string {
	command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return strings.Split(strings.TrimRight(string(command), "\x00"), "\x00")
}

// isCommand says whether a command line is that of the process called name with the socket at path.
func (k Kind) isCommand(command []string, name, path string) bool {
	n := len(command)
	return n > 3 && slices.Equal(command[n-3:], []string{k.Verb, name, path})
}

// runs says whether a process was started as the one called name, with the socket at path, and lives in the place's network
// namespace.
func (p Place) runs(pid int, name, path string) bool {
	ns, err := NetNS(pid)
	return err == nil && ns == p.NetNS && p.isCommand(Command(pid), name, path)
}

// remove removes files that may be gone.
func remove(files ...string) error {
	var failed []error
	for _, file := range files {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}
