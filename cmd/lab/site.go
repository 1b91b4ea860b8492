package lab

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// DefaultDir is where labs keep what they have on disk. It is gone after a reboot, as are the labs.
const DefaultDir = "/run/sluice-lab"

const (
	prefix = "sluice-lab-"  // of namespaces and bpffs directories; the lab's id follows
	bpffs  = "/sys/fs/bpf/" // daemons mount it where it is not
)

// Options are the settings of a site.
type Options struct {
	Binary     string // sluice; "" is this very program
	Dir        string // "" is DefaultDir; the site makes a directory of its own in it
	Log        *slog.Logger
	WithoutToR bool // nobody routes in the ToR's namespace: the caller starts its own router there
	Detached   bool // processes outlive this one, until Down
}

// Site is one virtual site. Its namespaces and processes are its own: several sites live side by side.
type Site struct {
	ID  string
	Dir string // configurations, keys, state, sockets and logs of this site

	Gateway, Peer *Node
	// ToR routes between all the others; Router runs in it.
	ToR, Client, Attacker *Namespace
	Router                *Router // nil WithoutToR

	workloads []*Namespace
	options   Options
	log       *slog.Logger

	mu         sync.Mutex
	namespaces []*Namespace
	processes  []*Process
}

// record is what `lab down` needs to know of a lab. A record is there before anything else of the lab is.
type record struct {
	Owner *identity `json:"owner,omitempty"` // whoever takes the lab down by itself; nil: nobody does
}

const recordFile = "lab.json"

// New builds a site: namespaces, links, addresses and routes, servers, and the ToR's router. The daemons of Gateway and
// Peer have their configurations and keys, and are not started. Close removes all of it. On an error nothing is left.
func New(ctx context.Context, o Options) (_ *Site, err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("the lab makes network namespaces and loads BPF programs: run it as root")
	}
	s := &Site{ID: randomHex(3), options: o, log: o.Log}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.options.Dir == "" {
		s.options.Dir = DefaultDir
	}
	if s.options.Binary == "" {
		if s.options.Binary, err = os.Executable(); err != nil {
			return nil, err
		}
	}
	s.Dir = filepath.Join(s.options.Dir, s.ID)
	built := false // a panic passes by here, too
	defer func() {
		if !built {
			err = errors.Join(err, s.Close())
		}
	}()
	if err := s.register(); err != nil {
		return nil, err
	}
	if err := s.build(ctx); err != nil {
		return nil, fmt.Errorf("build the lab: %w", err)
	}
	built = true
	return s, nil
}

// register claims the site's directory and writes its record.
func (s *Site) register() error {
	if err := os.MkdirAll(s.options.Dir, 0o700); err != nil {
		return err
	}
	if err := os.Mkdir(s.Dir, 0o700); err != nil {
		return err
	}
	var r record
	if !s.options.Detached {
		id, err := self()
		if err != nil {
			return err
		}
		r.Owner = &id
	}
	return writeJSON(filepath.Join(s.Dir, recordFile), r)
}

func (s *Site) build(ctx context.Context) error {
	if err := s.hosts(); err != nil {
		return err
	}
	if err := s.wire(); err != nil {
		return err
	}
	if err := s.configure(); err != nil {
		return err
	}
	if !s.options.WithoutToR {
		router, err := s.startRouter(ctx)
		if err != nil {
			return err
		}
		s.Router = router
	}
	return s.startServers(ctx)
}

// Workload is the namespace of workload i, counted from 1: web-1 and web-2.
func (s *Site) Workload(i int) *Namespace { return s.workloads[i-1] }

// Namespaces are all hosts of the site.
func (s *Site) Namespaces() []*Namespace {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.namespaces)
}

func (s *Site) track(p *Process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.processes = append(s.processes, p)
}

// BPFDir is the directory on the bpffs that holds the pins of both daemons.
func (s *Site) BPFDir() string { return filepath.Join(bpffs, prefix+s.ID) }

// Close ends every process and removes every namespace, pin and file of the site. A second call does nothing.
func (s *Site) Close() error {
	s.mu.Lock()
	processes, namespaces := s.processes, s.namespaces
	s.processes, s.namespaces = nil, nil
	s.mu.Unlock()
	var errs []error
	for _, p := range slices.Backward(processes) {
		errs = append(errs, p.Kill())
	}
	for _, ns := range namespaces {
		errs = append(errs, ns.close())
	}
	return errors.Join(append(errs, remove(s.ID, s.options.Dir))...)
}

// remove takes away what a lab left in the system, once its processes are gone. The record goes last: until then the
// lab can be found again.
func remove(id, dir string) error {
	names, err := namespacesOf(prefix + id + "-")
	errs := []error{err}
	for _, name := range names {
		errs = append(errs, removeNamespace(name))
	}
	errs = append(errs, os.RemoveAll(filepath.Join(bpffs, prefix+id)))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove lab %s: %w", id, err)
	}
	return os.RemoveAll(filepath.Join(dir, id))
}

// tail is the end of a log file, for a report of a failure.
func tail(path string, bytes int64) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > bytes {
		_, _ = f.Seek(-bytes, io.SeekEnd)
	}
	text, _ := io.ReadAll(f)
	return string(text)
}

func randomHex(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // never fails, see crypto/rand
	return hex.EncodeToString(b)
}
