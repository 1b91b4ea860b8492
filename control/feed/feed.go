// Package feed follows watched set files. What such a file holds is no part of a revision but state of the moment, as bans
// are: apply and rollback do not take it back. A file that is missing, wrong or being written is not believed; what it
// held when it was last good stays, here and, for the next start, in the state directory.
//
// Contents are fresh when they were read, and good when they were compiled: a feed that no table can hold is refused by
// the compiler, and what it held before goes on.
package feed

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"sluice/control/config"
	"sluice/control/disk"
)

// Options are what a List is made of.
type Options struct {
	Dir string // of the last good contents; made where it is not there
	Log *slog.Logger
	// Wanted are the files to follow now, by absolute path. settled is false while others may be asked for again, as
	// those of a base are while a revision is pending: nothing is forgotten then.
	Wanted func() (paths []string, settled bool)
	// Changed makes the newest contents live.
	Changed func() error
	Notify  func(Change)    // must not block
	Report  func([]Problem) // what is wrong now; called when that changes, with nil where no file is followed
	Faults  *disk.Faults    // told of the files of Dir
}

// Change is what became of a file.
type Change struct {
	Path           string
	Prefixes       int   // that it holds now, or held when it was last good
	Added, Removed int   // prefixes
	Wrong          error // why it is not believed; nil: its contents are live, or again are those that were
}

// Problem is a file that is not as it should be.
type Problem struct {
	Path string
	Text string // one line; the first of several errors, with their count
}

// Status is one file.
type Status struct {
	Prefixes, IPv4 int // that it holds, or held when it was last good

	Changed time.Time // when its contents last changed here; zero: not since the start
	Wrong   string    // one line; "": what it holds is live
	Since   time.Time // of Wrong
}

// List is every file that is followed, or that a candidate asks for.
type List struct {
	opts Options
	wake chan struct{}

	mu    sync.Mutex
	files map[string]*file
	told  string // the problems that were reported last
}

// file is one watched file.
type file struct {
	path     string
	followed bool

	good    []netip.Prefix // sorted, distinct; nil: never had
	fresh   []netip.Prefix // read and not compiled yet; nil: none
	refused bool           // what it holds now does not compile
	wrong   error          // why what it holds now is not live
	since   time.Time      // of wrong
	changed time.Time

	shown, stored []netip.Prefix // good, as it was last told of and last written
	told          string         // what was last said to be wrong with it; "": nothing

	read, seen stamp // as it was when it was last read, and when it was last looked at
	writing    time.Time
}

// New makes a list; it reads nothing before it is asked.
func New(o Options) *List {
	return &List{opts: o, wake: make(chan struct{}, 1), files: map[string]*file{}}
}

// Wake tells that Wanted may answer otherwise now. It does not block.
func (l *List) Wake() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// newest returns what the file holds, compiled or not.
func (f *file) newest() []netip.Prefix {
	if f.fresh != nil {
		return f.fresh
	}
	return f.good
}

// problem is one line about what is wrong; "": nothing is.
func (f *file) problem() string {
	if f.wrong == nil {
		return ""
	}
	return oneLine(f.wrong)
}

// fail notes why what the file holds is not live. It returns false where that was known.
func (f *file) fail(err error) bool {
	if f.wrong != nil && f.wrong.Error() == err.Error() {
		return false
	}
	f.wrong, f.since = err, time.Now()
	return true
}

// Prepare reads files that a candidate names and that are not followed yet. An error says which have never been good:
// with nothing to keep, a set would be empty. It is of type config.Errors, without a place in the configuration.
func (l *List) Prepare(paths []string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs config.Errors
	for _, path := range paths {
		if f := l.files[path]; f != nil && f.followed {
			continue // live already, such as it is
		}
		f := l.load(path)
		var list config.Errors
		switch {
		case f.newest() != nil:
		case errors.As(f.wrong, &list):
			errs = append(errs, list...)
		default:
			errs = append(errs, config.Error{Msg: fmt.Sprint(f.wrong)})
		}
	}
	if errs != nil {
		return errs
	}
	return nil
}

// load reads a file anew, or takes what the state directory has of it.
func (l *List) load(path string) *file {
	f := l.files[path]
	if f == nil {
		f = &file{path: path}
		l.files[path] = f
	}
	if f.good == nil {
		if kept, lost := l.restore(path); lost == nil {
			f.good, f.shown, f.stored = kept, kept, kept
		} else if !errors.Is(lost, fs.ErrNotExist) {
			l.opts.Log.Warn("what a watched set file held when it was last good is lost", "file", path, "error", oneLine(lost))
			l.opts.Faults.Damaged(l.called(path), fmt.Sprintf("what %s held when it was last good is lost: %s", path, oneLine(lost)))
		}
	}
	contents, at, err := read(path)
	if !isWritten(err) {
		f.read = at // what is being written is looked at again, though it may not change any more
	}
	if err == nil {
		f.wrong = nil
		if f.fresh = nil; !equal(contents, f.good) {
			f.fresh = contents
		}
	}
	if err != nil {
		l.fail(f, err)
	}
	return f
}

