package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/cilium/ebpf"

	"sluice/tests/bench/lane"
	"sluice/xdp/classify"
)

// bench is one run.
type bench struct {
	o        Options
	w        *workshop
	log      *slog.Logger
	contents map[string]*Content
	results  *Results
}

// content makes each one once: 100,000 rules take seconds.
func (b *bench) content(kind Kind, size int) (*Content, error) {
	key := fmt.Sprint(kind, size)
	if c := b.contents[key]; c != nil {
		return c, nil
	}
	c, err := newContent(kind, size)
	if err != nil {
		return nil, fmt.Errorf("%d %s: %w", size, kind, err)
	}
	cost := c.want.XDP.Generation.Tables.Cost()
	b.results.Gateways = append(b.results.Gateways, GatewayCost{kind, size, cost.Bytes, cost.WorstProbes})
	b.contents[key] = c
	return c, nil
}

// drop measures lanes that drop everything that is sent, by the prefixes or the rules of a content.
func (b *bench) drop(ctx context.Context, kind Kind, size int) (err error) {
	c, err := b.content(kind, size)
	if err != nil {
		return err
	}
	var keys []string
	for _, r := range Rivals {
		if r.fits != nil && r.Key != Nothing && r.Key != Pass && r.Key != Path && r.Key != List && r.fits(c, b.o) {
			keys = append(keys, r.Key)
		}
	}
	return b.dropLanes(ctx, keys, Measurement{Experiment: Drop, Kind: kind, Size: size}, func(Rival) *Content { return c })
}

// mixed measures a million prefixes of Sluice beside a thousand rules of iptables, in the same rounds.
func (b *bench) mixed(ctx context.Context) error {
	prefixes, err := b.content(Prefixes, million)
	if err != nil {
		return err
	}
	rules, err := b.content(Rules, thousand)
	if err != nil {
		return err
	}
	keys := []string{Floor, Sluice, IPTable, IPTableNFT}
	return b.dropLanes(ctx, keys, Measurement{Experiment: Mixed, Kind: Prefixes, Size: million}, func(r Rival) *Content {
		if r.Key == IPTable || r.Key == IPTableNFT {
			return rules
		}
		return prefixes
	})
}

// dropLanes sends each lane flows that its content drops.
func (b *bench) dropLanes(ctx context.Context, keys []string, about Measurement, contentOf func(Rival) *Content) (err error) {
	g, err := newGroup(ctx, b.w, b.log, keys, contentOf)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	if err := g.check(func(r Rival, want classify.Action) ([]lane.Flow, error) { return checkFlows(contentOf(r), want) }); err != nil {
		return err
	}
	for _, about.Keys = range []Keys{FixedHit, RandomHit} {
		if err := b.measure(ctx, g, about, classify.Drop, contentOf); err != nil {
			return err
		}
	}
	return nil
}

// measure sends each lane flows with a fate by its content, and keeps what they cost.
func (b *bench) measure(ctx context.Context, g *group, about Measurement, want classify.Action, contentOf func(Rival) *Content) error {
	tables := map[*Content]*lane.Flows{}
	for _, l := range g.lanes {
		c := contentOf(l.Rival)
		if tables[c] != nil {
			continue
		}
		flows, err := b.flows(c, about.Keys, want)
		if err != nil {
			return err
		}
		defer flows.Close()
		tables[c] = flows
	}
	got, err := g.measure(ctx, b.o, about, want, func(r Rival) *lane.Flows { return tables[contentOf(r)] })
	b.results.Measurements = append(b.results.Measurements, got...)
	return err
}

// flows writes a table of them.
func (b *bench) flows(c *Content, keys Keys, want classify.Action) (*lane.Flows, error) {
	list, err := c.flows(keys, want, b.o.Flows)
	if err != nil {
		return nil, err
	}
	n := b.o.Flows
	if len(list) == 1 {
		n = 1
	}
	return b.w.lane.NewFlows(list, n)
}

// checkFlows are some flows with a fate, by a rule where there is one, else by the default.
func checkFlows(c *Content, want classify.Action) ([]lane.Flow, error) {
	if want == classify.Accept {
		return c.flows(RandomMiss, want, 4096)
	}
	return c.flows(RandomHit, want, 4096)
}

