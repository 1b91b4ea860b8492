package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"sluice/tests/bench/node"
)

// watcher looks at a rival until it has done everything and rests. It asks little: the next of a few prefixes that is missing, the
// process's clock, and seldom, for a count of the table may walk it, the rival itself.
type watcher struct {
	speaker
	box    *box
	begin  time.Time
	before time.Duration // the process's clock before that
	paths  int           // that there will be
	probes []netip.Prefix
	there  int       // of the probes
	known  int       // paths, when it was last asked
	ask    time.Time // not before

	rib, fib, rest time.Duration // from begin
	cpu            time.Duration // until it rested
}

const (
	probeCount = 1000
	lookEvery  = 50 * time.Millisecond
	askEvery   = time.Second
	askShare   = 20 // times as long as an answer took, it is left alone
	// busy is a share of one processor. Keepalives and timers take less.
	busy = 0.1
)

// watch ends when all is there and the process has rested for a while, or when it takes more memory than it may.
func (w *watcher) watch(ctx context.Context, rest time.Duration, memory int64) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	last, err := node.CPU(w.PID())
	if err != nil {
		return err
	}
	at := time.Now()
	err = node.Poll(ctx, lookEvery, func() error {
		now, err := node.CPU(w.PID())
		if err != nil {
			return err
		}
		takes, _, err := residentOf(w.PID())
		if err == nil && takes > memory {
			err = fmt.Errorf("it takes %d MB of memory, and may take %d", takes>>20, memory>>20)
		}
		if err != nil {
			end()
			return err
		}
		elapsed := time.Since(at)
		works := float64(now-last) > busy*float64(elapsed)
		if works {
			w.rest = time.Since(w.begin)
		}
		if works || w.rib == 0 || w.fib == 0 { // who waits for a processor is not done
			w.cpu = now - w.before
		}
		last, at = now, time.Now()
		if err := w.look(ctx); err != nil {
			return err
		}
		if time.Since(w.begin)-max(w.rest, w.rib, w.fib) < rest {
			return errWorks
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%d of %d paths and %d of %d probes: %w", w.known, w.paths, w.there, len(w.probes), err)
	}
	return nil
}

var errWorks = errors.New("it is not done")

// look returns an error until everything is there.
func (w *watcher) look(ctx context.Context) error {
	if w.fib == 0 {
		n, err := w.box.installed(w.probes[w.there:])
		if err != nil {
			return err
		}
		if w.there += n; w.there == len(w.probes) {
			w.fib = time.Since(w.begin)
		}
	}
	if w.rib == 0 && (!time.Now().Before(w.ask) || w.fib != 0) {
		asked := time.Now()
		n, err := w.Learned(ctx)
		if err != nil {
			return err
		}
		if w.known = n; n == w.paths {
			w.rib = time.Since(w.begin)
		}
		w.ask = time.Now().Add(max(askEvery, askShare*time.Since(asked)))
	}
	if w.fib == 0 || w.rib == 0 {
		return errWorks
	}
	return nil
}

// residentOf is the memory of a process, and the most it had, in bytes.
func residentOf(pid int) (now, peak int64, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(data)) {
		words := strings.Fields(line)
		for name, to := range map[string]*int64{"VmRSS:": &now, "VmHWM:": &peak} {
			if len(words) == 3 && words[0] == name {
				kb, err := strconv.ParseInt(words[1], 10, 64)
				if err != nil {
					return 0, 0, err
				}
				*to = kb << 10
			}
		}
	}
	return now, peak, nil
}
