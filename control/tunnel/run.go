package tunnel

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// A source is asked again once it took a pollShare of the time since, within these bounds: a thousand peers of a
	// userspace device are 400 KB of text each time.
	pollMin    = time.Second
	pollMax    = 5 * time.Second
	pollStaged = 200 * time.Millisecond // while a peer has two keys: its traffic waits for our answer to the new one
	pollRare   = underlayEvery          // where no peer has an endpoint to choose
	pollShare  = 100
	// pollStagedMax is the most while a peer has two keys: who changes its key waits for three seconds in all.
	pollStagedMax = 500 * time.Millisecond

	// Between compilations for other endpoints alone there are calmShare times what the last one took: 5 % of a core.
	calmShare = 20
	calmMax   = 10 * time.Second

	roomEvery     = 5 * time.Second // between tries to write to a disk that is full
	withholdEvery = time.Second     // between tries to take routes away

	// asking is how many names are resolved at once.
	asking = 16
	// minWait bounds how often the loop may run.
	minWait = 5 * time.Millisecond
)

// Run watches until ctx ends.
func (w *Watcher) Run(ctx context.Context) error {
	var wait sync.WaitGroup
	defer wait.Wait()
	for kind, source := range w.opts.Sources {
		wait.Go(func() { w.poll(ctx, kind, source) })
	}
	for _, task := range []func(context.Context){w.withhold, w.apply, w.keep} {
		wait.Go(func() { task(ctx) })
	}
	slots := make(chan struct{}, asking)
	w.follow()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.wake:
			w.follow()
		case <-w.opts.Routes:
			w.locked(func(m *machine) { m.underlayDue = time.Now() })
		case <-w.again:
		case <-timer.C:
		}
		todo := w.step()
		if len(todo.ping) > 0 {
			w.opts.Ping(todo.ping)
		}
		for _, host := range todo.resolve {
			wait.Go(func() { w.resolve(ctx, host, slots) })
		}
		if todo.underlay != nil {
			wait.Go(func() { w.measure(ctx, todo.underlay) })
		}
		if todo.next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(max(minWait, time.Until(todo.next)))
		}
	}
}

// follow asks which tunnels are live. Sources are asked at once where they may have something new to say.
func (w *Watcher) follow() {
	same := false
	if tunnels, live := w.opts.Wanted(); live {
		w.locked(func(m *machine) { same = m.follow(tunnels, time.Now()) })
	}
	if !same {
		w.Look()
	}
}

// step lets the machine decide, and tells everybody what it decided.
func (w *Watcher) step() work {
	var todo work
	var events []Event
	var problems []Problem
	var told, changed, unsaved bool
	w.locked(func(m *machine) {
		todo = m.tick(time.Now())
		events, m.events = m.events, nil
		if told = m.problemsStale; told {
			problems, m.problemsStale = m.problems(), false
		}
		changed, unsaved = m.version > m.told, m.unsaved
	})
	if changed || unsaved { // other tunnels are unsaved, too, and other peers of them may be down
		poke(w.dirty)
	}
	if unsaved {
		poke(w.unsaved)
	}
	for _, e := range events {
		w.opts.Log.Info("tunnel "+e.Tunnel, "event", e.Kind, "peer", e.Peer, "text", e.Text)
		w.opts.Notify(e)
	}
	if told {
		w.opts.Report(problems)
	}
	return todo
}

// withhold has the routes of peers that are down taken away, at once: what is compiled now, or applied, may take long. A version is
// compiled once this was tried, so that what comes back is no longer withheld by then. Where it fails it is tried again, and
// until then only a compilation makes routes count as withdrawn.
func (w *Watcher) withhold(ctx context.Context) {
	var known []Down // as of the last try
	var err error    // of that
	var retry <-chan time.Time
	for {
		again := false
		select {
		case <-ctx.Done():
			return
		case <-w.dirty:
		case <-retry:
			again = true
		}
		var version uint64
		var down []Down
		w.locked(func(m *machine) { version, down = m.version, m.down() })
		back := slices.ContainsFunc(known, func(d Down) bool { return !slices.ContainsFunc(down, d.same) })
		if again || back || len(down) != len(known) {
			before := err
			if err = w.opts.Withhold(ctx, down); err != nil && before == nil && ctx.Err() == nil {
				w.opts.Log.Warn("routes of peers that are down cannot be taken away ahead of the next compilation; it is tried again", "error", err)
			}
			if known, retry = down, nil; err != nil {
				retry = time.After(withholdEvery)
			}
		}
		news := false
		w.locked(func(m *machine) {
			news = err == nil && m.withdrawn(version)
			m.withheld(version, back)
		})
		poke(w.ready)
		if news { // for no more than that: whoever is poked pokes us
			poke(w.again)
		}
	}
}

