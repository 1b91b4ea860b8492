package trial

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"sluice/tests/bench/load"
)

// Spread is what flows cost that run on several CPUs at once, in a machine that does nothing else and whose clock counts
// the instructions of all its CPUs.
type Spread struct {
	Lane           string
	Tunnels, Flows int
	MB             []float64   // moved in each round, of 10^6 bytes
	Wall           []float64   // of each round, ms: millions of instructions, whichever CPU executed them
	Busy           [][]float64 // by round, of each CPU: ms in which it had something to do, its turn or not
}

// MeasureSpread streams by so many flows at once, each with both its ends on a CPU of its own, over all paths in turn.
func (l *Lane) MeasureSpread(ctx context.Context, g *load.Generator, flows, rounds int, each time.Duration) (_ *Spread, err error) {
	sessions := make([]*load.Session, flows)
	defer func() {
		for _, s := range sessions {
			if s != nil {
				err = errors.Join(err, s.Close())
			}
		}
	}()
	for i := range sessions {
		if sessions[i], err = l.open(ctx, g, Stream, i%l.Site.Paths, i, i%l.Site.CPUs); err != nil {
			return nil, fmt.Errorf("%s: flow %d: %w", l.Key, i, err)
		}
	}
	out := &Spread{Lane: l.Key, Tunnels: l.Site.Paths, Flows: flows}
	for round := -1; round < rounds; round++ { // the first one opens windows
		mb, wall, busy, err := together(sessions, each, l.Site.CPUs)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", l.Key, err)
		}
		if round >= 0 {
			out.MB, out.Wall, out.Busy = append(out.MB, mb), append(out.Wall, wall), append(out.Busy, busy)
		}
	}
	return out, nil
}

// together runs all sessions at once, and says what they moved and what each CPU did meanwhile.
func together(sessions []*load.Session, each time.Duration, cpus int) (mb, wall float64, busy []float64, err error) {
	before, start, err := idle(cpus)
	if err != nil {
		return 0, 0, nil, err
	}
	moved := make([]uint64, len(sessions))
	var running errgroup.Group
	for i, s := range sessions {
		running.Go(func() error {
			r, err := turn(s, each)
			moved[i] = r.Bytes
			return err
		})
	}
	if err := running.Wait(); err != nil {
		return 0, 0, nil, err
	}
	after, end, err := idle(cpus)
	for i := range after {
		busy = append(busy, max(0, float64(end-start-(after[i]-before[i]))/1e6))
	}
	for _, bytes := range moved {
		mb += float64(bytes) / 1e6
	}
	return mb, float64(end-start) / 1e6, busy, err
}

// idle is how long each CPU had nothing to do since the kernel began, in steps of 10 ms, and when that was so.
func idle(cpus int) (each []time.Duration, now time.Duration, err error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return nil, 0, err
	}
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		return nil, 0, err
	}
	if each, err = idleTimes(string(text)); err == nil && len(each) != cpus {
		err = fmt.Errorf("/proc/stat: %d CPUs, want %d", len(each), cpus)
	}
	return each, time.Duration(t.Nano()), err
}

// idleTimes reads lines "cpu0 user nice system idle iowait …" in hundredths of a second.
func idleTimes(stat string) (each []time.Duration, err error) {
	for line := range strings.Lines(stat) {
		words := strings.Fields(line)
		if len(words) < 6 || !strings.HasPrefix(words[0], "cpu") || words[0] == "cpu" {
			continue
		}
		var sum time.Duration
		for _, word := range words[4:6] {
			ticks, err := strconv.ParseInt(word, 10, 64)
			if err != nil {
				return nil, fmt.Errorf("/proc/stat: %s: %w", words[0], err)
			}
			sum += time.Duration(ticks) * 10 * time.Millisecond
		}
		each = append(each, sum)
	}
	return each, nil
}
