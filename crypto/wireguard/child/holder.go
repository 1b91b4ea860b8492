package child

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Holder is the process that has the TUN of an interface attached.
type Holder struct {
	PID     int
	Command []string
}

// String is for the end of an error: who it is, and what to do.
func (h Holder) String() string {
	return fmt.Sprintf("process %d (%s)", h.PID, strings.Join(h.Command, " "))
}

// FindHolder looks through all processes of the place's network namespace.
func (p Place) FindHolder(name string) (Holder, bool) {
	files, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return Holder{}, false
	}
	for _, file := range files {
		if target, err := os.Readlink(file); err != nil || target != "/dev/net/tun" {
			continue
		}
		parts := strings.Split(file, "/") // "", proc, PID, fd, N
		pid, err := strconv.Atoi(parts[2])
		if err != nil {
			continue
		}
		if ns, err := netnsOf(pid); err != nil || ns != p.NetNS {
			continue
		}
		// A line "iff:\tNAME" since Linux 3.10.
		info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%s", pid, parts[4]))
		if err != nil || !bytes.Contains(info, []byte("iff:\t"+name+"\n")) {
			continue
		}
		return Holder{pid, commandOf(pid)}, true
	}
	return Holder{}, false
}

// commandOf is a process's command line; none of one that has ended.
func commandOf(pid int) []string {
	command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return strings.Split(strings.TrimRight(string(command), "\x00"), "\x00")
}

// isCommand says whether a command line is that of the process of the tunnel called name with the socket at path.
func isCommand(command []string, name, path string) bool {
	n := len(command)
	return n > 3 && slices.Equal(command[n-3:], []string{Verb, name, path})
}

// AdoptFrom is Adopt for a process of another daemon's place, one with another state directory, say. One that another
// daemon watches is that daemon's.
func (p Place) AdoptFrom(h Holder, name string, say func(string)) (*Client, error) {
	path := h.Command[len(h.Command)-1]
	if !isCommand(h.Command, name, path) {
		return nil, fmt.Errorf("it %w", ErrForeign)
	}
	c, err := p.adopt(name, path, say)
	if err != nil {
		return nil, err
	}
	switch {
	case c.pid != h.PID:
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
