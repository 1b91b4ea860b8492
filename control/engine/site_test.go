package engine

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/control/compile"
	"sluice/control/config"
	"sluice/control/host"
	"sluice/tests/scratch"
)

// site is everything around an engine that outlives it: the machine, the state directory, FILE, the clock.
type site struct {
	t     *testing.T
	dir   string
	m     *machine
	clock *fakeClock
	check *fakeChecker
	file  string // contents of FILE; "": there is none
	sets  map[string]string
	fact  string
	disk  disk
}

func newSite(t *testing.T) *site {
	return &site{
		t: t, dir: scratch.Memory(t), m: &machine{state: map[string]map[string]string{}}, clock: newClock(),
		check: &fakeChecker{}, sets: map[string]string{}, fact: "6.12",
	}
}

func (s *site) readSet(path string) ([]byte, error) {
	if data, ok := s.sets[path]; ok {
		return []byte(data), nil
	}
	return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
}

func (s *site) options(store *Store) Options {
	return Options{
		Subsystems: s.m.subsystems(), Announcer: "bgp", Carriers: []string{"tc", "xdp", "host/forwarding"}, Parse: parseText, Compile: compileText, Store: store,
		Clock: s.clock, Checker: s.check,
		Facts: func(context.Context, *config.Config) (compile.Facts, error) {
			return compile.Facts{Host: host.Facts{KernelRelease: s.fact}}, nil
		},
		Source: func() (Source, error) {
			if s.file == "" {
				return Source{}, fs.ErrNotExist
			}
			return Source{Name: "sluice.yaml", Bytes: []byte(s.file), ReadFile: s.readSet}, nil
		},
	}
}

// engine makes an engine over the site's directory that has not started.
func (s *site) engine() *Engine {
	s.t.Helper()
	store, err := openStore(s.dir, s.disk)
	if err != nil {
		s.t.Fatalf("opening the store: %v", err)
	}
	e, err := New(s.options(store))
	if err != nil {
		s.t.Fatal(err)
	}
	return e
}

// start is a start of the daemon.
func (s *site) start() *Engine {
	s.t.Helper()
	e := s.engine()
	if err := e.Start(s.t.Context()); err != nil {
		s.t.Fatalf("start: %v", err)
	}
	return e
}

// running is a site whose machine holds text as confirmed revision 1.
func running(t *testing.T, text string) (*site, *Engine) {
	t.Helper()
	s := newSite(t)
	s.file = text
	e := s.start()
	s.holds(strings.ReplaceAll(text, "$fact", s.fact))
	s.m.take()
	return s, e
}

func (s *site) candidate(text string) Candidate {
	s.t.Helper()
	cfg, err := parseText("sluice.yaml", []byte(text), s.readSet)
	if err != nil {
		s.t.Fatal(err)
	}
	return Candidate{Name: "sluice.yaml", Bytes: []byte(text), Config: cfg}
}

func (s *site) apply(e *Engine, text string, o ApplyOptions) Result {
	s.t.Helper()
	r, err := e.Apply(s.t.Context(), s.candidate(text), o)
	if err != nil {
		s.t.Fatalf("apply: %v", err)
	}
	return r
}

// wanted is how a machine that holds text prints.
func wanted(text string) string {
	m := &machine{state: map[string]map[string]string{}}
	for line := range strings.SplitSeq(text, "\n") {
		if key, value, ok := strings.Cut(line, "="); ok {
			sub, k, _ := strings.Cut(key, ".")
			if m.state[sub] == nil {
				m.state[sub] = map[string]string{}
			}
			m.state[sub][k] = value
		}
	}
	return m.String()
}

// holds asserts that the machine holds text and nothing more.
func (s *site) holds(text string) {
	s.t.Helper()
	if have, want := s.m.String(), wanted(text); have != want {
		s.t.Fatalf("the machine holds\n%s\nand should hold\n%s", have, want)
	}
}

// live asserts which revision is live, which one is pending (0: none), and that the books say the same.
func (s *site) live(e *Engine, revision, pending int) {
	s.t.Helper()
	st := e.Status()
	have := 0
	if st.Pending != nil {
		have = st.Pending.Revision
	}
	if st.Revision != revision || have != pending {
		s.t.Fatalf("revision %d is live and %d pending, should be %d and %d", st.Revision, have, revision, pending)
	}
	for _, m := range e.History() {
		if m.Status == Pending && m.Number != pending {
			s.t.Errorf("revision %d is pending in the books", m.Number)
		}
		if m.Number == revision && pending == 0 && m.Status != Confirmed {
			s.t.Errorf("revision %d is live and %s in the books", m.Number, m.Status)
		}
	}
	if _, err := os.Stat(filepath.Join(s.dir, pendingFile)); (err == nil) != (pending != 0) {
		s.t.Errorf("%s: %v, with revision %d pending", pendingFile, err, pending)
	}
}

func (s *site) condition(e *Engine, kind string, want ConditionValue) Condition {
	s.t.Helper()
	for _, c := range e.Status().Conditions {
		if c.Type == kind {
			if c.Status != want {
				s.t.Fatalf("%s is %s (%s: %s), should be %s", kind, c.Status, c.Reason, c.Message, want)
			}
			return c
		}
	}
	s.t.Fatalf("no condition %s", kind)
	return Condition{}
}

// without fails where there is a condition.
func (s *site) without(e *Engine, kind string) {
	s.t.Helper()
	for _, c := range e.Status().Conditions {
		if c.Type == kind {
			s.t.Errorf("condition %+v, should be none", c)
		}
	}
}

// history prints the books, one revision a line.
func history(e *Engine) string {
	var b strings.Builder
	for _, m := range e.History() {
		b.WriteString(string(m.Status) + " " + m.Message)
		if m.Reason != "" {
			b.WriteString(" (" + m.Reason + ")")
		}
		b.WriteString("\n")
	}
	return b.String()
}

const minute = time.Minute

// The three configurations that most tests move between: from a to b there is something to add, to change and to take
// away in every subsystem.
const (
	confA = `host.mtu=1500
host.old=1
wireguard.fra1=k1
wireguard.ams1=k1
tc.gen=1
tc.old=1
xdp.gen=1
xdp.old=1
bgp.tor-a=1
bgp.net1=1`
	confB = `host.mtu=9000
host.new=1
wireguard.fra1=k2
wireguard.par1=k1
tc.gen=2
tc.new=1
xdp.gen=2
xdp.new=1
bgp.tor-a=2
bgp.net2=1`
	confC = `host.mtu=1400
bgp.tor-a=3`
)
