package ban

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sluice/control/disk"
)

// clock stands still until a test moves it.
type clock struct {
	wall time.Time
	boot time.Duration
}

func (c *clock) Now() time.Time      { return c.wall }
func (c *clock) Boot() time.Duration { return c.boot }

func (c *clock) pass(d time.Duration) { c.wall, c.boot = c.wall.Add(d), c.boot+d }

// kernel is a Table in memory, which outlives its lists.
type kernel struct {
	loaded bool
	held   map[netip.Prefix]time.Duration
	fail   error
}

func (k *kernel) Loaded() bool                        { return k.loaded }
func (k *kernel) SetLoaded() error                    { k.loaded = true; return k.fail }
func (k *kernel) All() map[netip.Prefix]time.Duration { return maps.Clone(k.held) }
func (k *kernel) Close() error                        { return nil }
func (k *kernel) Repin() error                        { return k.fail }

func (k *kernel) Set(p netip.Prefix, until time.Duration) error {
	if k.fail == nil {
		k.held[p] = until
	}
	return k.fail
}

func (k *kernel) Remove(p netip.Prefix) error {
	if k.fail == nil {
		delete(k.held, p)
	}
	return k.fail
}

func (k *kernel) Hits(netip.Prefix) (uint64, time.Duration, error) { return 7, time.Second, k.fail }

// machine is what a list lives on.
type machine struct {
	*clock
	*kernel
	path   string
	notes  []string
	opened error
}

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newMachine(t *testing.T) *machine {
	return &machine{clock: &clock{noon, time.Hour}, kernel: &kernel{held: map[netip.Prefix]time.Duration{}}, path: filepath.Join(t.TempDir(), "bans.json")}
}

// list is a daemon that starts.
func (m *machine) list(t *testing.T) *List {
	t.Helper()
	l := m.new()
	if err := l.Load(); err != nil {
		t.Fatal(err)
	}
	return l
}

func (m *machine) new() *List {
	return New(Options{
		Path: m.path, Clock: m.clock, Log: slog.New(slog.DiscardHandler),
		Open:   func() (Table, error) { return m.kernel, m.opened },
		Notify: func(k Kind, b Ban) { m.notes = append(m.notes, fmt.Sprintf("%s %s", Text(b.Target), k)) },
	})
}

// reboot forgets what the kernel had; the clocks go on from elsewhere.
func (m *machine) reboot(away time.Duration) {
	m.kernel = &kernel{held: map[netip.Prefix]time.Duration{}}
	m.wall, m.boot = m.wall.Add(away), 10*time.Second
}

