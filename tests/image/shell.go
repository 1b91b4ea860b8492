package image

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"
)

// shell speaks to a unit that credentials put into the machine. It runs what comes through a port of virtio, one line of base64 a
// command, and answers each by a line: exit code, and base64 of what the command said.
type shell struct {
	socket string
	conn   net.Conn
	lines  *bufio.Reader
}

const shellPort = "sluice.test"

const shellLoop = `exec 3<>/dev/virtio-ports/` + shellPort + `
while read -r line <&3; do
	said=$(eval "$(base64 -d <<<"$line")" 2>&1 </dev/null)
	printf '%d %s\n' $? "$(base64 -w 0 <<<"$said")" >&3
done`

var shellUnit = map[string]string{
	"systemd.extra-unit.test-shell.service": "[Unit]\nBindsTo=dev-virtio\\x2dports-" + shellPort + ".device\n" +
		"After=dev-virtio\\x2dports-" + shellPort + ".device\nStartLimitIntervalSec=0\n[Service]\n" +
		"Restart=always\nRestartSec=200ms\n" + // the port ends where nobody holds its other end
		"ExecStart=/bin/bash -c 'eval \"$$(base64 -d <<<" + base64.StdEncoding.EncodeToString([]byte(shellLoop)) + ")\"'\n",
	"systemd.unit-dropin.multi-user.target": "[Unit]\nWants=test-shell.service\n",
}

// reach has the shell connected: QEMU makes its socket as it starts.
func (m *Machine) reach(t testing.TB) {
	t.Helper()
	m.Eventually(t, func() string {
		if err := m.shell.connect(); err != nil {
			return err.Error()
		}
		return ""
	})
}

// Try runs a command of bash in the machine, as root, and returns its output without the last line feed. It waits for the machine to
// come that far.
func (m *Machine) Try(t testing.TB, command string) (string, error) {
	t.Helper()
	m.reach(t)
	code, out, err := m.shell.ask(command, slow)
	if err != nil {
		t.Fatalf("%s: the machine does not answer: %v", command, err)
	} else if code != 0 {
		return out, fmt.Errorf("exit code %d", code)
	}
	return out, nil
}

// connect holds the other end of the port. Who lets go of it ends the loop in the machine, and what is written until it runs again is lost.
func (s *shell) connect() error {
	if s.conn != nil {
		return nil
	}
	conn, err := net.Dial("unix", s.socket)
	if err == nil {
		s.conn, s.lines = conn, bufio.NewReader(conn)
	}
	return err
}

// ask is one command and its answer. An answer that somebody did not wait for may come before it: a word tells them apart.
func (s *shell) ask(command string, within time.Duration) (code int, out string, err error) {
	_ = s.conn.SetDeadline(time.Now().Add(within))
	word := strconv.FormatInt(time.Now().UnixNano(), 36)
	if _, err := fmt.Fprintln(s.conn, base64.StdEncoding.EncodeToString([]byte("echo "+word+"; "+command))); err != nil {
		return 0, "", err
	}
	for {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			return 0, "", err
		}
		first, encoded, _ := strings.Cut(strings.TrimSpace(line), " ")
		said, _ := base64.StdEncoding.DecodeString(encoded)
		out, ours := strings.CutPrefix(string(said), word+"\n")
		if !ours {
			continue
		}
		code, err := strconv.Atoi(first)
		return code, strings.TrimRight(out, "\n"), err
	}
}

// Run is Try for what has to succeed.
func (m *Machine) Run(t testing.TB, command string) string {
	t.Helper()
	out, err := m.Try(t, command)
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return out
}
