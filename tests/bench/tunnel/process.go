package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"sluice/tests/bench/lane"
)

// workshop is what all lanes of a run share: programs, a folder for keys, and the CPU that everything runs on.
type workshop struct {
	dir string
	cpu int
}

// anyCPU leaves the process of a tunnel all CPUs.
const anyCPU = -1

func newWorkshop(dir string) (*workshop, error) {
	cpu, err := lane.LastCPU()
	return &workshop{dir, cpu}, err
}

// build builds both programs of userspace WireGuard, from one version of the module: go.mod's.
func (w *workshop) build(ctx context.Context) error {
	root, err := lane.Root()
	if err != nil {
		return err
	}
	for name, source := range map[string]string{"wireguard-go": "golang.zx2c4.com/wireguard", "sluice": "./cmd/sluice"} {
		cmd := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(w.dir, name), source)
		cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", source, err, out)
		}
	}
	return nil
}

// process is one end of a tunnel that a program of its own runs.
type process struct {
	cmd       *exec.Cmd
	complaint bytes.Buffer
}

// start starts a program in a namespace, on the workshop's CPU where it has one.
func (w *workshop) start(ctx context.Context, in *lane.Namespace, name string, args ...string) (*process, error) {
	p := &process{cmd: exec.CommandContext(ctx, name, args...)}
	p.cmd.Stderr, p.cmd.WaitDelay = &p.complaint, time.Second
	err := in.Do(func() error {
		if w.cpu != anyCPU {
			if err := lane.Pin(w.cpu); err != nil {
				return err
			}
		}
		return p.cmd.Start()
	})
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

// stop ends it. Its link goes with it.
func (p *process) stop() error {
	_ = p.cmd.Process.Signal(os.Interrupt) // that it has ended already shows below
	err := p.cmd.Wait()
	if err != nil {
		err = fmt.Errorf("%s: %w: %.400s", filepath.Base(p.cmd.Path), err, bytes.TrimSpace(p.complaint.Bytes()))
	}
	return err
}

// dial waits for a program's socket.
func (p *process) dial(ctx context.Context, path string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		c, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
		if err == nil || !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ECONNREFUSED) { // bound, and not listening yet
			return c, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", err, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}
