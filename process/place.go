package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Kind is what processes of one kind have in common.
type Kind struct {
	Of      string // what one is of, "tunnel" say: errors say it before the name, and file names begin with it
	Verb    string // the word of the command line that makes the binary one, before NAME and SOCKET
	Version int    // of the requests: a daemon replaces a process that speaks another one
}

// Place is where the processes of one daemon and one kind are found.
type Place struct {
	Kind
	Dir     string   // of sockets and logs, 0700; made when needed
	Command []string // a program, and its words before NAME and SOCKET: the last one is Verb
	NetNS   uint64   // inode of the network namespace that the processes live in
}

const (
	socketEnds = ".sock"
	logEnds    = ".log" // what the process says to nobody: why it panicked
)

// Socket is the path of the socket of the process called name.
func (p Place) Socket(name string) string {
	return filepath.Join(p.Dir, p.Of+"-"+name+socketEnds)
}

func logOf(socket string) string { return strings.TrimSuffix(socket, socketEnds) + logEnds }

// Adopt returns a client of the process called name, and ErrNone where there is none. Its lines are handed to say.
func (p Place) Adopt(name string, say func(string)) (*Client, error) {
	return p.adopt(name, p.Socket(name), say)
}

// AdoptFrom is Adopt for a process of another daemon's place, one with another state directory, say. One that another
// daemon watches is that daemon's.
func (p Place) AdoptFrom(pid int, name string, say func(string)) (*Client, error) {
	command := Command(pid)
	path := command[len(command)-1]
	if !p.isCommand(command, name, path) {
		return nil, fmt.Errorf("it %w", ErrForeign)
	}
	c, err := p.adopt(name, path, say)
	if err != nil {
		return nil, err
	}
	switch {
	case c.pid != pid:
		err = fmt.Errorf("another process listens on %s", c.path)
	case c.watchers != 0:
		err = fmt.Errorf("another daemon, whose sockets are in %s, uses it: is a second daemon alive?", filepath.Dir(c.path))
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (p Place) adopt(name, path string, say func(string)) (*Client, error) {
	c, err := p.connect(name, path)
	if err != nil {
		return nil, err
	}
	ns, err := NetNS(c.pid)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = fmt.Errorf("%w at %s: it has just ended", ErrNone, path)
	case err == nil && ns != p.NetNS:
		err = fmt.Errorf("process %d of %s lives in another network namespace: give this daemon a state directory of its own", c.pid, c.of)
	case err == nil:
		err = c.watch(say)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Evict ends a process that Replaceable was said of.
func (p Place) Evict(name string) error {
	conn, err := dial(p.Socket(name))
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

// EvictDeaf ends the process called name of this very place whose socket's file is gone, so that nobody can speak to it again,
// and says whether there was one. The caller has the place's state directory to itself: no other daemon speaks to it either.
func (p Place) EvictDeaf(pid int, name string) (bool, error) {
	pidfd, err := unix.PidfdOpen(pid, 0) // before the look at who it is: its number may be another one's afterwards
	if err != nil {
		return false, os.NewSyscallError("pidfd_open", err)
	}
	defer unix.Close(pidfd)
	if !p.runs(pid, name, p.Socket(name)) || !p.sees(pid) {
		return false, nil
	}
	return true, end(pidfd)
}

// EvictLost ends every process called name of this very place that EvictDeaf is for, and returns their numbers. It is for who has found
// that none answers at the socket.
func (p Place) EvictLost(name string) ([]int, error) {
	return p.evictLost(func(n string) bool { return n == name })
}

func (p Place) evictLost(meant func(name string) bool) (ended []int, err error) {
	entries, err := os.ReadDir("/proc")
	for _, e := range entries {
		pid, notOne := strconv.Atoi(e.Name())
		command := Command(pid)
		if n := len(command); notOne != nil || n < 2 || !meant(command[n-2]) {
			continue
		}
		was, wrong := p.EvictDeaf(pid, command[len(command)-2])
		if was {
			ended = append(ended, pid)
		}
		if !errors.Is(wrong, unix.ESRCH) { // else it has ended by itself
			err = errors.Join(err, wrong)
		}
	}
	return ended, err
}

// sees says whether a process means the same directory by the place's path: in another container it is another one.
func (p Place) sees(pid int) bool {
	state := filepath.Dir(p.Dir) // the place itself may have been removed with the sockets in it
	ours, err := os.Stat(state)
	theirs, theirErr := os.Stat(filepath.Join("/proc", strconv.Itoa(pid), "root", state))
	return err == nil && theirErr == nil && os.SameFile(ours, theirs)
}

// Start makes a process, which takes files over, in the network namespace of the calling thread. It lives on when the
// caller does not. Its end is waited for in the background, as long as the caller lives.
func (p Place) Start(name string, say func(string), files ...*os.File) (*Client, error) {
	of := p.Of + " " + name
	if len(p.Command) == 0 {
		return nil, fmt.Errorf("no command is set that runs the process of %s", of)
	}
	path := p.Socket(name)
	socket, err := p.bind(path)
	if err != nil {
		return nil, fmt.Errorf("socket of %s: %w", of, err)
	}
	defer socket.Close()
	log, err := os.OpenFile(logOf(path), os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	command := append(p.Command[:len(p.Command):len(p.Command)], name, path)
	cmd, gone, err := Spawn(command, log, append([]*os.File{socket}, files...)...)
	if err != nil {
		return nil, fmt.Errorf("start the process of %s: %w", of, err)
	}
	c, err := p.await(name, gone, say)
	if err != nil {
		_ = cmd.Process.Kill()
		<-gone
		return nil, errors.Join(fmt.Errorf("the process of %s does not start: %w%s", of, err, p.Crash(name)), p.RemoveFiles(name))
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

// Crash is what the last process of that name said when it died, from its first line that matters; "" where it said nothing.
func (p Place) Crash(name string) string {
	text, err := os.ReadFile(logOf(p.Socket(name)))
	line, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	if err != nil || line == "" {
		return ""
	}
	return ": " + line
}

// Sweep ends every process that is left at the place, those whose socket's file is gone as well, and removes its files, and the directory
// once it is empty.
func (p Place) Sweep() error {
	err := p.sweepSockets()
	_, lost := p.evictLost(func(string) bool { return true })
	_ = os.Remove(p.Dir) // others may have files there
	return errors.Join(err, lost)
}

func (p Place) sweepSockets() error {
	entries, err := os.ReadDir(p.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var failed []error
	for _, e := range entries {
		name, ours := strings.CutPrefix(e.Name(), p.Of+"-")
		name, isSocket := strings.CutSuffix(name, socketEnds)
		if !ours || !isSocket {
			continue
		}
		c, err := p.connect(name, p.Socket(name))
		switch {
		case err == nil:
			err = c.End()
		case errors.Is(err, ErrNone):
			err = p.RemoveFiles(name)
		case Replaceable(err):
			err = errors.Join(p.Evict(name), p.RemoveFiles(name))
		}
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

// RemoveFiles removes what a process that is gone has left.
func (p Place) RemoveFiles(name string) error {
	path := p.Socket(name)
	return remove(path, logOf(path))
}
