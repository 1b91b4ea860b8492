package ban

import (
	"cmp"
	"context"
	"errors"
	"maps"
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
)

// writer is the state of writing, guarded by List.mu.
type writer struct {
	dirty   bool
	idle    bool // Run waits for work: a change is written at once
	waiting []chan error
	wake    chan struct{}
}

// changed notes that the file is out of date. Where the writer is idle the channel tells when the change is on the
// disk; else it is nil, and the change comes with the next write.
func (l *List) changed() <-chan error {
	w := &l.writer
	w.dirty = true
	select {
	case w.wake <- struct{}{}:
	default:
	}
	if !w.idle {
		return nil
	}
	w.idle = false
	written := make(chan error, 1)
	w.waiting = append(w.waiting, written)
	return written
}

func await(written <-chan error) error {
	if written == nil {
		return nil
	}
	return <-written
}

// Run writes the file and sweeps what has ended, until ctx ends; then it writes once more.
func (l *List) Run(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		l.rested()
		select {
		case <-ctx.Done():
			return l.flush()
		case <-tick.C:
			l.sweep()
			continue
		case <-l.writer.wake:
		}
		begin := time.Now()
		if err := l.flush(); err != nil {
			l.opts.Log.Error("bans hold, and a reboot would lose them", "error", err)
		}
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

func (l *List) rested() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writer.idle = !l.writer.dirty
}

// flush writes the list as it is. The lock is not held while the disk works.
func (l *List) flush() error {
	l.mu.Lock()
	w := &l.writer
	waiting, dirty := w.waiting, w.dirty
	w.waiting, w.dirty, w.idle = nil, false, false
	var records []record
	if dirty {
		records = l.records()
	}
	l.mu.Unlock()
	if !dirty {
		return nil
	}
	err := writeFile(l.opts.Path, records)
	if err != nil {
		err = errors.Join(errors.New("bans hold, but could not be written to the disk"), err)
		l.mu.Lock()
		w.dirty = true // the next change or sweep tries again
		l.mu.Unlock()
	}
	for _, c := range waiting {
		c <- err
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

// sweep takes out what has ended, and follows the wall clock where it was set.
func (l *List) sweep() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.table == nil {
		return
	}
	l.followClock()
	swept := false
	for p, e := range maps.All(l.bans) {
		if l.live(e) {
			continue
		}
		if err := l.table.Remove(p); err != nil {
			l.opts.Log.Error("sweep bans", "error", err)
			continue
		}
		delete(l.bans, p)
		swept = true
		l.opts.Notify(Expired, l.ban(e))
	}
	if swept || l.writer.dirty {
		l.changed()
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
	l.changed()
}
