package child

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Place is where the processes of one daemon are found.
type Place struct {
	Dir     string   // of sockets and logs, 0700; made when needed
	Command []string // a program, and its words before NAME and SOCKET; the program answers them with Run
	NetNS   uint64   // inode of the network namespace that the processes live in
}

const (
	prefix     = "tunnel-"
	socketEnds = ".sock"
	logEnds    = ".log" // what the process says to nobody: why it panicked
)

func (p Place) socket(name string) string { return filepath.Join(p.Dir, prefix+name+socketEnds) }

// Adopt returns a client of the process that runs the tunnel called name, and ErrNone where there is none. Its lines
// are handed to say.
func (p Place) Adopt(name string, say func(string)) (*Client, error) {
	return p.adopt(name, p.socket(name), say)
}

func (p Place) adopt(name, path string, say func(string)) (*Client, error) {
	c, err := p.connect(name, path)
	if err != nil {
		return nil, err
	}
	ns, err := netnsOf(c.pid)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = fmt.Errorf("%w at %s: it has just ended", ErrNone, path)
	case err == nil && ns != p.NetNS:
		err = fmt.Errorf("process %d of tunnel %s lives in another network namespace: give this daemon a state directory of its own", c.pid, name)
	case err == nil:
		err = c.watch(say)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Replaceable says whether err, of Adopt, is about a process of ours that only has to go; Evict makes it go.
func Replaceable(err error) bool { return errors.Is(err, errVersion) || errors.Is(err, errStuck) }

// Evict ends a process that Replaceable was said of.
func (p Place) Evict(name string) error {
	path := p.socket(name)
	conn, err := dial(path)
	if err != nil {
		return err
	}
	defer conn.Close()
	pidfd, err := pidfdOf(conn)
	if err != nil {
		return err
	}
	defer unix.Close(pidfd)
	return end(pidfd)
}

// Start makes a process for the TUN, which it takes over, in the network namespace of the calling thread. It lives on
// when the caller does not. Its end is waited for in the background, as long as the caller lives.
func (p Place) Start(name string, tun *os.File, say func(string)) (*Client, error) {
	if len(p.Command) == 0 {
		return nil, errors.New("no command is set that runs userspace tunnels")
	}
	path := p.socket(name)
	socket, err := p.bind(path)
	if err != nil {
		return nil, fmt.Errorf("socket of tunnel %s: %w", name, err)
	}
	defer socket.Close()
	log, err := os.OpenFile(strings.TrimSuffix(path, socketEnds)+logEnds, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(p.Command[0], append(p.Command[1:len(p.Command):len(p.Command)], name, path)...)
	cmd.Args[0] = "sluice"
	cmd.Env = []string{} // nil would be the daemon's
	cmd.Dir = "/"
	cmd.Stderr = log
	cmd.ExtraFiles = []*os.File{tun, socket} // tunFD, socketFD
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the process of tunnel %s: %w", name, err)
	}
	gone := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended is in its log
		close(gone)
	}()
	c, err := p.await(name, gone, say)
	if err != nil {
		_ = cmd.Process.Kill()
		<-gone
		return nil, errors.Join(fmt.Errorf("the process of tunnel %s does not start: %w%s", name, err, p.Crash(name)), removeFiles(path))
	}
	return c, nil
}

// await polls until the process listens.
func (p Place) await(name string, gone <-chan struct{}, say func(string)) (*Client, error) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(answerTime)
	for {
		c, err := p.Adopt(name, say)
		if !errors.Is(err, ErrNone) {
			return c, err
		}
		select {
		case <-tick.C:
		case <-gone:
			return nil, errors.New("it has ended at once")
		case <-deadline:
			return nil, err
		}
	}
}

// Crash is what the last process of the tunnel said when it died, from its first line that matters; "" where it said nothing.
func (p Place) Crash(name string) string {
	text, err := os.ReadFile(strings.TrimSuffix(p.socket(name), socketEnds) + logEnds)
	line, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	if err != nil || line == "" {
		return ""
	}
	return ": " + line
}

// bind makes the socket's file, over one that nobody listens on any more.
func (p Place) bind(path string) (*os.File, error) {
	if err := os.MkdirAll(p.Dir, 0o700); err != nil {
		return nil, err
	}
	if err := os.Chmod(p.Dir, 0o700); err != nil { // it may be from before
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), path)
	err = at(path, func(short string) error { return unix.Bind(fd, &unix.SockaddrUnix{Name: short}) })
	if err == nil {
		err = os.Chmod(path, 0o600)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// dial connects to the socket at path; ErrNone where there is none, or nobody listens on it.
func dial(path string) (conn net.Conn, err error) {
	err = at(path, func(short string) (err error) {
		conn, err = net.DialTimeout("unix", short, answerTime)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
		return nil, fmt.Errorf("%w at %s", ErrNone, path)
	}
	return conn, err
}

// at calls f with a name of path that fits into the 108 bytes of a socket's address, whatever the directory's length.
func at(path string, f func(short string) error) error {
	dir, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Dir(path), err)
	}
	defer unix.Close(dir)
	return f(fmt.Sprintf("/proc/self/fd/%d/%s", dir, filepath.Base(path)))
}

// Sweep ends every process that is left at the place and removes its files, and the directory once it is empty.
func (p Place) Sweep() error {
	entries, err := os.ReadDir(p.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var failed []error
	for _, e := range entries {
		name, ours := strings.CutPrefix(e.Name(), prefix)
		name, isSocket := strings.CutSuffix(name, socketEnds)
		if !ours || !isSocket {
			continue
		}
		c, err := p.connect(name, p.socket(name))
		switch {
		case err == nil:
			err = c.End()
		case errors.Is(err, ErrNone):
			err = removeFiles(p.socket(name))
		case Replaceable(err):
			err = errors.Join(p.Evict(name), removeFiles(p.socket(name)))
		}
		failed = append(failed, err)
	}
	_ = os.Remove(p.Dir) // others may have files there
	return errors.Join(failed...)
}

// RemoveFiles removes what a process that is gone has left.
func (p Place) RemoveFiles(name string) error { return removeFiles(p.socket(name)) }

// removeFiles removes the socket at path and the log beside it.
func removeFiles(path string) error {
	var failed []error
	for _, file := range []string{path, strings.TrimSuffix(path, socketEnds) + logEnds} {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// runs says whether a process was started as that of the tunnel called name, with the socket at path, and lives in the
// network namespace with the inode netns.
func runs(pid int, name, path string, netns uint64) bool {
	ns, err := netnsOf(pid)
	return err == nil && ns == netns && isCommand(commandOf(pid), name, path)
}

// netnsOf returns the inode of a process's network namespace.
func netnsOf(pid int) (uint64, error) {
	info, err := os.Stat(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return 0, err
	}
	return info.Sys().(*syscall.Stat_t).Ino, nil
}
