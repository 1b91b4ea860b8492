package feed

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settle is how long a file must not have changed to be read, and how long events are gathered.
	settle = 200 * time.Millisecond
	// inspection is for what no event tells of: network filesystems, directories that come back, overflows.
	inspection = 10 * time.Second
	// tooLong is when a file that is still open for writing becomes a problem.
	tooLong = time.Minute
)

// Run follows the files until ctx ends.
func (l *List) Run(ctx context.Context) error {
	events, errs := make(<-chan fsnotify.Event), make(<-chan error)
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		l.opts.Log.Warn("no events of watched set files, looking every while instead", "every", inspection, "error", err)
	} else {
		defer watcher.Close()
		events, errs = watcher.Events, watcher.Errors
	}
	tick := time.NewTicker(inspection)
	defer tick.Stop()
	var look <-chan time.Time // nil: nothing to look at
	soon := func() {
		if look == nil {
			l.mark()
			look = time.After(settle)
		}
	}
	l.follow(watcher, false)
	for first := true; ; first = false {
		if first && l.pass() {
			soon()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-l.wake:
			l.follow(watcher, true)
			soon()
		case <-tick.C:
			l.follow(watcher, false)
			soon()
		case err := <-errs: // an overflow: any file may have changed
			l.opts.Log.Debug("events of watched set files were lost", "error", err)
			soon()
		case <-events:
			soon()
		case <-look:
			look = nil
			if l.pass() {
				soon()
			}
		}
	}
}

// follow asks which files are wanted, and watches their directories: a feed is replaced by a rename, and a watch on the
// file itself would go on with the old one. Where retry is set, what was refused is offered again: another revision may
// have room for it.
func (l *List) follow(watcher *fsnotify.Watcher, retry bool) {
	wanted, settled := l.opts.Wanted()
	l.mu.Lock()
	defer l.mu.Unlock()
	for path, f := range l.files {
		f.followed = slices.Contains(wanted, path)
		if !f.followed && settled {
			delete(l.files, path)
		}
		if f.refused && retry {
			f.read = stamp{}
		}
	}
	directories := map[string]bool{}
	for _, path := range wanted {
		if l.files[path] == nil {
			l.load(path)
		}
		l.files[path].followed = true
		directories[filepath.Dir(path)] = true
		if target, err := filepath.EvalSymlinks(path); err == nil {
			directories[filepath.Dir(target)] = true
		}
	}
	if settled {
		if err := l.sweep(l.files); err != nil {
			l.opts.Log.Warn("sweep set files", "error", err)
		}
	}
	if watcher == nil {
		return
	}
	for _, old := range watcher.WatchList() {
		if !directories[old] {
			_ = watcher.Remove(old) // gone already, perhaps
		}
	}
	for directory := range directories {
		if err := watcher.Add(directory); err != nil {
			l.opts.Log.Debug("watch a directory", "directory", directory, "error", err)
		}
	}
}

// mark notes how files are now: who looks the same at the next pass stands still.
func (l *List) mark() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for path, f := range l.files {
		f.seen = stampOf(path)
	}
}

// pass looks at every file once, and makes live what changed. It says whether to look again soon.
func (l *List) pass() (again bool) {
	l.mu.Lock()
	fresh := false
	for _, path := range slices.Sorted(maps.Keys(l.files)) {
		f := l.files[path]
		if f.followed && l.look(f) {
			again = true
		}
		fresh = fresh || f.followed && f.fresh != nil
	}
	l.mu.Unlock()
	if fresh {
		// The compiler asks for a Snapshot meanwhile, and says what became of it.
		if err := l.opts.Changed(); err != nil {
			l.opts.Log.Error("watched set files", "error", err)
		}
	}
	l.finish()
	return again
}

// look reads a file where it changed and stands still. It says whether to look again soon.
func (l *List) look(f *file) (again bool) {
	now := stampOf(f.path)
	switch {
	case now == f.read:
		f.writing = time.Time{}
		return false
	case now != f.seen:
		f.seen = now
		return true
	}
	contents, at, err := read(f.path)
	if at != now {
		f.seen = at
		return true
	}
	if err != nil && isWritten(err) {
		if f.writing.IsZero() {
			f.writing = time.Now()
		} else if time.Since(f.writing) > tooLong {
			l.fail(f, fmt.Errorf("%s has been open for writing for over %s", f.path, tooLong))
		}
		return true
	}
	f.read, f.refused, f.writing = now, false, time.Time{}
	if err != nil {
		f.fresh = nil
		l.fail(f, err)
		return false
	}
	f.wrong = nil // until the compiler refuses it
	if f.fresh = nil; !equal(contents, f.good) {
		f.fresh = contents
	}
	return false
}

func (l *List) fail(f *file, err error) {
	if !f.fail(err) {
		return
	}
	l.opts.Log.Warn("a watched set file is not good, keeping what it held before", "file", f.path, "prefixes", len(f.newest()), "error", oneLine(err))
}

// tell hands on what became of a file since that was last done.
func (l *List) tell(f *file) {
	change := Change{Path: f.path, Prefixes: len(f.good)}
	if !same(f.good, f.shown) {
		change.Added, change.Removed = difference(f.shown, f.good)
		f.shown = f.good
	}
	changed := change.Added+change.Removed > 0
	if changed {
		l.opts.Log.Info("a watched set file changed", "file", f.path, "prefixes", len(f.good), "added", change.Added, "removed", change.Removed)
		f.changed = time.Now()
		l.opts.Notify(change)
	}
	problem := f.problem()
	if problem == f.told {
		return
	}
	f.told = problem
	switch {
	case problem != "":
		l.opts.Notify(Change{Path: f.path, Prefixes: len(f.good), Wrong: f.wrong})
	case !changed && f.fresh == nil: // else it is told of once it is live
		l.opts.Log.Info("a watched set file is good again", "file", f.path)
		l.opts.Notify(change)
	}
}

// finish tells of what became good and what did not, and writes the former.
func (l *List) finish() {
	l.mu.Lock()
	unsaved := map[string][]netip.Prefix{}
	for path, f := range l.files {
		if !f.followed {
			continue
		}
		l.tell(f)
		if f.good != nil && !equal(f.good, f.stored) {
			unsaved[path] = f.good
		}
	}
	l.mu.Unlock()
	for path, contents := range unsaved {
		err := l.save(path, contents)
		if err != nil {
			l.opts.Faults.Wrote(l.called(path), fmt.Errorf("the next start would not know what %s holds: %w", path, err))
			continue
		}
		l.opts.Faults.Wrote(l.called(path), nil)
		l.mu.Lock()
		if f := l.files[path]; f != nil {
			f.stored = contents
		}
		l.mu.Unlock()
	}
	l.report()
}

// report hands on what is wrong, where that changed.
func (l *List) report() {
	l.mu.Lock()
	defer l.mu.Unlock()
	var problems []Problem
	followed := false
	for _, path := range slices.Sorted(maps.Keys(l.files)) {
		f := l.files[path]
		followed = followed || f.followed
		if f.followed && f.wrong != nil {
			problems = append(problems, Problem{path, f.problem()})
		}
	}
	if followed && problems == nil {
		problems = []Problem{}
	}
	if told := fmt.Sprintf("%#v", problems); told != l.told {
		l.told = told
		l.opts.Report(problems)
	}
}
