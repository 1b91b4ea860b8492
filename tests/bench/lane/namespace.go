// Package lane is what benchmarks of the data path are made of: network namespaces that go with their owner, a generator
// of live frames, CPU time per packet, and rounds in which rivals take turns.
package lane

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Namespace is a network namespace without a name: the kernel takes it away, and what is in it, when this process ends.
type Namespace struct{ handle netns.NsHandle }

// NewNamespace makes one, without IPv6 of the kernel's own, so that nothing is on the wire but what a benchmark sends.
func NewNamespace() (*Namespace, error) {
	n := &Namespace{}
	err := onThread(func() error {
		var err error
		if n.handle, err = netns.New(); err != nil {
			return fmt.Errorf("make a network namespace (this needs root): %w", err)
		}
		return sysctl(map[string]string{
			"net/ipv6/conf/all/disable_ipv6": "1", "net/ipv6/conf/default/disable_ipv6": "1",
			// Sources are random, and no answer is expected where they came from.
			"net/ipv4/conf/all/rp_filter": "0", "net/ipv4/conf/default/rp_filter": "0",
			"net/ipv4/ip_forward": "1",
		})
	})
	if err != nil {
		if n.handle > 0 {
			n.handle.Close()
		}
		return nil, err
	}
	return n, nil
}

func sysctl(values map[string]string) error {
	for key, value := range values {
		if err := os.WriteFile("/proc/sys/"+key, []byte(value), 0); err != nil {
			return err
		}
	}
	return nil
}

// Do runs f in n on a thread of its own, which ends with it. Processes that f starts are in n as well.
func (n *Namespace) Do(f func() error) error {
	return onThread(func() error {
		if err := netns.Set(n.handle); err != nil {
			return err
		}
		return f()
	})
}

// onThread runs f on a thread that no other goroutine gets afterwards: it stays locked, so it ends with the goroutine.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	return <-done
}

// Run runs a program in n until it ends or ctx does, and returns what it printed. An error holds what it complained of.
func (n *Namespace) Run(ctx context.Context, stdin string, name string, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	err := n.Do(func() error {
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
		return cmd.Run()
	})
	if err != nil {
		return "", fmt.Errorf("%s: %w: %.400s", strings.Join(append([]string{name}, args...), " "), err, stderr.String())
	}
	return stdout.String(), nil
}

// Processes are those that live in n. This one is none: its first thread may have stayed in the namespace of some Do.
func (n *Namespace) Processes() (pids []int, err error) {
	var own unix.Stat_t
	if err := unix.Fstat(int(n.handle), &own); err != nil {
		return nil, err
	}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	for _, dir := range dirs {
		var s unix.Stat_t
		if unix.Stat(dir+"/ns/net", &s) != nil || s.Ino != own.Ino { // it may have ended meanwhile
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			return nil, err
		}
		if pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// Close gives the handle back. Who still holds the namespace, a process or a socket, keeps it.
func (n *Namespace) Close() error { return n.handle.Close() }
