package ban

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"
)

// The writer's rhythm: after a write it rests, at least as long as that took, so that a burst costs few writes and a long
// list no more than half of the disk.
const (
	rest       = 100 * time.Millisecond
	sweepEvery = time.Second
	// wallStep is how far the wall clock must jump to count as set anew, rather than slewed.
	wallStep = 2 * time.Second
	// fewLines is how long a journal may be, however few bans hold.
	fewLines = 1000
)

// writer is the state of writing, guarded by List.mu.
type writer struct {
	dirty bool // the file and the journal together are not what the list is: the file is to be written anew
	wake  chan struct{}
}

var errNotWritten = errors.New("bans hold, but could not be written to the disk: a reboot would lose them")

// changed notes what changed since the file was written.
func (l *List) changed(changes []change) error {
	if len(changes) == 0 {
		return nil
	}
	err := l.journal.append(changes)
	if err != nil {
		err = fmt.Errorf("%w: %w", errNotWritten, err)
		l.writer.dirty = true
	}
	l.stir()
	return err
}

// rewrite has the file written anew.
func (l *List) rewrite() {
	l.writer.dirty = true
	l.stir()
}

func (l *List) stir() {
	select {
	case l.writer.wake <- struct{}{}:
	default:
	}
}

// Run writes to the disk and sweeps what has ended, until ctx ends; then it writes once more.
func (l *List) Run(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		due := tick.C
		if !l.ends() {
			due = nil // nobody waits for the ticker, and it wakes nobody
		}
		select {
		case <-ctx.Done():
			return l.end()
		case <-due:
			l.sweep()
			continue
		case <-l.writer.wake:
		}
		begin := time.Now()
		l.opts.Faults.Wrote(filepath.Base(l.opts.Path), l.flush())
		pause := time.NewTimer(max(rest, time.Since(begin)))
		for resting := true; resting; {
			select {
			case <-ctx.Done():
				resting = false
			case <-pause.C:
				resting = false
			case <-tick.C:
				l.sweep()
			}
		}
		pause.Stop()
	}
}

// end leaves one file that has it all.
func (l *List) end() error {
	l.mu.Lock()
	l.writer.dirty = l.table != nil
	l.mu.Unlock()
	return l.flush()
}

// flush brings what changed onto the disk: the journal, or once that is longer than the list the file. The lock is not
// held while the disk works.
func (l *List) flush() error {
	l.mu.Lock()
	if !l.writer.dirty && l.journal.lines <= max(fewLines, 2*len(l.bans)) {
		f := l.journal.file
		l.mu.Unlock()
		return l.journal.sync(f)
	}
	records := l.records()
	err := l.journal.turn()
	l.writer.dirty = false
	l.mu.Unlock()
	if err == nil {
		err = writeFile(l.opts.Path, records)
	}
	if err == nil {
		err = l.journal.written()
	}
	if err != nil {
		l.mu.Lock()
		l.writer.dirty = true // the next change or sweep tries again
		l.mu.Unlock()
		err = fmt.Errorf("%w: %w", errNotWritten, err)
	}
	return err
}

func (l *List) records() []record {
	out := make([]record, 0, len(l.bans))
	for _, e := range l.bans {
		if l.live(e) {
			r := e.record
			r.Until = l.until(e)
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b record) int {
		return cmp.Or(a.Target.Addr().Compare(b.Target.Addr()), cmp.Compare(a.Target.Bits(), b.Target.Bits()))
	})
	return out
}

// ends says whether there is anything that a sweep is for. Whatever changes that stirs the writer.
func (l *List) ends() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.bans) > 0 || l.writer.dirty
}

// sweep takes out what has ended, and follows the wall clock where it was set.
func (l *List) sweep() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.table == nil {
		return
	}
	l.followClock()
	var swept []change
	for p, e := range maps.All(l.bans) {
		if l.live(e) {
			continue
		}
		if err := l.table.Remove(p); err != nil {
			l.opts.Log.Error("sweep bans", "error", err)
			continue
		}
		delete(l.bans, p)
		swept = append(swept, change{Unban: p})
		l.opts.Notify(Expired, l.ban(e))
	}
	_ = l.changed(swept) // where the journal does not take it, the file is written anew
	if l.writer.dirty {
		l.stir()
	}
}

// followClock derives anew, after the wall clock was set, what stands on the other clock: the ends of bans from before
// the reboot, and in the file those of all others.
func (l *List) followClock() {
	offset := l.wallOffset()
	if step := offset - l.offset; -wallStep < step && step < wallStep {
		return
	}
	l.offset = offset
	for p, e := range l.bans {
		if !e.wall {
			continue
		}
		// At least 1: 0 is no end.
		end := max(1, l.opts.Clock.Boot()+l.left(e.record))
		if err := l.table.Set(p, end); err != nil {
			l.opts.Log.Error("bans after the clock was set", "error", err)
			continue
		}
		e.end = end
	}
	l.rewrite()
}