func targets(t *testing.T, texts ...string) []netip.Prefix {
	t.Helper()
	var out []netip.Prefix
	for _, text := range texts {
		p, err := ParseTarget(text)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}

func add(t *testing.T, l *List, d time.Duration, texts ...string) {
	t.Helper()
	if _, err := l.Add(targets(t, texts...), d, "why", "ann"); err != nil {
		t.Fatal(err)
	}
}

// left is what a list shows, as "target remaining".
func left(t *testing.T, l *List) string {
	t.Helper()
	all, err := l.All()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, b := range all {
		out = append(out, fmt.Sprintf("%s %s", Text(b.Target), b.Remaining))
	}
	return strings.Join(out, ", ")
}

func want(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

func TestABanIsShownUntilItsEndAndThenSwept(t *testing.T) {
	m := newMachine(t)
	l := m.list(t)
	add(t, l, 10*time.Minute, "192.0.2.7")
	add(t, l, 0, "2001:db8::/32")
	all, err := l.All()
	if err != nil {
		t.Fatal(err)
	}
	first := Shown{Ban: Ban{Target: targets(t, "192.0.2.7")[0], Since: noon, Until: noon.Add(10 * time.Minute), Why: "why", By: "ann"},
		Remaining: 10 * time.Minute, Packets: 7, LastHit: noon.Add(time.Second - time.Hour)}
	if diff := cmp.Diff(first, all[0], cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
		t.Error(diff)
	}
	if all[1].Remaining != 0 || !all[1].Until.IsZero() {
		t.Errorf("a ban without an end: %+v", all[1])
	}
	m.pass(9 * time.Minute)
	l.sweep()
	want(t, "before its end", left(t, l), "192.0.2.7 1m0s, 2001:db8::/32 0s")
	m.pass(time.Minute)
	want(t, "at its end, before it is swept", left(t, l), "2001:db8::/32 0s")
	if l.Len() != 1 || len(m.held) != 2 {
		t.Errorf("%d bans, %d in the table", l.Len(), len(m.held))
	}
	l.sweep()
	if len(m.held) != 1 {
		t.Errorf("the table still has %v", m.held)
	}
	want(t, "notices", strings.Join(m.notes, ", "), "192.0.2.7 banned, 2001:db8::/32 banned, 192.0.2.7 expired")
}

func TestBanningAgainTakesTheNewEnd(t *testing.T) {
	m := newMachine(t)
	l := m.list(t)
	for _, d := range []time.Duration{time.Minute, time.Hour, time.Second, 0} {
		add(t, l, d, "192.0.2.7")
		want(t, "again", left(t, l), fmt.Sprintf("192.0.2.7 %s", d))
	}
}

func TestBanningAgainSaysWhatHeldBefore(t *testing.T) {
	m := newMachine(t)
	l := m.list(t)
	before := func(d time.Duration, why string) string {
		t.Helper()
		bans, err := l.Add(targets(t, "192.0.2.7"), d, why, "ann")
		if err != nil || len(bans) != 1 {
			t.Fatalf("%v: %v", bans, err)
		}
		f := bans[0].Before
		if f == nil {
			return "nothing"
		}
		if f.Until.IsZero() {
			return "no end, " + f.Why
		}
		return f.Until.Sub(m.wall).String() + ", " + f.Why
	}
	want(t, "at first", before(time.Hour, "a"), "nothing")
	want(t, "the second", before(0, "b"), "1h0m0s, a")
	want(t, "the third", before(time.Minute, "c"), "no end, b")
	m.wall, m.boot = m.wall.Add(time.Hour), m.boot+time.Hour
	want(t, "once it has ended", before(0, "d"), "nothing")
	if found, _ := l.Find(targets(t, "192.0.2.7")[0].Addr()); found.Before != nil {
		t.Errorf("the list itself remembers %+v", found.Before)
	}
}

func TestUnbanTakesTheTargetsAsTheyWereBanned(t *testing.T) {
	m := newMachine(t)
	l := m.list(t)
	add(t, l, 0, "192.0.2.0/24", "198.51.100.7")
	for text, problem := range map[string]string{
		"192.0.2.7":     "192.0.2.7 is not banned by itself, but as a part of 192.0.2.0/24",
		"203.0.113.1":   "203.0.113.1 is not banned",
		"198.51.0.0/16": "198.51.0.0/16 is not banned",
	} {
		_, err := l.Remove(targets(t, "198.51.100.7", text))
		if !errors.Is(err, ErrNotBanned) || err.Error() != problem {
			t.Errorf("%s: %v", text, err)
		}
	}
	want(t, "after refusals", left(t, l), "192.0.2.0/24 0s, 198.51.100.7 0s")
	lifted, err := l.Remove(targets(t, "198.51.100.7", "192.0.2.0/24", "198.51.100.7"))
	if err != nil || len(lifted) != 2 || len(m.held) != 0 || l.Len() != 0 {
		t.Errorf("lifted %v (%v); the table has %v", lifted, err, m.held)
	}
}

func TestFindGivesTheLongestThatHolds(t *testing.T) {
	m := newMachine(t)
	l := m.list(t)
	add(t, l, time.Hour, "192.0.0.0/16", "2001:db8::/32")
	add(t, l, time.Minute, "192.0.2.0/24", "192.0.2.7")
	find := func(text string) string {
		b, ok := l.Find(netip.MustParseAddr(text))
		return fmt.Sprintf("%s %v", Text(b.Target), ok)
	}
	want(t, "exact", find("192.0.2.7"), "192.0.2.7 true")
	want(t, "mapped", find("::ffff:192.0.2.7"), "192.0.2.7 true")
	want(t, "prefix", find("192.0.2.8"), "192.0.2.0/24 true")
	want(t, "IPv6", find("2001:db8::1"), "2001:db8::/32 true")
	want(t, "none", find("198.51.100.1"), "invalid Prefix false")
	m.pass(time.Minute)
	want(t, "when the longer ones have ended", find("192.0.2.7"), "192.0.0.0/16 true")
}

func TestAKilledDaemonLosesNothing(t *testing.T) {
	m := newMachine(t)
	l := m.list(t)
	add(t, l, time.Hour, "192.0.2.7")
	if err := l.flush(); err != nil {
		t.Fatal(err)
	}
	add(t, l, time.Hour, "192.0.2.8") // and killed before it was written
	if _, err := l.Remove(targets(t, "192.0.2.7")); err != nil {
		t.Fatal(err)
	}
	add(t, l, time.Minute, "192.0.2.7")
	m.pass(time.Second)
	next := m.list(t)
	want(t, "the next daemon", left(t, next), "192.0.2.7 59s, 192.0.2.8 59m59s")
	for _, text := range []string{"192.0.2.7", "192.0.2.8"} {
		if b, _ := next.Find(netip.MustParseAddr(text)); b.Why != "why" || b.By != "ann" {
			t.Errorf("%s: %+v", text, b)
		}
	}
	// The table alone says what is banned, should the journal be lost.
	if err := errors.Join(os.RemoveAll(m.path), os.RemoveAll(next.journal.path)); err != nil {
		t.Fatal(err)
	}
	m.held[targets(t, "192.0.2.9")[0]] = 0
	last := m.list(t)
	if b, _ := last.Find(netip.MustParseAddr("192.0.2.9")); b.Why != "(the daemon was killed before it could note why)" {
		t.Errorf("a ban that only the table knows: %+v", b)
	}
}

func TestAnUnbanIsNotUndoneByAKill(t *testing.T) {
	m := newMachine(t)
	l := m.list(t)
	add(t, l, 0, "192.0.2.7")
	if err := l.flush(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Remove(targets(t, "192.0.2.7")); err != nil { // and killed before it was written
		t.Fatal(err)
	}
	want(t, "the next daemon", left(t, m.list(t)), "")
}

func TestAfterARebootTheWallClockDecides(t *testing.T) {
	m := newMachine(t)
	l := m.list(t)
	add(t, l, time.Hour, "192.0.2.7")
	add(t, l, time.Minute, "192.0.2.8")
	add(t, l, 0, "192.0.2.9")
	if err := l.flush(); err != nil {
		t.Fatal(err)
	}
	m.reboot(10 * time.Minute)
	l = m.list(t)
	want(t, "after the reboot", left(t, l), "192.0.2.7 50m0s, 192.0.2.9 0s")
	if m.held[targets(t, "192.0.2.7")[0]] != m.boot+50*time.Minute || len(m.held) != 2 || !m.loaded {
		t.Errorf("the table has %v", m.held)
	}
	// NTP finds that the clock was five minutes slow; bans of this boot last as long as they were to.
	add(t, l, time.Hour, "198.51.100.7")
	m.wall = m.wall.Add(5 * time.Minute)
	l.sweep()
	want(t, "after the clock was set", left(t, l), "192.0.2.7 45m0s, 192.0.2.9 0s, 198.51.100.7 1h0m0s")
	if b, _ := l.Find(netip.MustParseAddr("198.51.100.7")); !b.Until.Equal(m.wall.Add(time.Hour)) {
		t.Errorf("its end is shown as %s, and it is %s", b.Until, m.wall.Add(time.Hour))
	}
}

func TestAClockOfThePastLengthensNoBan(t *testing.T) {
	m := newMachine(t)
	l := m.list(t)
	add(t, l, time.Hour, "192.0.2.7")
	if err := l.flush(); err != nil {
		t.Fatal(err)
	}
	m.reboot(-50 * 365 * 24 * time.Hour) // no battery: it starts in 1976
	l = m.list(t)
	want(t, "with a clock of the past", left(t, l), "192.0.2.7 1h0m0s")
	m.wall = noon.Add(59 * time.Minute)
	l.sweep()
	want(t, "once the clock is right", left(t, l), "192.0.2.7 1m0s")
}

func TestABadFileIsNotOverwritten(t *testing.T) {
	for text, problem := range map[string]string{
		"{":                           "unexpected end of JSON input: move it away",
		`{"schema": 2, "bans": []}`:   "written by a newer sluice",
		`{"schema": 1, "bans": [{}]}`: "is no target of a ban",
		`{"schema": 1, "bans": [7]}`:  "move it away",
		`{"schema":1,"bans":[{"target":"192.0.2.7/24"}]}`: "is no target of a ban",
	} {
		m := newMachine(t)
		if err := os.WriteFile(m.path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		l := m.new()
		l.opts.Faults = disk.NewFaults(l.opts.Log, func() {})
		if err := l.Load(); err == nil || !strings.Contains(err.Error(), problem) {
			t.Errorf("%s: %v, want %q", text, err, problem)
		}
		if _, err := l.Add(targets(t, "192.0.2.7"), 0, "", ""); err == nil {
			t.Errorf("%s: banned all the same", text)
		}
		if err := l.flush(); err != nil {
			t.Error(err)
		}
		if got, _ := os.ReadFile(m.path); string(got) != text {
			t.Errorf("%s became %s", text, got)
		}
		if _, damaged := l.opts.Faults.List(); len(damaged) != 1 || !strings.Contains(damaged[0], problem) {
			t.Errorf("%s: told %q", text, damaged)
		}
	}
}

func TestATableThatCannotBeOpenedIsTriedAgain(t *testing.T) {
	m := newMachine(t)
	m.opened = errors.New("no bpffs")
	l := m.new()
	if err := l.Load(); !errors.Is(err, m.opened) {
		t.Errorf("load: %v", err)
	}
	if _, err := l.Add(targets(t, "192.0.2.7"), 0, "", ""); !errors.Is(err, m.opened) {
		t.Errorf("add: %v", err)
	}
	m.opened = nil
	add(t, l, 0, "192.0.2.7")
	want(t, "then", left(t, l), "192.0.2.7 0s")
}

func TestTheTableRefuses(t *testing.T) {
	m := newMachine(t)
	l := m.list(t)
	add(t, l, 0, "192.0.2.7")
	m.fail = errors.New("full")
	if _, err := l.Add(targets(t, "192.0.2.8"), 0, "", ""); !errors.Is(err, m.fail) {
		t.Errorf("add: %v", err)
	}
	if _, err := l.Remove(targets(t, "192.0.2.7")); !errors.Is(err, m.fail) {
		t.Errorf("remove: %v", err)
	}
	m.fail = nil
	want(t, "nothing changed", left(t, l), "192.0.2.7 0s")
	for _, d := range []time.Duration{-1, MaxFor + 1} {
		if _, err := l.Add(targets(t, "192.0.2.8"), d, "", ""); err == nil {
			t.Errorf("banned for %s", d)
		}
	}
}

// TestABurstCostsFewWrites: of a burst all are in the file in the end, and nothing is left beside it.
func TestABurstCostsFewWrites(t *testing.T) {
	m := newMachine(t)
	l := m.list(t)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	var wait sync.WaitGroup
	for i := range 10 {
		wait.Go(func() {
			for j := range 300 {
				p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(j / 200), byte(i), byte(j % 200)}), 32)
				if _, err := l.Add([]netip.Prefix{p}, time.Hour, "burst", ""); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	got, err := readFile(m.path)
	if err != nil || len(got) != 3000 {
		t.Errorf("the file has %d bans (%v)", len(got), err)
	}
	if !slices.IsSortedFunc(got, func(a, b record) int { return a.Target.Addr().Compare(b.Target.Addr()) }) {
		t.Error("the file is not sorted")
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(m.path), "*")); err != nil || len(left) != 1 {
		t.Errorf("the directory has %v (%v)", left, err)
	}
}

func TestADiskThatFailsIsToldAndTheBanHolds(t *testing.T) {
	m := newMachine(t)
	l := m.list(t)
	if err := l.flush(); err != nil {
		t.Fatal(err)
	}
	there := filepath.Dir(m.path)
	gone := filepath.Join(t.TempDir(), "gone")
	l.opts.Path, l.journal.path = filepath.Join(gone, "bans.json"), filepath.Join(gone, "bans.journal")
	if _, err := l.Add(targets(t, "192.0.2.7"), 0, "", ""); !errors.Is(err, errNotWritten) {
		t.Errorf("add: %v", err)
	}
	if err := l.flush(); !errors.Is(err, errNotWritten) {
		t.Errorf("flush: %v", err)
	}
	want(t, "all the same", left(t, l), "192.0.2.7 0s")
	// Once there is room again the next sweep has it written.
	l.opts.Path, l.journal.path = m.path, filepath.Join(there, "bans.journal")
	<-l.writer.wake
	l.sweep()
	<-l.writer.wake
	if err := l.flush(); err != nil {
		t.Fatal(err)
	}
	m.reboot(time.Minute)
	want(t, "after a reboot", left(t, m.list(t)), "192.0.2.7 0s")
}
