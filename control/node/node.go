package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"sluice/control/disk"
)

// Options are what a Node is made of. Zero ones get what a machine has.
type Options struct {
	Root     string // in front of the paths of the system
	Dir      string // of our own files, in memory
	StateDir string // host keys survive there
	// Units runs systemctl.
	Units       func(ctx context.Context, args ...string) error
	HostName    func() (string, error)
	SetHostName func(string) error
}

// Dir is where a node image has what this package writes.
const Dir = "/run/sluice/node"

// Node is the subsystem.
type Node struct {
	o   Options
	log *slog.Logger
	mu  sync.Mutex
}

// New makes it; nothing is touched.
func New(log *slog.Logger, o Options) *Node {
	if o.Dir == "" {
		o.Dir = Dir
	}
	if o.Units == nil {
		o.Units = systemctl
	}
	if o.HostName == nil {
		o.HostName = os.Hostname
	}
	if o.SetHostName == nil {
		o.SetHostName = func(name string) error { return unix.Sethostname([]byte(name)) }
	}
	return &Node{o: o, log: log}
}

func systemctl(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, "systemctl", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// stepper does one part. holds says whether the machine has what s says: not more than that has to be told from what is recorded.
type stepper interface {
	set(ctx context.Context, s State) error
	unset(ctx context.Context) error
	holds(ctx context.Context, s State) bool
}

// record is what was brought about, part by part, each after its last step: a unit that was not started anew does not count. It lies in
// memory, as all that it speaks of.
func (n *Node) record() string { return filepath.Join(n.o.Dir, "applied.json") }

// Observe returns what was brought about and is still so.
func (n *Node) Observe(ctx context.Context) (State, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s, err := n.recorded()
	for _, p := range parts {
		field := reflect.ValueOf(p.of(&s)).Elem()
		if !field.IsZero() && !p.step(n).holds(ctx, s) {
			field.SetZero()
		}
	}
	return s, err
}

func (n *Node) recorded() (s State, err error) {
	b, err := os.ReadFile(n.record())
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	} else if err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &s); err != nil {
		n.log.Warn("everything of the node is set anew", "error", err)
		return State{}, nil
	}
	return s, nil
}

// Apply does one op. While it is under way the part counts as not there: the unit may have read the one or the other.
func (n *Node) Apply(ctx context.Context, op Op) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range parts {
		if p.name != op.part {
			continue
		}
		now, err := n.recorded()
		if err != nil {
			return err
		}
		field := reflect.ValueOf(p.of(&now)).Elem()
		if !op.off {
			field.SetZero()
			if err := n.remember(now); err != nil {
				return err
			}
			err = p.step(n).set(ctx, op.want)
			field.Set(reflect.ValueOf(p.of(&op.want)).Elem())
		} else {
			err = p.step(n).unset(ctx)
			field.SetZero()
		}
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		return n.remember(now)
	}
	return fmt.Errorf("node: there is no part %q", op.part)
}

func (n *Node) remember(s State) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(n.o.Dir, 0o755); err != nil {
		return err
	}
	return disk.Replace(n.record(), b)
}

// put writes a file that others read.
func put(path, text string, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := disk.Create(path)
	if err != nil {
		return err
	}
	if _, err = f.WriteString(text); err == nil {
		err = f.Chmod(mode)
	}
	if err != nil {
		return errors.Join(err, f.Abandon())
	}
	return errors.Join(f.Commit(), f.Close())
}

func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func contains(path, text string) bool {
	b, err := os.ReadFile(path)
	return err == nil && string(b) == text
}

// system is a path of the image.
func (n *Node) system(path string) string { return filepath.Join(n.o.Root, path) }