// Snapshot is what files hold at one moment, for one compilation.
type Snapshot struct {
	list     *List
	Contents map[string][]netip.Prefix // by path; a file that was never good is not in it
	fresh    map[string][]netip.Prefix // those of Contents that never compiled
}

// Snapshot returns the newest contents of files. One that nobody asked for before is read now.
func (l *List) Snapshot(paths []string) Snapshot {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Snapshot{l, map[string][]netip.Prefix{}, map[string][]netip.Prefix{}}
	for _, path := range paths {
		f := l.files[path]
		if f == nil {
			f = l.load(path)
		}
		if f.fresh != nil {
			s.fresh[path] = f.fresh
		}
		if newest := f.newest(); newest != nil {
			s.Contents[path] = newest
		}
	}
	return s
}

// Compiled makes what was fresh good.
// Without paths it is about all that is fresh.
func (s Snapshot) Compiled(paths ...string) {
	s.list.mu.Lock()
	defer s.list.mu.Unlock()
	for path, contents := range s.fresh {
		if len(paths) > 0 && !slices.Contains(paths, path) {
			continue
		}
		f := s.list.files[path]
		if f != nil && same(f.fresh, contents) {
			f.good, f.fresh, f.refused = contents, nil, false
		}
	}
}

// Before returns the contents with what compiled before in the place of what is fresh. false: there is nothing fresh, or
// nothing to take its place.
func (s Snapshot) Before() (map[string][]netip.Prefix, bool) {
	s.list.mu.Lock()
	defer s.list.mu.Unlock()
	out := map[string][]netip.Prefix{}
	for path, contents := range s.Contents {
		out[path] = contents
		if s.fresh[path] == nil {
			continue
		}
		f := s.list.files[path]
		if f == nil || f.good == nil {
			return nil, false
		}
		out[path] = f.good
	}
	return out, len(s.fresh) > 0
}

// Fresh are the files whose contents have not compiled yet, sorted.
func (s Snapshot) Fresh() []string { return slices.Sorted(maps.Keys(s.fresh)) }

// Refused says that the compiler took what Before returned, and not what is fresh in one file.
func (s Snapshot) Refused(path string, err error) {
	s.list.mu.Lock()
	defer s.list.mu.Unlock()
	f := s.list.files[path]
	if f == nil || !same(f.fresh, s.fresh[path]) {
		return
	}
	f.fresh, f.refused = nil, true
	if f.fail(fmt.Errorf("what %s holds does not fit: %w", path, err)) {
		s.list.opts.Log.Error("a watched set file is refused, keeping what it held before", "file", path, "error", oneLine(err))
	}
}

// same says whether two lists are one: they are never changed.
func same(a, b []netip.Prefix) bool {
	return len(a) == len(b) && (a == nil) == (b == nil) && (len(a) == 0 || &a[0] == &b[0])
}

// Status is what is known of a file.
func (l *List) Status(path string) Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.files[path]
	if f == nil {
		return Status{}
	}
	s := Status{Prefixes: len(f.good), Changed: f.changed}
	// IPv4 sorts first.
	s.IPv4, _ = slices.BinarySearchFunc(f.good, netip.PrefixFrom(netip.IPv6Unspecified(), 0), config.ComparePrefixes)
	if s.Wrong = f.problem(); s.Wrong != "" {
		s.Since = f.since
	}
	return s
}

// oneLine is the first of several errors, with their count.
func oneLine(err error) string {
	var list config.Errors
	if errors.As(err, &list) && len(list) > 1 && fmt.Sprint(list) == err.Error() {
		return fmt.Sprintf("%s (and %d more errors)", list[0], len(list)-1)
	}
	return err.Error()
}

// difference counts the prefixes that only one of two sorted lists has.
func difference(before, now []netip.Prefix) (added, removed int) {
	for len(before) > 0 && len(now) > 0 {
		switch n := config.ComparePrefixes(before[0], now[0]); {
		case n == 0:
			before, now = before[1:], now[1:]
		case n < 0:
			before, removed = before[1:], removed+1
		default:
			now, added = now[1:], added+1
		}
	}
	return added + len(now), removed + len(before)
}

func equal(a, b []netip.Prefix) bool { return b != nil && slices.Equal(a, b) }
