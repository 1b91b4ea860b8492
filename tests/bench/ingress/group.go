package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"

	"sluice/tests/bench/lane"
	"sluice/xdp/classify"
)

// group is the lanes of one comparison, all up at once.
type group struct {
	w     *workshop
	log   *slog.Logger
	lanes []*rivalLane
}

// rivalLane is a site with one rival in it.
type rivalLane struct {
	Rival
	site   *lane.Site
	unload func() error
}

// newGroup loads what each rival is to hold. On error nothing of it stays.
func newGroup(ctx context.Context, w *workshop, log *slog.Logger, keys []string, contentOf func(Rival) *Content) (*group, error) {
	g := &group{w: w, log: log, lanes: make([]*rivalLane, len(keys))}
	var loading errgroup.Group
	loading.SetLimit(2)
	for i, key := range keys {
		l := &rivalLane{Rival: rival(key)}
		g.lanes[i] = l
		loading.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			start := time.Now()
			var err error
			if l.site, err = lane.NewSite(w.lane); err != nil {
				return err
			}
			if l.unload, err = l.load(ctx, w, l.site, contentOf(l.Rival)); err != nil {
				return fmt.Errorf("%s: %w", l.Label, err)
			}
			log.Debug("loaded", "lane", l.Label, "took", time.Since(start).Round(time.Millisecond))
			return nil
		})
	}
	if err := loading.Wait(); err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}

// Close takes all lanes away.
func (g *group) Close() error {
	var errs []error
	for _, l := range g.lanes {
		if l.unload != nil {
			errs = append(errs, l.unload())
		}
		if l.site != nil {
			errs = append(errs, l.site.Close())
		}
	}
	return errors.Join(errs...)
}

// fate of a packet in a lane where the content says want: three rivals have no content.
func (l *rivalLane) fate(want classify.Action) classify.Action {
	switch l.Key {
	case Nothing, Pass:
		return classify.Accept
	case Floor:
		return classify.Drop
	}
	return want
}

// errLost says that frames did not even enter the box: a ring was full because other work held up the CPU.
var errLost = errors.New("frames were lost on the wire")

// watched wraps a sender: a lane that does not do what it claims is an error, in every run. A run that lost frames on the
// wire is made again, a few times.
func (l *rivalLane) watched(run lane.Runner, want classify.Action) lane.Runner {
	return func(n int) (lane.Sample, error) {
		for tries := 1; ; tries++ {
			sample, err := l.judged(run, l.fate(want), n)
			if !errors.Is(err, errLost) || tries == 5 {
				return sample, err
			}
		}
	}
}

// judged runs n packets and counts what entered and what left. One of a thousand may be lost.
func (l *rivalLane) judged(run lane.Runner, fate classify.Action, n int) (lane.Sample, error) {
	enteredBefore, leftBefore, err := l.counts()
	if err != nil {
		return lane.Sample{}, err
	}
	sample, err := run(n)
	if err != nil {
		return sample, err
	}
	least := uint64(n - n/1000)
	// Frames of the last batch may still lie in the backlog of the sink.
	for end := time.Now().Add(2 * time.Second); ; time.Sleep(time.Millisecond) {
		entered, left, err := l.counts()
		if err != nil {
			return sample, err
		}
		entered, left = entered-enteredBefore, left-leftBefore
		switch {
		case fate == classify.Drop && entered >= least && left == 0, fate == classify.Accept && entered >= least && left >= least:
			return sample, nil
		case fate == classify.Drop && left > 0, time.Now().After(end) && entered >= least:
			return sample, fmt.Errorf("it should %s: of %d packets %d entered and %d left", text(fate), n, entered, left)
		case time.Now().After(end):
			return sample, fmt.Errorf("%w: of %d packets %d entered", errLost, n, entered)
		}
	}
}

func (l *rivalLane) counts() (entered, left uint64, err error) {
	if entered, err = l.site.Entered(); err == nil {
		left, err = l.site.Left()
	}
	return entered, left, err
}

// check sends some flows that the content drops and some that it accepts, and fails where a lane does otherwise.
func (g *group) check(flowsOf func(Rival, classify.Action) ([]lane.Flow, error)) error {
	const packets = 4096
	for _, l := range g.lanes {
		for _, want := range []classify.Action{classify.Drop, classify.Accept} {
			list, err := flowsOf(l.Rival, want)
			if err != nil {
				return err
			}
			if list == nil {
				continue
			}
			if err := g.once(l, list, want, packets); err != nil {
				return fmt.Errorf("%s, flows to %s: %w", l.Label, text(want), err)
			}
		}
	}
	return nil
}

func (g *group) once(l *rivalLane, list []lane.Flow, want classify.Action, packets int) error {
	flows, err := g.w.lane.NewFlows(list, packets)
	if err != nil {
		return err
	}
	defer flows.Close()
	run, closer, err := g.w.lane.Sender(l.site, flows)
	if err != nil {
		return err
	}
	defer closer()
	_, err = l.watched(run, want)(packets)
	return err
}

// measure sends flows, which all have one fate, through all lanes in rounds.
func (g *group) measure(ctx context.Context, o Options, about Measurement, want classify.Action, flowsOf func(Rival) *lane.Flows) ([]Measurement, error) {
	var lanes []lane.Lane
	for _, l := range g.lanes {
		run, closer, err := g.w.lane.Sender(l.site, flowsOf(l.Rival))
		if err != nil {
			return nil, err
		}
		defer closer()
		lanes = append(lanes, lane.Lane{Name: l.Key, Run: l.watched(run, want)})
	}
	return rounds(ctx, g.log, o, about, lanes)
}

// rounds finds out how many packets each lane takes in its time, and measures them.
func rounds(ctx context.Context, log *slog.Logger, o Options, about Measurement, lanes []lane.Lane) ([]Measurement, error) {
	for i := range lanes {
		l := &lanes[i]
		for _, least := range []int{1 << 12, 1 << 16} { // the second only where the first says that it is quick
			n, err := lane.Repeats(l.Run, o.Aim, least, o.Most)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", rival(l.Name).Label, err)
			}
			if l.Repeats = n; n < 1<<16 {
				break
			}
		}
	}
	samples, err := lane.Rounds(ctx, rand.New(rand.NewPCG(7, 7)), o.Rounds, lanes)
	if err != nil {
		return nil, err
	}
	var out []Measurement
	for _, l := range lanes {
		m := about
		m.Rival = l.Name
		for _, s := range samples[l.Name] {
			m.Nanos, m.Mpps = append(m.Nanos, s.Nanos()), append(m.Mpps, s.Mpps())
		}
		log.Info("measured", "what", m.String(), "lane", rival(l.Name).Label, "ns", m.Cost().String(), "packets", l.Repeats)
		out = append(out, m)
	}
	return out, nil
}
