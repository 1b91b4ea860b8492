package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"sluice/tests/bench/load"
)

// sweepEvery is the daemon's own interval.
const sweepEvery = 5 * time.Second

// rounds calls for every lane once a round, in an order of its own each round.
func rounds(ctx context.Context, n int, lanes []*pathLane, turn func(i int) error) error {
	rng := rand.New(rand.NewPCG(7, 7))
	for range n {
		for _, i := range rng.Perm(len(lanes)) {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := turn(i); err != nil {
				return fmt.Errorf("%s: %w", lanes[i], err)
			}
		}
	}
	return nil
}

// takeTurns measures requests. Each lane has a session, and a turn is milliseconds: while another CPU of a shared machine
// is busy, this one is slower by half, and that changes within seconds. Whole runs, one lane after the other, would give
// intervals three times as wide in the same time.
func (g *group) takeTurns(ctx context.Context, o Options, s Shape, lanes []*pathLane, out []Measurement) (err error) {
	sessions := make([]*load.Session, len(lanes))
	defer func() {
		for _, session := range sessions {
			if session != nil {
				err = errors.Join(err, session.Close())
			}
		}
	}()
	turns := make([]turnState, len(lanes))
	for i := range turns {
		turns[i].each = o.Each
	}
	swept := time.Now()
	err = rounds(ctx, o.Rounds, lanes, func(i int) error {
		for {
			result, err := g.turn(ctx, &sessions[i], lanes[i], s, turns[i].each)
			if again, err := turns[i].next(result, err, o.Each); err != nil {
				return err
			} else if !again {
				out[i].add(result)
				break
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			g.log.Debug("again", "lane", lanes[i].String(), "what", s.String(), "each", turns[i].each, "error", err)
		}
		if time.Since(swept) < sweepEvery {
			return nil
		}
		swept = time.Now()
		return sweepAll(ctx, lanes)
	})
	for i, session := range sessions {
		if session != nil {
			out[i].setTail(session.Latency())
		}
	}
	return errors.Join(err, sweepAll(ctx, lanes))
}

// turnState is how long the turns of a lane are, and how many failed.
type turnState struct {
	each   time.Duration
	failed int
}

// next says whether a turn is to be taken again. Some filters take milliseconds for one operation: their turns become
// longer until some operations are in one, or what is cut off at its ends would be all that is measured.
func (t *turnState) next(result load.Result, err error, first time.Duration) (again bool, _ error) {
	const some, longest, ever = 16, 8, 128 // operations; times the first turn; the same where not one operation came through
	switch {
	case err == nil && (result.Operations >= some || t.each >= longest*first):
		return false, nil
	case err == nil, errors.Is(err, load.ErrNothing) && t.each < ever*first:
		t.each *= 2
		return true, nil
	}
	t.failed++
	if t.failed == 3 {
		return false, err
	}
	return true, nil
}

// turn is one measurement in a lane's session, which is opened where there is none. A failed one is given up.
func (g *group) turn(ctx context.Context, session **load.Session, l *pathLane, s Shape, d time.Duration) (load.Result, error) {
	if *session == nil {
		server, spec := g.spec(l, s)
		opened, err := g.load.Open(ctx, l.client(), server, spec)
		if err != nil {
			return load.Result{}, err
		}
		*session = opened
	}
	result, err := (*session).Run(d)
	if err != nil {
		err = errors.Join(err, (*session).Close())
		*session = nil
	}
	return result, err
}

func sweepAll(ctx context.Context, lanes []*pathLane) (err error) {
	for _, l := range lanes {
		err = errors.Join(err, l.sweep(ctx))
	}
	return err
}
