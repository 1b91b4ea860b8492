package child

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"sluice/process"
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
		if ns, err := process.NetNS(pid); err != nil || ns != p.NetNS {
			continue
		}
		// A line "iff:\tNAME" since Linux 3.10.
		info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%s", pid, parts[4]))
		if err != nil || !bytes.Contains(info, []byte("iff:\t"+name+"\n")) {
			continue
		}
		return Holder{pid, process.Command(pid)}, true
	}
	return Holder{}, false
}