// forward measures lanes that pass everything: Sluice through rules that accept the flows, the others beside lists of
// the same size that do not hold them.
func (b *bench) forward(ctx context.Context) (err error) {
	rules, err := b.content(Rules, b.o.Forward)
	if err != nil {
		return err
	}
	lists, err := b.content(Prefixes, b.o.Forward)
	if err != nil {
		return err
	}
	var keys []string
	for _, r := range Rivals {
		if r.fits != nil && r.Key != Floor && r.fits(lists, b.o) {
			keys = append(keys, r.Key)
		}
	}
	contentOf := func(r Rival) *Content {
		if r.Key == Sluice || r.Key == Path {
			return rules
		}
		return lists
	}
	g, err := newGroup(ctx, b.w, b.log, keys, contentOf)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	if err := g.check(func(r Rival, want classify.Action) ([]lane.Flow, error) {
		if want == classify.Drop {
			return checkFlows(contentOf(r), want)
		}
		return rules.flows(RandomHit, want, 4096)
	}); err != nil {
		return err
	}
	about := Measurement{Experiment: Forward, Kind: Rules, Size: b.o.Forward}
	for _, about.Keys = range []Keys{FixedHit, RandomHit} {
		// The rules accept these flows, and no list holds them.
		if err := b.measure(ctx, g, about, classify.Accept, func(Rival) *Content { return rules }); err != nil {
			return err
		}
	}
	return nil
}

// testRun measures the programs alone: no frame moves, and writing it is all that is added.
func (b *bench) testRun(ctx context.Context, kind Kind, size int) (err error) {
	c, err := b.content(kind, size)
	if err != nil {
		return err
	}
	site, gen, closer, err := liveGeneration(ctx, b.w, c.want.XDP)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closer()) }()
	programs := map[string]*ebpf.Program{Sluice: gen.Programs["live"]}
	own := map[string]string{Floor: "drop", Parse: "parse"}
	if kind != Rules {
		own[LPM] = "lpm"
	}
	for key, name := range own {
		loaded, err := b.w.program(name, c.Prefixes)
		if err != nil {
			return err
		}
		defer loaded.Close()
		programs[key] = loaded.Programs[name]
	}
	for _, keys := range AllKeys {
		if err := b.testRunKeys(ctx, site, c, keys, programs); err != nil {
			return fmt.Errorf("test run of %d %s, %s: %w", size, kind, keys, err)
		}
	}
	return nil
}

func (b *bench) testRunKeys(ctx context.Context, site *lane.Site, c *Content, keys Keys, programs map[string]*ebpf.Program) error {
	want := classify.Accept
	if keys == FixedHit || keys == RandomHit {
		want = classify.Drop
	}
	flows, err := b.flows(c, keys, want)
	if err != nil {
		return err
	}
	defer flows.Close()
	var lanes []lane.Lane
	for _, r := range Rivals {
		program := programs[r.Key]
		if program == nil {
			continue
		}
		run, closer, err := b.w.lane.Feeder(site, flows, program)
		if err != nil {
			return err
		}
		defer closer()
		if r.Key == Sluice || r.Key == LPM {
			if err := verdicts(run, want); err != nil {
				return fmt.Errorf("%s: %w", r.Label, err)
			}
		}
		lanes = append(lanes, lane.Lane{Name: r.Key, Run: run})
	}
	about := Measurement{Experiment: TestRun, Kind: c.Kind, Size: c.Size(), Keys: keys}
	o := b.o
	o.Aim = o.TestAim
	got, err := rounds(ctx, b.log, o, about, lanes)
	b.results.Measurements = append(b.results.Measurements, got...)
	return err
}

// verdicts looks at the first packets of a feeder one by one.
func verdicts(run lane.Runner, want classify.Action) error {
	const xdpDrop, xdpPass = 1, 2
	for i := range 256 {
		s, err := run(1)
		if err != nil {
			return err
		}
		if dropped := s.Verdict == xdpDrop; dropped != (want == classify.Drop) || s.Verdict != xdpDrop && s.Verdict != xdpPass {
			return fmt.Errorf("packet %d has verdict %d and should meet %s", i, s.Verdict, text(want))
		}
	}
	return nil
}
