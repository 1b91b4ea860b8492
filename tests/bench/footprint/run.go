package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"

	"sluice/tests/bench/lane"
	"sluice/tests/bench/node"
)

// workshop is what all lanes of a run share.
type workshop struct {
	lane   *lane.Objects
	watch  *ebpf.CollectionSpec
	binary string // of sluice
	files  files
}

// newWorkshop compiles; dir is for what is written.
func newWorkshop(ctx context.Context, dir string) (*workshop, error) {
	w := &workshop{files: files(dir)}
	var err error
	if w.watch, err = lane.Compile(ctx, "tests/bench/footprint/bpf/watch.c"); err != nil {
		return nil, err
	}
	if w.binary, err = node.Build(ctx, dir); err != nil {
		return nil, err
	}
	w.lane, err = lane.NewObjects(ctx)
	return w, err
}

// bench is one run.
type bench struct {
	o       Options
	w       *workshop
	log     *slog.Logger
	results *Results
}

// box is a lane with a rival in it.
type box struct {
	Rival
	site *lane.Site
	holder
}

// Close takes the lane away.
func (b *box) Close() error {
	var errs []error
	if b.holder != nil {
		errs = append(errs, b.holder.Close())
	}
	return errors.Join(append(errs, b.site.Close())...)
}

// open loads a content into a lane of its own and looks at the memory that it took.
func (b *bench) open(ctx context.Context, r Rival, c *content, size int) (_ *box, err error) {
	x := &box{Rival: r}
	if x.site, err = lane.NewSite(b.w.lane); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("%s with %d %s: %w", r.Label, size, c.kind, err), x.Close())
		}
	}()
	m := Memory{Kind: c.kind, Size: size, Rival: r.Key}
	grown := func() (int64, error) {
		if size < growthFrom { // nobody will be told
			return 0, nil
		}
		return steadyKernelMemory(ctx)
	}
	before, err := grown()
	if err != nil {
		return nil, err
	}
	start := time.Now()
	if x.holder, err = r.load(ctx, b.w, x.site.Box, c); err != nil {
		return nil, err
	}
	m.Load = time.Since(start)
	if s, ok := x.holder.(sluiceHolder); ok {
		if m.Resident, err = s.settled(ctx); err != nil {
			return nil, err
		}
		if m.Maps, err = mapsOf(s.PID, s.Pins()); err != nil {
			return nil, err
		}
	}
	after, err := grown()
	if err != nil {
		return nil, err
	}
	m.Growth = after - before
	if m.Own, err = x.own(ctx); err != nil {
		return nil, err
	}
	b.log.Info("loaded", "lane", r.Label, "kind", c.kind, "size", size, "took", m.Load.Round(time.Millisecond),
		"growth", m.Growth>>20, "own", m.Own>>20, "rss", m.Resident.RSS>>20)
	b.results.Memory = append(b.results.Memory, m)
	return x, nil
}

// sizes measures the memory of all rivals at all sizes, and changes.
func (b *bench) sizes(ctx context.Context) error {
	for _, size := range b.o.Prefixes {
		if err := b.size(ctx, Prefixes, size, b.o.changes(size)); err != nil {
			return err
		}
	}
	for _, size := range b.o.Rules {
		if err := b.size(ctx, Rules, size, Changes{}); err != nil {
			return err
		}
	}
	return nil
}

// size measures the memory of all rivals at a size, and changes of the list if these are wanted there.
func (b *bench) size(ctx context.Context, kind Kind, size int, changes Changes) (err error) {
	c := newContent(kind, size)
	var boxes []*box
	defer func() {
		for _, x := range boxes {
			err = errors.Join(err, x.Close())
		}
	}()
	for _, r := range Rivals {
		if !r.fits(kind, size, b.o) {
			continue
		}
		x, err := b.open(ctx, r, c, size)
		if err != nil {
			return err
		}
		boxes = append(boxes, x)
	}
	if changes.Rounds == 0 {
		return nil
	}
	return b.changes(ctx, boxes, c.list, changes)
}

