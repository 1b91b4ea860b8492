// Package ban keeps the list of banned sources: who banned them, why and until when. The data path has its own table of
// them (Table), which it judges by alone; this list brings it through a reboot, and sweeps it.
//
// Which of the two is right depends on where they meet. A table that was filled already (Table.Loaded) says what is
// banned and until when, and the file only why: so a daemon that was killed loses nothing. A new one, after a reboot, is
// filled from the file, whose ends are on the wall clock.
package ban

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"sluice/control/disk"
)

// MaxFor is the longest that a ban with an end may last.
const MaxFor = 365 * 24 * time.Hour

// Table is the kernel's. Times are since the machine booted; 0 is no end, or never.
type Table interface {
	Loaded() bool
	SetLoaded() error
	All() map[netip.Prefix]time.Duration
	Set(p netip.Prefix, until time.Duration) error
	Remove(p netip.Prefix) error
	Hits(p netip.Prefix) (packets uint64, last time.Duration, err error)
	// Repin keeps the table the one that is looked into, whoever removed its pins.
	Repin() error
	Close() error
}

// Clock is the time of the machine.
type Clock interface {
	Now() time.Time      // the wall clock
	Boot() time.Duration // CLOCK_BOOTTIME
}

// Ban is one banned source.
type Ban struct {
	Target netip.Prefix // masked
	Since  time.Time
	Until  time.Time // zero: until it is lifted
	Why    string
	By     string
	Before *Former // the ban of the target that this one took the place of; known only to who made this one
}

// Former is a ban that another took the place of.
type Former struct {
	Until   time.Time // zero: until it is lifted
	Why, By string
}

// Shown is a ban with what it has dropped.
type Shown struct {
	Ban
	Remaining time.Duration // 0: until it is lifted
	Packets   uint64
	LastHit   time.Time // zero: never
}

// Kind is what happened to a ban.
type Kind string

// What happens to bans.
const (
	Banned   Kind = "banned"
	Unbanned Kind = "unbanned"
	Expired  Kind = "expired"
)

// Options are what a List is made of.
type Options struct {
	Path   string                // of its file
	Open   func() (Table, error) // tried again by each operation until it succeeds
	Clock  Clock
	Log    *slog.Logger
	Notify func(Kind, Ban) // may be nil; must not block
	Faults *disk.Faults    // told of its files
}

// entry is a ban with its end on the boot clock, the one that the data path goes by.
type entry struct {
	record
	end time.Duration // 0: no end
	// wall says that Until is right and end was derived from it: a ban from before the reboot. It is derived again when
	// the wall clock is set, as NTP does once the network is up.
	wall bool
}

// List is the list of bans.
type List struct {
	opts Options

	mu     sync.Mutex
	table  Table // nil: not open yet
	failed error // why it could not be opened, when last tried
	bans   map[netip.Prefix]*entry
	offset time.Duration // of the wall clock over the boot clock, when last looked at
	writer writer

	journal journal
}

// New makes a list; nothing happens before Load.
func New(o Options) *List {
	if o.Notify == nil {
		o.Notify = func(Kind, Ban) {}
	}
	return &List{opts: o, bans: map[netip.Prefix]*entry{}, writer: writer{wake: make(chan struct{}, 1)},
		journal: journal{path: strings.TrimSuffix(o.Path, ".json") + ".journal"}}
}

// Load opens the table and brings it and the file together. Call it before packets are let in; where it fails, the next
// operation tries again.
func (l *List) Load() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open()
}

// Repin is the table's.
func (l *List) Repin() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.table == nil {
		return nil
	}
	return l.table.Repin()
}

func (l *List) open() error {
	if l.table == nil {
		l.failed = l.load()
	}
	return l.failed
}

func (l *List) load() error {
	records, err := readFile(l.opts.Path)
	if err != nil {
		l.opts.Faults.Damaged(filepath.Base(l.opts.Path), fmt.Sprintf("there are no bans until this is mended: %v", err))
		return fmt.Errorf("bans: %w", err)
	}
	records, damaged, err := l.journal.replay(records)
	if err != nil {
		return fmt.Errorf("bans: %w", err)
	}
	if damaged > 0 { // what they said is never known, so this is told until the daemon ends
		l.opts.Log.Warn("bans: lines of the journal are damaged and passed over, as a power cut may leave them", "lines", damaged)
		l.opts.Faults.Damaged(filepath.Base(l.journal.path), fmt.Sprintf("%d of its lines were passed over, as a power cut may leave them: look whether a ban is missing", damaged))
	}
	table, err := l.opts.Open()
	if err != nil {
		return fmt.Errorf("bans: %w", err)
	}
	l.offset = l.wallOffset()
	clear(l.bans)
	if table.Loaded() {
		l.adopt(table, records)
	} else if err := l.fill(table, records); err != nil {
		return errors.Join(fmt.Errorf("bans: %w", err), table.Close())
	}
	l.table = table
	l.rewrite()
	return nil
}

// adopt takes what the table holds. A ban that the file does not know was made in the instant before a kill.
func (l *List) adopt(table Table, records []record) {
	known := map[netip.Prefix]record{}
	for _, r := range records {
		known[r.Target] = r
	}
	for p, end := range table.All() {
		r, ok := known[p]
		if !ok {
			r = record{Target: p, Since: l.opts.Clock.Now(), Why: "(the daemon was killed before it could note why)"}
		}
		l.bans[p] = &entry{record: r, end: end}
	}
}

