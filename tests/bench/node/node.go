// Package node is `sluice run` in a lane of a benchmark: a process of its own with a file, a state directory and pins of its own, driven
// by its own command, as an operator drives it.
package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sluice/control/api"
	"sluice/tests/bench/gateway"
	"sluice/tests/bench/lane"
	"sluice/xdp/pin"
)

// Build builds the command as a release does.
func Build(ctx context.Context, dir string) (string, error) {
	root, err := lane.Root()
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "sluice")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, "./cmd/sluice")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
	if said, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build sluice: %w\n%s", err, said)
	}
	return binary, nil
}

// Node is one.
type Node struct {
	Binary string
	Box    *lane.Namespace
	PID    int // of the daemon

	dir   string // of its file, state and socket
	pins  *gateway.Gateway
	read  int           // bytes of its log that were looked at
	end   chan struct{} // closed: it shall end
	ended chan error
}

// Start starts one with a file and waits until that is applied. Its log is of level debug, which Phases needs, unless flags say otherwise.
func Start(ctx context.Context, binary string, box *lane.Namespace, files map[string][]byte, flags ...string) (*Node, error) {
	pins, err := gateway.Open(box) // it holds nothing: the daemon fills its folder of pins
	if err != nil {
		return nil, err
	}
	n := &Node{Binary: binary, Box: box, pins: pins, end: make(chan struct{}), ended: make(chan error, 1)}
	n.dir = filepath.Join(os.TempDir(), filepath.Base(filepath.Dir(pins.Dir()))) // a name that gateway.Sweep knows
	if err := os.Mkdir(n.dir, 0o700); err != nil {
		return nil, errors.Join(err, pins.Close())
	}
	if err := errors.Join(n.Write(files), n.run(flags)); err != nil {
		close(n.end)
		return nil, errors.Join(err, pins.Close(), os.RemoveAll(n.dir))
	}
	if err := n.waitApplied(ctx); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// Path is that of a file of its folder: sluice.yaml is its configuration, sock its socket.
func (n *Node) Path(name string) string { return filepath.Join(n.dir, name) }

// Pins is the folder of its pins.
func (n *Node) Pins() string { return n.pins.Dir() }

// Write writes files of its folder.
func (n *Node) Write(files map[string][]byte) error {
	for name, content := range files {
		if err := os.WriteFile(n.Path(name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// run starts the process. The thread that started it lives as long, for its end would be the process's (Pdeathsig).
func (n *Node) run(flags []string) error {
	log, err := os.Create(n.Path("log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(n.Binary, append([]string{"run", "-c", n.Path("sluice.yaml"), "--log-level", "debug",
		"--state-dir", n.Path("state"), "--bpf-dir", n.pins.Dir(), "--socket", n.Path("sock")}, flags...)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		n.ended <- n.Box.Do(func() error {
			err := cmd.Start()
			started <- err
			if err != nil {
				return err
			}
			<-n.end
			return errors.Join(cmd.Process.Kill(), ignoreExit(cmd.Wait()))
		})
	}()
	if err := <-started; err != nil {
		return err
	}
	n.PID = cmd.Process.Pid
	return nil
}

func ignoreExit(err error) error {
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return nil
	}
	return err
}

// waitApplied waits until the file is live.
func (n *Node) waitApplied(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	client := api.NewClient(n.Path("sock"))
	defer client.Close()
	return Poll(ctx, 20*time.Millisecond, func() error {
		s, err := api.Show[api.Status](ctx, client, "status")
		if err == nil && !s.Engine.Applied {
			err = fmt.Errorf("revision %d is not applied: %s", s.Engine.Revision, s.Engine.LastError)
		}
		if err != nil {
			err = fmt.Errorf("the daemon is not ready: %w%s", err, n.Said())
		}
		return err
	})
}

// Said is the end of its log, for errors.
func (n *Node) Said() string {
	log, err := os.ReadFile(n.Path("log"))
	if err != nil {
		return ""
	}
	return fmt.Sprintf("; its log ends:\n%s", log[max(0, len(log)-4000):])
}

// Poll calls f until it returns nil, or else ctx ends.
func Poll(ctx context.Context, every time.Duration, f func() error) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-tick.C:
		}
	}
}

// CPU is what the daemon has used.
func (n *Node) CPU() (time.Duration, error) { return CPU(n.PID) }

// CPU is what a process has used of all processors since it began, threads that have ended included: the clock of another
// process, see clock_getcpuclockid(3).
func CPU(pid int) (time.Duration, error) {
	const scheduled = 2 // CPUCLOCK_SCHED
	var now unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|scheduled), &now); err != nil {
		return 0, fmt.Errorf("CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(now.Nano()), nil
}

var took = regexp.MustCompile(`msg=took part="?([^"\n]*?)"? time=(\S+)`)

// Phases are what the daemon's log says of the last apply, and of everything since it was last asked.
func (n *Node) Phases() (map[string]time.Duration, error) {
	log, err := os.ReadFile(n.Path("log"))
	if err != nil {
		return nil, err
	}
	out, err := PhasesOf(log[n.read:])
	n.read = len(log)
	return out, err
}

// PhasesOf are those of some lines of a log.
func PhasesOf(log []byte) (map[string]time.Duration, error) {
	out := map[string]time.Duration{}
	for _, m := range took.FindAllSubmatch(log, -1) {
		t, err := time.ParseDuration(string(m[2]))
		if err != nil {
			return nil, err
		}
		out[string(m[1])] += t
	}
	return out, nil
}

// Command runs `sluice VERB` as an operator does.
func (n *Node) Command(ctx context.Context, args ...string) error {
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, n.Binary, append(args, "--socket", n.Path("sock"))...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("sluice %s: %w: %s", strings.Join(args, " "), err, out.Bytes())
	}
	return nil
}

// Close ends it and takes its pins and files away.
func (n *Node) Close() error {
	close(n.end)
	return errors.Join(<-n.ended, pin.At(n.pins.Dir()).RemoveAll(), n.pins.Close(), os.RemoveAll(n.dir))
}