// changes exchanges the lists of all boxes in rounds, and adds a prefix, under a steady rate of frames.
func (b *bench) changes(ctx context.Context, boxes []*box, before []netip.Prefix, c Changes) error {
	after, next := newList(Odd, c.Size), extra.Addr()
	lists := [2][]netip.Prefix{before, after}
	watches := map[*box]*watch{}
	measured := map[string]*Measurement{}
	var order []string
	for _, x := range boxes {
		w, err := newWatch(b.w.watch, x.site)
		if err != nil {
			return err
		}
		defer w.close()
		watches[x] = w
		for _, way := range x.changes() {
			key := string(way.What) + x.Key + way.Label
			measured[key] = &Measurement{What: way.What, Size: c.Size, Rival: x.Key, Label: way.Label}
			order = append(order, key)
		}
	}
	rng := rand.New(rand.NewPCG(7, 7))
	for round := range c.Rounds {
		have, want := lists[round%2], lists[(round+1)%2]
		for _, i := range rng.Perm(len(boxes)) {
			x := boxes[i]
			if x.Key == NFT && round >= c.RoundsNFT {
				continue
			}
			for _, way := range x.changes() {
				next = next.Next()
				change, phases, err := b.change(ctx, x, watches[x], way, have, want, netip.PrefixFrom(next, 32))
				if err != nil {
					return fmt.Errorf("%s, %s at %d prefixes: %w", x.Label, way.Label, c.Size, err)
				}
				m := measured[string(way.What)+x.Key+way.Label]
				m.Rounds, m.Phases = append(m.Rounds, *change), phases
			}
		}
	}
	for _, key := range order {
		b.results.Changes = append(b.results.Changes, *measured[key])
	}
	return nil
}

// change makes one while frames pass.
func (b *bench) change(ctx context.Context, x *box, w *watch, way way, have, want []netip.Prefix, extra netip.Prefix) (*Change, map[string]time.Duration, error) {
	run, err := way.ready(want, extra)
	if err != nil {
		return nil, nil, err
	}
	probes := []probe{removed, added, listed, unlisted}
	if way.What == Add {
		probes, have = []probe{added, listed, unlisted}, want
	}
	var from []netip.Addr
	addresses := map[probe][]netip.Addr{}
	for _, p := range probes {
		addresses[p] = sources(p, have, want)
		if way.What == Add && p == added {
			addresses[p] = []netip.Addr{extra.Addr()}
		}
	}
	for i := range keysOfProbe {
		for _, p := range probes {
			from = append(from, addresses[p][i%len(addresses[p])])
		}
	}
	s, own := x.holder.(sluiceHolder)
	if own {
		if _, err := s.Phases(); err != nil {
			return nil, nil, err
		}
	}
	var cpu time.Duration
	trace, err := w.during(ctx, from, b.o.Rate, func() (err error) { cpu, err = run(ctx); return err })
	if err != nil {
		if own {
			err = fmt.Errorf("%w%s", err, s.Said())
		}
		return nil, nil, err
	}
	change := judge(trace, probes)
	change.CPU = cpu
	if err := change.check(); err != nil {
		return nil, nil, err
	}
	b.log.Info("changed", "lane", x.Label, "by", way.Label, "size", len(want), "visible", change.Visible().Round(time.Microsecond),
		"command", change.Command.Round(time.Microsecond), "cpu", cpu.Round(time.Millisecond), "mixed", change.Mixed, "lost", change.Lost,
		"leaked", change.Leaked, "refused", change.Refused, "pause", change.Pause.Round(time.Microsecond), "frames", change.Frames)
	if way.undo != nil {
		if err := way.undo(ctx, extra); err != nil {
			return nil, nil, err
		}
	}
	var phases map[string]time.Duration
	if own {
		phases, err = s.Phases()
	}
	return change, phases, err
}

// Close closes descriptors.
func (w *workshop) Close() { w.lane.Close() }
