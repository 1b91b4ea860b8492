package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/control/compile"
	"sluice/control/config"
	"sluice/control/host"
)

// The test's language of configurations, one statement a line:
//
//	xdp.a=1     the fake subsystem xdp holds a=1; "$fact" as a value stands for the fact of now
//	check       apply.checks has an entry
//	file PATH   a set file; each of its lines is a statement, too
//	# TEXT      nothing

func parseText(name string, data []byte, read func(string) ([]byte, error)) (*config.Config, error) {
	cfg := &config.Config{}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	for i := 0; i < len(lines); i++ {
		line := strings.TrimSpace(lines[i])
		key, value, assigned := strings.Cut(line, "=")
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case line == "check":
			cfg.Apply.Checks = append(cfg.Apply.Checks, config.Check{KeepNeighbors: true})
		case strings.HasPrefix(line, "file "):
			path := strings.TrimPrefix(line, "file ")
			b, err := read(path)
			if err != nil {
				return nil, err
			}
			cfg.Files = append(cfg.Files, config.File{Path: path, Contents: b})
			lines = append(lines, strings.Split(strings.TrimSpace(string(b)), "\n")...)
		case assigned:
			cfg.Sysctls = append(cfg.Sysctls, config.Sysctl{Key: key, Value: value})
		default:
			return nil, fmt.Errorf("%s:%d: what is %q?", name, i+1, line)
		}
	}
	return cfg, nil
}

// compileText gives every key a rule id, the smallest that is free.
func compileText(cfg *config.Config, rt compile.Runtime, facts compile.Facts) (*compile.Desired, error) {
	d := &compile.Desired{RuleIDs: map[string]uint32{}}
	taken := maps.Clone(rt.Retired)
	for _, id := range rt.RuleIDs {
		taken[id] = true
	}
	for _, s := range cfg.Sysctls {
		if s.Value == "$fact" {
			s.Value = facts.Host.KernelRelease
		}
		if s.Value == "" {
			return nil, fmt.Errorf("%s has no value", s.Key)
		}
		d.Host.Sysctls = append(d.Host.Sysctls, host.Sysctl{Key: s.Key, Value: s.Value})
		id, known := rt.RuleIDs[s.Key]
		if !known {
			id, known = rt.Claims[s.Key]
		}
		for !known && (id == 0 || taken[id]) {
			id++
		}
		d.RuleIDs[s.Key], taken[id] = id, true
	}
	return d, nil
}

// machine is what the fake subsystems work on: it outlives engines as a kernel outlives daemons.
type machine struct {
	mu     sync.Mutex
	state  map[string]map[string]string // subsystem -> key -> value
	log    []string                     // ops done
	looked []string                     // subsystems that were observed
	blind  string                       // subsystem that cannot be observed
	before func(sub string, op fakeOp) error
	after  func(sub string, op fakeOp) error
	saved  string // file that holds state, for machines that outlive a process
}

