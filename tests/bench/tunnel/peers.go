package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sluice/tests/bench/node"
	"sluice/tests/bench/report"
)

// Size is a hub's.
type Size struct{ Tunnels, Peers int } // Peers of each

func (s Size) String() string {
	if s.Tunnels == 1 {
		return fmt.Sprintf("%d peers", s.Peers)
	}
	return fmt.Sprintf("%d tunnels of %d peers", s.Tunnels, s.Peers)
}

// Peers are how much of hubs is measured.
type Peers struct {
	Sizes   []Size
	Rounds  int           // of applies and what takes them back
	Changes int           // of one peer, in each round
	Rest    time.Duration // before idleness is measured
	Ways    []Way         // to be idle
	Idle    time.Duration // for which that is measured
}

// Way is one in which a hub may have nothing to do.
type Way struct {
	What   string
	traits traits
	live   bool
	rival  bool // is it measured of the rival as well
	many   bool // is it measured of many tunnels as well, each of which is a process
}

// Hub is what a size cost one lane.
type Hub struct {
	Lane          string
	Size          Size
	Apply, Change []float64 // of the command from its begin to its end, ms
	ApplyCPU      []float64 // of the node's processes meanwhile, ms
	ChangeCPU     []float64
}

// Idle is what a size cost one lane to which nothing happens.
type Idle struct {
	Lane, What string
	Size       Size
	Percent    float64 // of a core, all processes
	Tunnels    float64 // the part of it that is the tunnels'
}

// Lanes of hubs.
const (
	SluiceHub = "sluice"
	RivalHub  = "wg"
)

// hubLane is who configures a hub.
type hubLane interface {
	// apply makes the tunnels, change writes the peers anew after one was moved, and clear takes all tunnels away.
	apply(ctx context.Context, t traits) error
	change(ctx context.Context, t traits) error
	clear(ctx context.Context) error
	// processes that are its tunnels, and others of its own.
	processes() (tunnels, others []int, err error)
	Close() error
}

// peers measures hubs of all sizes: Sluice and its rival in turn.
func (b *bench) peers(ctx context.Context) error {
	if err := b.w.build(ctx); err != nil {
		return err
	}
	b.results.Hubs, b.results.Idle = nil, nil
	for _, size := range b.o.Peers.Sizes {
		if err := b.hub(ctx, size); err != nil {
			return fmt.Errorf("%s: %w", size, err)
		}
	}
	for _, size := range b.o.Peers.Sizes {
		if err := b.idle(ctx, size); err != nil {
			return fmt.Errorf("%s, idle: %w", size, err)
		}
	}
	for _, t := range b.results.hubTargets() {
		b.log.Info("target", "what", t.What, "most", t.Limit, "measured", t.Got.String(), "verdict", t.Verdict())
	}
	return nil
}

// open makes a lane and its hub.
func (b *bench) openHub(ctx context.Context, name string, size Size, live bool) (*hub, hubLane, error) {
	h, err := b.w.newHub(ctx, size, live)
	if err != nil {
		return nil, nil, err
	}
	if name == RivalHub {
		free := *b.w
		free.cpu = anyCPU
		return h, &wgHub{w: &free, h: h}, nil
	}
	n, err := node.Start(ctx, b.w.sluice(), h.box, map[string][]byte{"sluice.yaml": h.sluiceFile(traits{}, false)})
	if err != nil {
		return nil, nil, errors.Join(err, h.Close())
	}
	return h, &sluiceHub{h: h, n: n}, nil
}

// hub measures what changes cost: both lanes are there all the time and take turns.
func (b *bench) hub(ctx context.Context, size Size) (err error) {
	names := []string{SluiceHub, RivalHub}
	hubs, lanes, out := make([]*hub, len(names)), make([]hubLane, len(names)), make([]Hub, len(names))
	for i, name := range names {
		if hubs[i], lanes[i], err = b.openHub(ctx, name, size, false); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, lanes[i].Close(), hubs[i].Close()) }()
		out[i] = Hub{Lane: name, Size: size}
	}
	if err := wait(ctx, b.o.Peers.Rest); err != nil {
		return err
	}
	for round := range b.o.Peers.Rounds {
		for i := range names {
			if err := b.turn(ctx, hubs[i], lanes[i], &out[i]); err != nil {
				return fmt.Errorf("%s, round %d: %w", names[i], round+1, err)
			}
		}
	}
	for _, h := range out {
		b.results.Hubs = append(b.results.Hubs, h)
		b.log.Info("hub", "size", size.String(), "lane", h.Lane, "apply", fmt.Sprint(report.Of(h.Apply)), "change", fmt.Sprint(report.Of(h.Change)),
			"applyCPU", fmt.Sprint(report.Of(h.ApplyCPU)), "changeCPU", fmt.Sprint(report.Of(h.ChangeCPU)))
	}
	return nil
}

