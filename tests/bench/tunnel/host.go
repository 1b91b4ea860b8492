package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sluice/tests/bench/load"
	"sluice/tests/bench/report"
	"sluice/tests/bench/tunnel/trial"
)

// host measures the lanes of the host on every kind of wire.
func (b *bench) host(ctx context.Context) error {
	if err := b.w.build(ctx); err != nil {
		return err
	}
	b.results.Machine, b.results.Rounds, b.results.Host = report.Describe(), b.o.Rounds, nil
	for _, w := range b.o.Wires {
		if err := b.wire(ctx, w); err != nil {
			return fmt.Errorf("%s: %w", w, err)
		}
	}
	return nil
}

// wire measures all lanes on one kind of it. They are up at once, and are held to what they claim first.
func (b *bench) wire(ctx context.Context, w trial.Wire) (err error) {
	lanes, closer, err := b.lanes(ctx, w)
	defer func() { err = errors.Join(err, closer()) }()
	if err != nil {
		return err
	}
	for _, s := range trial.Shapes([]trial.Wire{w}) {
		turns := trial.Turns{Rounds: b.o.Rounds, Each: b.o.RR, CPU: b.w.cpu, Cost: func(r load.Result) time.Duration { return r.CPU }}
		if s.Kind == trial.Stream {
			turns.Each = b.o.Stream
		}
		got, err := turns.Measure(ctx, b.load, lanes, s)
		if err != nil {
			return err
		}
		for _, m := range got {
			b.log.Info("measured", "what", s.String(), "lane", m.Lane, "cost", report.Of(m.Cost).String(), "rate", report.Of(m.Rate).String(), "retransmitted", m.Retransmitted)
		}
		b.results.Host = append(b.results.Host, got...)
	}
	return nil
}

// lanes makes them all. The closer takes away what there is of them, after an error as well.
func (b *bench) lanes(ctx context.Context, w trial.Wire) (lanes []*trial.Lane, closer func() error, err error) {
	var closers []func() error
	closer = func() error {
		var errs []error
		for _, c := range closers {
			errs = append(errs, c())
		}
		return errors.Join(errs...)
	}
	for _, r := range Host {
		l := &trial.Lane{Key: r.Key, Carries: trial.UDP, Message: b.o.Machine.Message}
		overhead := wireguardOverhead
		if r.Key == Plain {
			l.Carries, overhead = trial.TCP, 0
		}
		if l.Site, err = trial.NewSite(trial.Plan{Wire: w, Overhead: overhead, Paths: 1}); err != nil {
			return nil, closer, err
		}
		var unload func() error
		if l.Beside, unload, err = b.w.load(ctx, r.Key, l.Site); err == nil {
			closers = append(closers, unload)
			err = l.Check(ctx)
		}
		closers = append(closers, l.Site.Close)
		if err != nil {
			return nil, closer, fmt.Errorf("%s: %w", r.Label, err)
		}
		lanes = append(lanes, l)
	}
	return lanes, closer, nil
}