func (m *machine) String() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var lines []string
	for sub, kv := range m.state {
		for k, v := range kv {
			lines = append(lines, sub+"."+k+"="+v)
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

type fakeOp struct {
	verb, key, value string // set, change, del, withdraw
}

func (o fakeOp) String() string { return strings.TrimSuffix(o.verb+" "+o.key+"="+o.value, "=") }
func (o fakeOp) Teardown() bool { return o.verb == "del" }

// Between holds of steps on keys that begin so.
func (o fakeOp) Between() bool { return strings.HasPrefix(o.key, "between-") }

// Contained holds of steps on keys that begin with own.
func (o fakeOp) Contained() bool { return strings.HasPrefix(o.key, "own") }

// Builds says that steps on keys that begin with lone stand for themselves, and each other one builds on those before it.
func (o fakeOp) Builds() (what string, on []string) {
	switch {
	case strings.HasPrefix(o.key, "lone"):
		return "", nil
	case o.key == "forwarding":
		return o.key, []string{"rest"}
	}
	return "rest", []string{"rest"}
}

// fake is a driver whose State is a map.
type fake struct {
	name string
	m    *machine
}

func (f fake) Observe(context.Context) (map[string]string, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	f.m.looked = append(f.m.looked, f.name)
	if f.m.blind == f.name {
		return nil, errInjected
	}
	return maps.Clone(f.m.state[f.name]), nil
}

func (f fake) Diff(have, want map[string]string) []fakeOp {
	var ops []fakeOp
	for _, k := range slices.Sorted(maps.Keys(have)) {
		if _, ok := want[k]; !ok {
			ops = append(ops, fakeOp{"del", k, ""})
		}
	}
	for _, k := range slices.Sorted(maps.Keys(want)) {
		v, ok := have[k]
		if !ok {
			ops = append(ops, fakeOp{"set", k, want[k]})
		} else if v != want[k] {
			ops = append(ops, fakeOp{"change", k, want[k]})
		}
	}
	return ops
}

func (f fake) Apply(ctx context.Context, op fakeOp) error {
	if f.m.before != nil {
		if err := f.m.before(f.name, op); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := f.m.apply(f.name, op); err != nil {
		return err
	}
	if f.m.after != nil {
		return f.m.after(f.name, op)
	}
	return nil
}

func (m *machine) apply(sub string, op fakeOp) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.log = append(m.log, sub+" "+op.String())
	if m.state[sub] == nil {
		m.state[sub] = map[string]string{}
	}
	if op.Teardown() {
		delete(m.state[sub], op.key)
	} else {
		m.state[sub][op.key] = op.value
	}
	if m.saved == "" {
		return nil
	}
	b, err := json.Marshal(m.state)
	if err != nil {
		return err
	}
	if err := os.WriteFile(m.saved+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(m.saved+".new", m.saved)
}

// take returns the ops done since the last take.
func (m *machine) take() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	log := m.log
	m.log = nil
	return log
}

func (m *machine) subsystems() []Subsystem {
	var out []Subsystem
	for _, name := range []string{"host", "wireguard", "tc", "xdp", "bgp"} {
		out = append(out, Bind(name, fake{name, m}, func(d *compile.Desired) map[string]string {
			want := map[string]string{}
			for _, s := range d.Host.Sysctls {
				if sub, key, _ := strings.Cut(s.Key, "."); sub == name {
					want[key] = s.Value
				}
			}
			return want
		}))
	}
	return out
}

type fakeClock struct {
	mu      sync.Mutex
	wall    time.Time
	boot    time.Duration
	id      string
	waiting map[chan time.Time]time.Duration
}

func newClock() *fakeClock {
	return &fakeClock{
		wall: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), boot: time.Hour, id: "boot-1",
		waiting: map[chan time.Time]time.Duration{},
	}
}

func (c *fakeClock) Now() time.Time      { c.mu.Lock(); defer c.mu.Unlock(); return c.wall }
func (c *fakeClock) Boot() time.Duration { c.mu.Lock(); defer c.mu.Unlock(); return c.boot }
func (c *fakeClock) BootID() string      { c.mu.Lock(); defer c.mu.Unlock(); return c.id }

func (c *fakeClock) After(d time.Duration) <-chan time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := make(chan time.Time, 1)
	c.waiting[ch] = c.boot + d
	return ch
}

func (c *fakeClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall, c.boot = c.wall.Add(d), c.boot+d
	for ch, at := range c.waiting {
		if at <= c.boot {
			ch <- c.wall
			delete(c.waiting, ch)
		}
	}
}

func (c *fakeClock) reboot() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.id, c.boot, c.wall = c.id+"'", time.Second, c.wall.Add(time.Minute)
}

// fakeChecker fails while bad is set.
type fakeChecker struct {
	mu        sync.Mutex
	bad       string
	baselines int
	seen      []string // the baselines that checks were given
}

func (c *fakeChecker) Baseline(context.Context) (json.RawMessage, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.baselines++
	return json.RawMessage(fmt.Sprintf(`"baseline %d"`, c.baselines)), nil
}

func (c *fakeChecker) Check(_ context.Context, baseline json.RawMessage, _ []config.Check) []Failure {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = append(c.seen, string(baseline))
	if c.bad == "" {
		return nil
	}
	return []Failure{{Check: "neighbors keep", Message: c.bad}}
}

func (c *fakeChecker) set(bad string) { c.mu.Lock(); defer c.mu.Unlock(); c.bad = bad }

var errInjected = errors.New("injected")
