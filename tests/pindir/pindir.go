// Package pindir lends tests directories of pins on the bpffs.
//
// The verifier takes two seconds of CPU for the programs of a site, and most of what a packet test takes is that. A generation
// that no slot holds is recast, so a directory that a good test gives back is emptied of everything but two of them, the second for
// a test that changes what is live, and lent to the next test that wants the same constants. A test that fails takes its directory along.
package pindir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"sluice/xdp/pin"
)

const bpffs = "/sys/fs/bpf"

// idle is a directory that nobody has, with a generation for who wants what is like it.
type idle struct{ path, like string }

// most is how many may be idle: each holds some 10 MB.
const most = 8

// Lender has the directories of one test process.
type Lender struct {
	name string

	mu   sync.Mutex
	made int
	idle []idle // the longest first
}

// NewLender does nothing yet. Its directories are below /sys/fs/bpf/sluice-NAME-PID.
func NewLender(name string) *Lender { return &Lender{name: name} }

func (l *Lender) parent(pid int) string {
	return filepath.Join(bpffs, fmt.Sprintf("sluice-%s-%d", l.name, pid))
}

// New names a directory that nobody made yet. It goes with the test.
func (l *Lender) New(t testing.TB) string {
	t.Helper()
	path := l.next(t)
	t.Cleanup(func() {
		if err := pin.At(path).RemoveAll(); err != nil {
			t.Error(err)
		}
	})
	return path
}

// Lend is New, or a directory whose generation is like the one that is wanted. like names that, and when the test ends the
// one that is live then. What the test makes after this call must be gone before the directory is given back, as with
// t.Cleanup it is.
func (l *Lender) Lend(t testing.TB, like func() string) string {
	t.Helper()
	path := l.take(like())
	if path == "" {
		path = l.next(t)
	}
	t.Cleanup(func() {
		again := false
		if !t.Failed() {
			var err error
			if again, err = reset(path); err != nil {
				t.Errorf("take %s back: %v", path, err)
			}
		}
		if !again {
			if err := pin.At(path).RemoveAll(); err != nil {
				t.Error(err)
			}
			return
		}
		if err := l.put(idle{path, like()}); err != nil {
			t.Error(err)
		}
	})
	return path
}

// take is "" where none is like that.
func (l *Lender) take(like string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.IndexFunc(l.idle, func(one idle) bool { return one.like == like })
	if i < 0 {
		return ""
	}
	path := l.idle[i].path
	l.idle = slices.Delete(l.idle, i, i+1)
	return path
}

func (l *Lender) put(one idle) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.idle = append(l.idle, one)
	if len(l.idle) <= most {
		return nil
	}
	longest := l.idle[0]
	l.idle = slices.Delete(l.idle, 0, 1)
	return pin.At(longest.path).RemoveAll()
}

func (l *Lender) next(t testing.TB) string {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.made == 0 {
		if err := l.Sweep(); err != nil {
			t.Fatal(err)
		}
	}
	l.made++
	parent := l.parent(os.Getpid())
	if err := os.MkdirAll(parent, 0o700); err != nil {
		t.Fatalf("these tests need root and a bpffs at %s: %v", bpffs, err)
	}
	return filepath.Join(parent, strconv.Itoa(l.made))
}

// Sweep removes what processes left that ended: that were killed or ran out of time, or whose parent does this for them.
func (l *Lender) Sweep() error {
	left, err := filepath.Glob(filepath.Join(bpffs, "sluice-"+l.name+"-*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range left {
		pid, err := strconv.Atoi(strings.TrimPrefix(path, filepath.Join(bpffs, "sluice-"+l.name+"-")))
		if err == nil && errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
			errs = append(errs, removeAll(path))
		}
	}
	return errors.Join(errs...)
}

// Close removes everything of this process.
func (l *Lender) Close() error { return removeAll(l.parent(os.Getpid())) }

// removeAll detaches what is attached before the pins go: a link without its pin stays as long as somebody holds it open.
func removeAll(parent string) error {
	dirs, err := filepath.Glob(filepath.Join(parent, "*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range dirs {
		errs = append(errs, pin.At(dir).RemoveAll())
	}
	return errors.Join(append(errs, os.RemoveAll(parent))...)
}
