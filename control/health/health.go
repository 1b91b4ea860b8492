// Package health watches what announcements wait for: the addresses of bgp.advertise's when. What it finds is Runtime, and a
// change has the engine compile again, as tunnels' failover does.
package health

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/control/disk"
)

// An address that answered is given up after so many probes in a row without an answer, and taken again after so many
// answers; the first answer of a new one counts. Tunnels' probes have the same defaults.
const (
	Interval  = time.Second
	DownAfter = 3
	UpAfter   = 5
)

// Options of a Watcher.
type Options struct {
	Path    string // of what is kept over a restart
	BootID  string // what was kept in another boot is void
	Log     *slog.Logger
	Wanted  func() []netip.Addr
	Reach   func(context.Context, netip.Addr) error // one probe; it ends before Interval does
	Changed func(why string) error
	Notify  func(text string)
	Faults  *disk.Faults // told of the file
}

// Watcher probes. Make one with New.
type Watcher struct {
	opts  Options
	wake  chan struct{}
	mu    sync.Mutex
	state map[netip.Addr]*target

	found   contents // what the file holds, or is to hold; Run's alone
	unsaved bool
}

// target is an address: whether it is well, and how many probes in a row spoke against that.
type target struct {
	well    bool
	known   bool
	against int
}

// New makes a Watcher that knows nothing.
func New(o Options) *Watcher {
	return &Watcher{opts: o, wake: make(chan struct{}, 1), state: map[netip.Addr]*target{}}
}

type contents struct {
	BootID string       `json:"boot_id"`
	Well   []netip.Addr `json:"well"`
}

// Load takes what an earlier process of this boot found as found: a restart must withdraw nothing.
func (w *Watcher) Load() error {
	data, err := os.ReadFile(w.opts.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var c contents
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err != nil {
		err = fmt.Errorf("what announcements wait for is probed anew: %w", err)
		w.opts.Faults.Damaged(filepath.Base(w.opts.Path), err.Error())
		return fmt.Errorf("%s: %w", w.opts.Path, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range c.Well {
		if c.BootID == w.opts.BootID {
			w.state[a] = &target{well: true, known: true}
		}
	}
	return nil
}

// Reached are the addresses that are well.
func (w *Watcher) Reached() map[netip.Addr]bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := map[netip.Addr]bool{}
	for a, t := range w.state {
		if t.well {
			out[a] = true
		}
	}
	return out
}

// Wake has the next round begin now: another revision may want other addresses.
func (w *Watcher) Wake() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Run probes until ctx ends.
func (w *Watcher) Run(ctx context.Context) error {
	tick := time.NewTicker(Interval)
	defer tick.Stop()
	told := w.Reached()
	for {
		wanted := w.opts.Wanted()
		w.judge(wanted, w.probe(ctx, wanted))
		if ctx.Err() != nil {
			return nil
		}
		maps.DeleteFunc(told, func(a netip.Addr, _ bool) bool { return !slices.Contains(wanted, a) })
		if now := w.Reached(); !maps.Equal(told, now) {
			if err := w.tell(told, now); err != nil {
				w.opts.Log.Warn("announcements wait for the next try", "error", err)
			} else {
				told = now
			}
		} else if w.unsaved {
			w.save()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-w.wake:
		}
	}
}

// probe asks all at once.
func (w *Watcher) probe(ctx context.Context, wanted []netip.Addr) map[netip.Addr]bool {
	var mu sync.Mutex
	var all sync.WaitGroup
	answered := map[netip.Addr]bool{}
	for _, a := range wanted {
		all.Go(func() {
			err := w.opts.Reach(ctx, a)
			mu.Lock()
			defer mu.Unlock()
			answered[a] = err == nil
		})
	}
	all.Wait()
	return answered
}

// judge takes in a round, and forgets who is no longer asked.
func (w *Watcher) judge(wanted []netip.Addr, answered map[netip.Addr]bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	state := make(map[netip.Addr]*target, len(wanted))
	for _, a := range wanted {
		t := w.state[a]
		if t == nil {
			t = &target{}
		}
		state[a] = t
		t.take(answered[a])
	}
	w.state = state
}

func (t *target) take(answer bool) {
	if answer == t.well {
		t.against = 0
		return
	}
	t.against++
	switch {
	case answer && !t.known, answer && t.against >= UpAfter, !answer && t.against >= DownAfter:
		t.well, t.known, t.against = answer, true, 0
	}
}

// save keeps what was found. A full disk holds up no announcement: the next process then finds it anew.
func (w *Watcher) save() {
	data, err := json.Marshal(w.found)
	if err == nil {
		err = disk.Replace(w.opts.Path, append(data, '\n'))
	}
	if w.unsaved = err != nil; w.unsaved {
		err = fmt.Errorf("the next start would probe anew what announcements wait for: %w", err)
	}
	w.opts.Faults.Wrote(filepath.Base(w.opts.Path), err)
}

// tell keeps what was found, and has it acted on.
func (w *Watcher) tell(before, now map[netip.Addr]bool) error {
	var words []string
	c := contents{BootID: w.opts.BootID, Well: []netip.Addr{}}
	for a := range now {
		if c.Well = append(c.Well, a); !before[a] {
			words = append(words, a.String()+" answers")
		}
	}
	for a := range before {
		if !now[a] {
			words = append(words, a.String()+" does not answer")
		}
	}
	w.found = c
	w.save()
	why := strings.Join(words, ", ")
	w.opts.Log.Info("announcements", "why", why)
	w.opts.Notify(why)
	return w.opts.Changed(why)
}