// apply has what is new and withheld compiled. While one compilation runs the next changes gather.
func (w *Watcher) apply(ctx context.Context) {
	var rested <-chan time.Time // nil: nothing waits for it
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.ready:
		case <-rested:
		}
		var version uint64
		var why []string
		var pause time.Duration
		var changed bool
		begin := time.Now()
		w.locked(func(m *machine) {
			pause = m.pause(begin)
			if changed = m.told > m.applied && pause == 0; changed {
				version, why = m.compiling()
			}
		})
		if rested = nil; pause > 0 {
			rested = time.After(pause)
		}
		if !changed {
			continue
		}
		err := w.opts.Changed(reasons(why))
		if err != nil && ctx.Err() == nil {
			w.opts.Log.Error("what became of tunnels cannot be applied", "error", err)
		}
		at := time.Now()
		w.locked(func(m *machine) {
			if err == nil {
				m.withdrawn(version)
			}
			m.compiled(version, at.Sub(begin), at)
		})
		poke(w.again)
	}
}

// keep has what is new on the disk, which traffic does not wait for. A daemon that is killed while something is compiled
// knows it when it starts.
func (w *Watcher) keep(ctx context.Context) {
	var room <-chan time.Time // nil: the last try went well
	for done := false; !done; {
		select {
		case <-ctx.Done():
			done = true
		case <-w.unsaved:
		case <-room:
			w.locked(func(m *machine) { m.unsaved = true })
		}
		behind := false
		w.locked(func(m *machine) { behind = m.unsaved })
		if !behind {
			continue
		}
		err := w.save()
		if room = nil; err != nil {
			room = time.After(roomEvery)
		}
		w.opts.Faults.Wrote(filepath.Base(w.opts.Path), err)
	}
}

// reasons are in the log and in errors of the engine: a few say enough.
func reasons(why []string) string {
	const most = 3
	if more := len(why) - most; more > 0 {
		return fmt.Sprintf("%s; and %d more", strings.Join(why[:most], "; "), more)
	}
	return strings.Join(why, "; ")
}

// poll asks one source again and again, as long as there is anything to ask it for.
func (w *Watcher) poll(ctx context.Context, kind string, source Source) {
	for {
		var live, staged, choosing bool
		w.locked(func(m *machine) { live, staged, choosing = m.asks(kind) })
		var next <-chan time.Time // nil: not before others are live
		if live {
			next = time.After(pauseOfPolls(w.ask(ctx, kind, source), staged, choosing))
		}
		select {
		case <-ctx.Done():
			return
		case <-w.polls[kind]:
		case <-next:
		}
	}
}

// pauseOfPolls is how long a source is left alone that took so long to answer.
func pauseOfPolls(took time.Duration, staged, choosing bool) time.Duration {
	switch pause := pollShare * took; {
	case staged:
		return min(max(pause, pollStaged), pollStagedMax)
	case !choosing:
		return max(pollRare, min(pause, pollMax))
	default:
		return min(max(pause, pollMin), pollMax)
	}
}

// ask returns how long it took.
func (w *Watcher) ask(ctx context.Context, kind string, source Source) time.Duration {
	begin := time.Now()
	list, err := source(ctx)
	at := time.Now()
	if err != nil && ctx.Err() == nil {
		w.opts.Log.Debug("status of tunnels", "type", kind, "error", err)
	}
	w.locked(func(m *machine) { m.seen(kind, list, at) })
	poke(w.again)
	return at.Sub(begin)
}

func (w *Watcher) resolve(ctx context.Context, host string, slots chan struct{}) {
	select {
	case slots <- struct{}{}:
	case <-ctx.Done():
		return
	}
	addresses, err := w.opts.Resolve(ctx, host)
	<-slots
	if ctx.Err() != nil {
		return
	}
	w.locked(func(m *machine) { m.resolved(host, addresses, err, time.Now()) })
	poke(w.again)
}

func (w *Watcher) measure(ctx context.Context, to []netip.Addr) {
	mtu, err := w.opts.Underlay(ctx, to)
	if err != nil && ctx.Err() == nil {
		w.opts.Log.Debug("routes to endpoints", "error", err)
	}
	w.locked(func(m *machine) { m.underlaid(to, mtu, err != nil) })
	poke(w.again)
}