// fill brings the bans of the file into a new table. It may have been interrupted before.
func (l *List) fill(table Table, records []record) error {
	for _, r := range records {
		e := &entry{record: r, wall: !r.Until.IsZero()}
		if e.wall {
			left := l.left(r)
			if left <= 0 {
				continue
			}
			e.end = l.opts.Clock.Boot() + left
		}
		if err := table.Set(r.Target, e.end); err != nil {
			return err
		}
		l.bans[r.Target] = e
	}
	return table.SetLoaded()
}

// left is how long a ban of the file still lasts. A clock that stands before the ban was made is wrong: then all of it.
func (l *List) left(r record) time.Duration {
	left := r.Until.Sub(l.opts.Clock.Now())
	if r.For > 0 {
		left = min(left, r.For)
	}
	return left
}

func (l *List) wallOffset() time.Duration {
	return time.Duration(l.opts.Clock.Now().UnixNano()) - l.opts.Clock.Boot()
}

// until is the end on the wall clock of now.
func (l *List) until(e *entry) time.Time {
	if e.end == 0 {
		return time.Time{}
	}
	if e.wall {
		return e.Until
	}
	return l.opts.Clock.Now().Add(e.end - l.opts.Clock.Boot()).Round(time.Millisecond)
}

func (l *List) ban(e *entry) Ban {
	return Ban{Target: e.Target, Since: e.Since, Until: l.until(e), Why: e.Why, By: e.By}
}

func (l *List) live(e *entry) bool { return e.end == 0 || e.end > l.opts.Clock.Boot() }

// Add bans targets for a time, 0 for until they are lifted; what is banned already gets the new end and reason, be it
// sooner than the former, which comes back as Before. When it returns the next packet is dropped, and a kill loses nothing of the ban; it is on the disk within moments, so that a power
// cut may lose it. On an error the bans before the one that failed hold.
func (l *List) Add(targets []netip.Prefix, d time.Duration, why, by string) ([]Ban, error) {
	if d < 0 || d > MaxFor {
		return nil, fmt.Errorf("a ban for %s: at most %d days; without an end it holds until it is lifted", d, MaxFor/(24*time.Hour))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.open(); err != nil {
		return nil, err
	}
	var out []Ban
	var changes []change
	for _, p := range targets {
		e := &entry{record: record{Target: p, Since: l.opts.Clock.Now(), For: d, Why: why, By: by}}
		if d > 0 {
			e.end = l.opts.Clock.Boot() + d
		}
		var before *Former
		if old := l.bans[p]; old != nil && l.live(old) {
			before = &Former{l.until(old), old.Why, old.By}
		}
		if err := l.table.Set(p, e.end); err != nil {
			return out, errors.Join(err, l.changed(changes))
		}
		l.bans[p] = e
		b := l.ban(e)
		b.Before = before
		out = append(out, b)
		r := e.record
		r.Until = b.Until
		changes = append(changes, change{Ban: &r})
		l.opts.Notify(Banned, b)
	}
	return out, l.changed(changes)
}

// ErrNotBanned says that a target has no ban of its own.
var ErrNotBanned = errors.New("is not banned")

// Remove lifts bans. Each target must be one as it was banned; else nothing is lifted.
func (l *List) Remove(targets []netip.Prefix) ([]Ban, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.open(); err != nil {
		return nil, err
	}
	for _, p := range targets {
		if e := l.bans[p]; e == nil || !l.live(e) {
			return nil, l.notBanned(p)
		}
	}
	var out []Ban
	var changes []change
	for _, p := range targets {
		e := l.bans[p]
		if e == nil {
			continue // given twice
		}
		if err := l.table.Remove(p); err != nil {
			return out, errors.Join(err, l.changed(changes))
		}
		delete(l.bans, p)
		b := l.ban(e)
		out = append(out, b)
		changes = append(changes, change{Unban: p})
		l.opts.Notify(Unbanned, b)
	}
	return out, l.changed(changes)
}

// notBanned names the ban that covers a target, which is what its author would look for.
func (l *List) notBanned(p netip.Prefix) error {
	if e := l.find(p.Addr()); e != nil && e.Target.Bits() <= p.Bits() {
		return fmt.Errorf("%s %w by itself, but as a part of %s", Text(p), ErrNotBanned, Text(e.Target))
	}
	return fmt.Errorf("%s %w", Text(p), ErrNotBanned)
}

// Find returns the ban that a packet of this source meets: the longest that holds.
func (l *List) Find(a netip.Addr) (Ban, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.find(a.Unmap()); e != nil {
		return l.ban(e), true
	}
	return Ban{}, false
}

func (l *List) find(a netip.Addr) *entry {
	for bits := a.BitLen(); bits > 0; bits-- {
		p, err := a.Prefix(bits)
		if err != nil {
			return nil
		}
		if e := l.bans[p]; e != nil && l.live(e) {
			return e
		}
	}
	return nil
}

// Len is the number of bans that hold.
func (l *List) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, e := range l.bans {
		if l.live(e) {
			n++
		}
	}
	return n
}