// turn is one round of a lane: from nothing to all tunnels, one peer after the other moved, and nothing again.
func (b *bench) turn(ctx context.Context, h *hub, l hubLane, out *Hub) error {
	t := traits{keepalive: "25s"}
	measured := func(wall, cpu *[]float64, f func(context.Context, traits) error) error {
		before, err := cpuOf(l)
		if err != nil {
			return err
		}
		start := time.Now()
		if err := f(ctx, t); err != nil {
			return err
		}
		*wall = append(*wall, ms(time.Since(start)))
		after, err := cpuOf(l)
		*cpu = append(*cpu, ms(after-before))
		return err
	}
	if err := measured(&out.Apply, &out.ApplyCPU, l.apply); err != nil {
		return err
	}
	// Handshakes of an apply go on behind it.
	if err := wait(ctx, settleHub); err != nil {
		return err
	}
	for i := range b.o.Peers.Changes {
		h.move(i * len(h.peers) / b.o.Peers.Changes)
		if err := measured(&out.Change, &out.ChangeCPU, l.change); err != nil {
			return err
		}
	}
	return l.clear(ctx)
}

// settleHub is how long what an apply has begun goes on at most: a thousand handshakes take half a second to compute.
const settleHub = 2 * time.Second

func ms(d time.Duration) float64 { return float64(d) / 1e6 }

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// cpuOf is what the processes of a lane have used.
func cpuOf(l hubLane) (time.Duration, error) {
	tunnels, others, err := l.processes()
	if err != nil {
		return 0, err
	}
	return sumCPU(append(tunnels, others...))
}

func sumCPU(pids []int) (sum time.Duration, err error) {
	for _, pid := range pids {
		t, err := node.CPU(pid)
		if err != nil {
			return 0, err
		}
		sum += t
	}
	return sum, nil
}

var ways = []Way{
	{"nobody is known", traits{hidden: true}, false, true, false},
	{"sessions, kept alive every 25 s", traits{keepalive: "25s"}, true, true, true},
	{"sessions, probed every second", traits{probes: true}, true, false, false},
	{"nobody answers, keepalive every 25 s", traits{keepalive: "25s"}, false, true, false},
}

// idleHub is one of them.
type idleHub struct {
	Idle
	hub  *hub
	lane hubLane
	used [2]time.Duration // of tunnels, and of others
}

// idle measures what they cost while nothing changes, side by side.
func (b *bench) idle(ctx context.Context, size Size) (err error) {
	var all []*idleHub
	for _, c := range b.o.Peers.Ways {
		for _, name := range []string{SluiceHub, RivalHub} {
			if name == RivalHub && !c.rival || size.Tunnels > 1 && !c.many {
				continue
			}
			i := &idleHub{Idle: Idle{Lane: name, What: c.What, Size: size}}
			if i.hub, i.lane, err = b.openHub(ctx, name, size, c.live); err != nil {
				return err
			}
			defer func() {
				err = errors.Join(err, i.lane.clear(context.WithoutCancel(ctx)), i.lane.Close(), i.hub.Close())
			}()
			if err := i.lane.apply(ctx, c.traits); err != nil {
				return fmt.Errorf("%s, %s: %w", name, c.What, err)
			}
			all = append(all, i)
		}
	}
	// A daemon makes spare generations ten seconds after the last change.
	if err := wait(ctx, b.o.Peers.Rest+b.o.Peers.Idle/4); err != nil {
		return err
	}
	if err := lookAll(all, -1); err != nil {
		return err
	}
	start := time.Now()
	if err := wait(ctx, b.o.Peers.Idle); err != nil {
		return err
	}
	if err := lookAll(all, 1); err != nil {
		return err
	}
	wall := time.Since(start)
	for _, i := range all {
		i.Tunnels = 100 * i.used[0].Seconds() / wall.Seconds()
		i.Percent = i.Tunnels + 100*i.used[1].Seconds()/wall.Seconds()
		b.log.Info("idle", "size", size.String(), "lane", i.Lane, "what", i.What, "percent", i.Percent, "tunnels", i.Tunnels)
		b.results.Idle = append(b.results.Idle, i.Idle)
	}
	return nil
}

// lookAll adds what the lanes have used until now, or takes it off.
func lookAll(all []*idleHub, sign time.Duration) error {
	for _, i := range all {
		tunnels, others, err := i.lane.processes()
		if err != nil {
			return err
		}
		for k, pids := range [][]int{tunnels, others} {
			used, err := sumCPU(pids)
			if err != nil {
				return err
			}
			i.used[k] += sign * used
		}
	}
	return nil
}
