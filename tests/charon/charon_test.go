package charon

import (
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/tests/nstest"
)

// answers waits until VICI takes connections.
func (d *Daemon) answers(t *testing.T) {
	t.Helper()
	nstest.Eventually(t, time.Minute, func() string {
		c, err := net.Dial("unix", d.Socket)
		if err != nil {
			return err.Error()
		}
		c.Close()
		return ""
	})
}

func TestADaemonThatIsKilledComesBack(t *testing.T) {
	var d *Daemon
	t.Run("runs", func(t *testing.T) {
		d = New(t, Kernel, nstest.New(t).Try)
		for range 2 {
			d.Start(t)
			d.answers(t)
			d.Kill()
			if c, err := net.Dial("unix", d.Socket); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("a killed one: %v, %v", c, err)
			}
		}
		d.Start(t)
	})
	if _, err := os.Stat(d.Socket); !errors.Is(err, os.ErrNotExist) || d.cmd != nil {
		t.Errorf("after its test there is %v, and %v runs", err, d.cmd)
	}
}

func TestFilesAreInstalled(t *testing.T) {
	for _, file := range Files() {
		if _, err := os.Stat(file); err != nil {
			t.Error(err)
		}
	}
}

func TestLinesAreWhole(t *testing.T) {
	var said []string
	w := &lines{log: func(line []byte) { said = append(said, string(line)) }}
	for _, part := range []string{"a", "b\nc\n\nd", "\n", "rest"} {
		if n, err := w.Write([]byte(part)); n != len(part) || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	}
	if got := strings.Join(said, "|"); got != "ab|c||d" {
		t.Errorf("%q", got)
	}
}
