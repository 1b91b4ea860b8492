package workload

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"sluice/control/compile"
	"sluice/control/config"
	"sluice/control/engine"
)

// machine is an engine that holds what it is told, unless it refuses a name or fails.
type machine struct {
	mu      sync.Mutex
	list    *List
	cfg     *config.Config
	refuses string
	fails   string
	steps   int
	hold    chan struct{}
}

func newMachine(t *testing.T, path string) *machine {
	t.Helper()
	cfg, err := config.Parse(config.Source{Name: "edge.yaml", Bytes: []byte(`
interfaces: [{name: eth0, role: uplink, addresses: [198.18.0.2/30]}]
sets: [{name: resolvers, prefixes: [198.51.100.53]}]
workloads: [{name: web-1, interface: w1, addresses: [10.0.0.1]}]
`)})
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{cfg: cfg}
	m.list = New(Options{Path: path, Log: slog.New(slog.DiscardHandler), Live: func() *config.Config { return m.cfg }, Alter: m.alter})
	return m
}

func (m *machine) alter(_ context.Context, a engine.Alteration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.hold != nil {
		<-m.hold
	}
	if err := a.Begin(); err != nil {
		return err
	}
	d := &compile.Desired{}
	var names []string
	for _, w := range m.list.Added(m.cfg) {
		names = append(names, w.Name)
		if w.Name == m.refuses {
			d.Refused = append(d.Refused, compile.Refused{Workload: w.Name, Why: "it is refused"})
		}
	}
	err := a.Judge(d)
	if err == nil {
		err = a.Keep()
	}
	if err == nil && slices.Contains(names, m.fails) {
		err = errors.New("a step fails")
	}
	if err != nil {
		return errors.Join(err, a.Undo())
	}
	m.steps++
	return nil
}

func (m *machine) add(name, link, address string) ([]Outcome, error) {
	return m.list.Change(context.Background(), Change{Add: []Spec{{Name: name, Interface: link, Addresses: []string{address}}}})
}

func (m *machine) names() string {
	var names []string
	for _, s := range m.list.All() {
		names = append(names, s.Name)
	}
	return strings.Join(names, " ")
}

func TestChangesAreKeptAndTheSameAgainIsNone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "workloads.json")
	m := newMachine(t, path)
	for _, c := range []struct{ address, want string }{{"10.0.0.2/32", Added}, {"10.0.0.2", Unchanged}, {"10.0.0.3", Replaced}} {
		if got, err := m.add("a", "wa", c.address); err != nil || len(got) != 1 || got[0] != (Outcome{"a", c.want}) {
			t.Errorf("%s: %v, %v; want %s", c.address, got, err, c.want)
		}
	}
	if m.steps != 2 {
		t.Errorf("%d alterations, want 2", m.steps)
	}
	again := newMachine(t, path)
	if err := again.list.Load(); err != nil || !slices.EqualFunc(again.list.All(), m.list.All(), Spec.equal) {
		t.Errorf("loaded %+v, %v", again.list.All(), err)
	}
	if got, err := again.list.Change(t.Context(), Change{Remove: []string{"a"}}); err != nil || got[0].Change != Removed {
		t.Errorf("%v, %v", got, err)
	}
	third := newMachine(t, path)
	if err := third.list.Load(); err != nil || third.names() != "" {
		t.Errorf("what was removed came back: %q, %v", third.names(), err)
	}
}

func TestWhatIsWrongChangesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "workloads.json")
	m := newMachine(t, path)
	if _, err := m.add("a", "wa", "10.0.0.2"); err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(path)
	m.refuses, m.fails = "refused", "fails"
	for name, c := range map[string]struct{ name, link, address, want string }{
		"file's name":      {"web-1", "x", "10.0.0.9", "the name web-1 belongs to workload web-1 of the file (edge.yaml:4:"},
		"file's interface": {"b", "w1", "10.0.0.9", "the interface w1 belongs to"},
		"added interface":  {"b", "wa", "10.0.0.9", "which was added by the API"},
		"added address":    {"b", "x", "10.0.0.2", "the address 10.0.0.2 belongs to workload a"},
		"no address":       {"b", "x", "web", "addresses[0]"},
		"refused":          {"refused", "x", "10.0.0.9", "it is refused"},
		"a failed step":    {"fails", "x", "10.0.0.9", "a step fails"},
	} {
		if _, err := m.add(c.name, c.link, c.address); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if after, _ := os.ReadFile(path); m.names() != "a" || string(after) != string(before) {
			t.Errorf("%s: the list is %q, the file\n%s", name, m.names(), after)
		}
	}
}

// What stands in a request has no line, and says of which workload it is.
func TestWhatIsWrongWithARequestIsToldByWorkloadAndPath(t *testing.T) {
	m := newMachine(t, filepath.Join(t.TempDir(), "workloads.json"))
	_, err := m.list.Change(t.Context(), Change{Add: []Spec{
		{Name: "a", Interface: "wa", Addresses: []string{"10.0.0.2"}},
		{Name: "b", Interface: "w1", Addresses: []string{"10.0.0.3"}},
		{Name: "c", Interface: "wc", Addresses: []string{"10.0.0.4", "10.0.0.4"}, Policy: "\nsnat: 10.0.0.300\n", PolicyFile: "c.yaml"},
	}})
	want := "workload b.interface: the interface w1 belongs to workload web-1 of the file (edge.yaml:4:13); take another, or change the file first\n" +
		`c.yaml:2:7: workload c.snat: "10.0.0.300" is not an IP address` + "\n" +
		`workload c.addresses[1]: duplicate workload address "10.0.0.4"; the first stands at addresses[0]`
	if err == nil || err.Error() != want || m.names() != "" {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	if _, err := m.add("d", "wd", "10.0.0.5"); err != nil {
		t.Fatal(err)
	}
	if added := m.list.Added(m.cfg); len(added) != 1 || added[0].Pos != (config.Pos{}) {
		t.Errorf("it stands at %v", added)
	}
}

func TestRequestsThatWaitAreOneAlterationAndABadOneTakesNoOtherWithIt(t *testing.T) {
	m := newMachine(t, filepath.Join(t.TempDir(), "workloads.json"))
	m.hold, m.fails = make(chan struct{}), "c"
	var wait sync.WaitGroup
	errs := map[string]error{}
	var mu sync.Mutex
	for i, name := range []string{"a", "b", "c", "d", "web-1"} {
		wait.Go(func() {
			_, err := m.add(name, "link-"+name, "10.0.1."+string(rune('1'+i)))
			mu.Lock()
			defer mu.Unlock()
			errs[name] = err
		})
	}
	close(m.hold)
	wait.Wait()
	for _, name := range []string{"a", "b", "d"} {
		if errs[name] != nil {
			t.Errorf("%s: %v", name, errs[name])
		}
	}
	if errs["c"] == nil || errs["web-1"] == nil || m.names() != "a b d" {
		t.Errorf("c: %v, web-1: %v, the list is %q", errs["c"], errs["web-1"], m.names())
	}
}

func TestADamagedFileIsSetAside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "workloads.json")
	for _, text := range []string{"{", `{"schema": 9}`, `{"schema": 1, "workloads": [{"name": ""}]}`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		m := newMachine(t, path)
		if err := m.list.Load(); err == nil || !strings.Contains(err.Error(), "add them again") || m.names() != "" {
			t.Errorf("%s: %v, %q", text, err, m.names())
		}
		if aside, err := os.ReadFile(path + ".damaged"); err != nil || string(aside) != text {
			t.Errorf("%s: set aside is %q, %v", text, aside, err)
		}
	}
}
