// Package workload keeps the workloads that orchestrators add through the API: runtime objects, which no revision holds
// and which apply and rollback leave alone.
package workload

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"sluice/control/compile"
	"sluice/control/config"
	"sluice/control/disk"
	"sluice/control/engine"
)

// Spec is one workload as it was asked for: the body of the API and an entry of the file on the disk.
type Spec struct {
	Name       string   `json:"name"`
	Interface  string   `json:"interface"` // host side of its veth or netkit
	Addresses  []string `json:"addresses"`
	SNAT       string   `json:"snat,omitempty"`        // auto, none or an address; "": as its policy says, or none
	Path       string   `json:"path,omitempty"`        // redirect or stack; "": as its policy says, or redirect
	Policy     string   `json:"policy,omitempty"`      // YAML: ingress, egress, snat, path, bandwidth of one workload
	PolicyFile string   `json:"policy_file,omitempty"` // its name, for places of errors and of rules
}

// normal is the one spelling of a spec, so that the same add again is no change.
func (s Spec) normal() Spec {
	s.Addresses = slices.Clone(s.Addresses)
	for i, text := range s.Addresses {
		if p, err := netip.ParsePrefix(text); err == nil && p.IsSingleIP() {
			s.Addresses[i] = p.Addr().String()
		} else if a, err := netip.ParseAddr(text); err == nil {
			s.Addresses[i] = a.String()
		}
	}
	slices.Sort(s.Addresses)
	return s
}

func (s Spec) equal(o Spec) bool {
	return s.Name == o.Name && s.Interface == o.Interface && slices.Equal(s.Addresses, o.Addresses) && s.SNAT == o.SNAT &&
		s.Path == o.Path && s.Policy == o.Policy
}

func (s Spec) source() config.WorkloadSource {
	return config.WorkloadSource{Name: s.Name, Interface: s.Interface, Addresses: s.Addresses, SNAT: s.SNAT, Path: s.Path,
		File: cmp.Or(s.PolicyFile, "the policy"), Policy: []byte(s.Policy)}
}

// Options are what a List is made of. All are needed but Faults.
type Options struct {
	Path string // of the file
	Log  *slog.Logger
	// Live is the file that is live; nil: none.
	Live func() *config.Config
	// Alter is Engine.Alter.
	Alter  func(context.Context, engine.Alteration) error
	Faults *disk.Faults // told of the file
}

// List is safe for concurrent use.
type List struct {
	opts Options
	turn chan struct{} // held by who alters

	mu    sync.Mutex
	queue []*request
	specs map[string]*Spec // an entry is never changed
	read  readings
}

// New makes a list; Load fills it.
func New(o Options) *List {
	return &List{opts: o, turn: make(chan struct{}, 1), specs: map[string]*Spec{}}
}

// readings are what specs say beside one configuration.
type readings struct {
	cfg    *config.Config
	beside *config.Beside
	of     map[*Spec]compile.Added
}

// get is called with List.mu held.
func (r *readings) get(cfg *config.Config, s *Spec) compile.Added {
	if r.cfg != cfg {
		*r = readings{cfg, config.NewBeside(cfg), map[*Spec]compile.Added{}}
	}
	a, known := r.of[s]
	if !known {
		a.Workload, a.Err = r.beside.Parse(s.source())
		a.Name, a.Interface = s.Name, s.Interface // also with an error
		r.of[s] = a
	}
	return a
}

// prune forgets what is not in the list any more.
func (r *readings) prune(specs map[string]*Spec) {
	maps.DeleteFunc(r.of, func(s *Spec, _ compile.Added) bool { return specs[s.Name] != s })
}

// All returns the specs, sorted by name.
func (l *List) All() []Spec {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]Spec, 0, len(l.specs))
	for _, name := range slices.Sorted(maps.Keys(l.specs)) {
		out = append(out, *l.specs[name])
	}
	return out
}

// Added are the workloads beside cfg, for compile.Runtime.
func (l *List) Added(cfg *config.Config) []compile.Added {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]compile.Added, 0, len(l.specs))
	for _, name := range slices.Sorted(maps.Keys(l.specs)) {
		out = append(out, l.read.get(cfg, l.specs[name]))
	}
	return out
}

// Change is one request: all of it happens, or nothing.
type Change struct {
	Add    []Spec   // one of a name that is there takes its place
	Remove []string // by name
}

// Outcome is what became of one workload of a request.
type Outcome struct {
	Name   string
	Change string // Added, Replaced, Unchanged, Removed
}

// What becomes of a workload.
const (
	Added     = "added"
	Replaced  = "replaced"
	Unchanged = "unchanged"
	Removed   = "removed"
)

// errUnchanged ends an alteration that would change nothing.
var errUnchanged = errors.New("nothing changes")

// refusedError says why the machine would not hold workloads that were asked for.
type refusedError []compile.Refused

func (e refusedError) Error() string {
	var lines []string
	for _, r := range e {
		lines = append(lines, r.String())
	}
	return strings.Join(lines, "\n")
}

// clash looks whether two added workloads claim the same.
func clash(a, b config.Workload) error {
	if a.Interface == b.Interface {
		return fmt.Errorf("workload %s: the interface %s belongs to workload %s, which was added by the API", a.Name, a.Interface, b.Name)
	}
	for _, addr := range a.Addresses {
		if slices.Contains(b.Addresses, addr) {
			return fmt.Errorf("workload %s: the address %s belongs to workload %s, which was added by the API", a.Name, addr, b.Name)
		}
	}
	return nil
}
