package main

import (
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/tests/bench/lane"
	"sluice/xdp/classify"
	"sluice/xdp/classify/classifytest"
)

// tiny is a run of no use but to see that all of it works.
var tiny = Options{
	Name: "tiny", Rounds: 1, Aim: time.Millisecond, Most: 1 << 16, Flows: 1 << 10, Forward: 50,
	TestAim: time.Millisecond, Shapes: 1000, MaxNFT: 1000, MaxIPTables: 1000,
}

func newBench(t *testing.T) *bench {
	t.Helper()
	w, err := newWorkshop(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return &bench{o: tiny, w: w, log: slog.New(slog.NewTextHandler(io.Discard, nil)), contents: map[string]*Content{}, results: &Results{}}
}

// TestEveryLaneDropsAndPassesWhatItClaims: comparisons check it themselves before and while they measure.
func TestEveryLaneDropsAndPassesWhatItClaims(t *testing.T) {
	b := newBench(t)
	for _, kind := range []Kind{Prefixes, Hosts, Rules} {
		if err := b.drop(t.Context(), kind, 50); err != nil {
			t.Errorf("drop by %s: %v", kind, err)
		}
		if kind == Hosts {
			continue
		}
		if err := b.testRun(t.Context(), kind, 50); err != nil {
			t.Errorf("test run of %s: %v", kind, err)
		}
	}
	if err := b.forward(t.Context()); err != nil {
		t.Errorf("forward: %v", err)
	}
	measured := map[string]bool{}
	for _, m := range b.results.Measurements {
		measured[m.Rival] = true
		if len(m.Nanos) != tiny.Rounds || slices.Min(m.Nanos) <= 0 || len(m.Mpps) != tiny.Rounds || slices.Min(m.Mpps) <= 0 {
			t.Errorf("%s, %s: %v ns, %v Mpps", m, m.Rival, m.Nanos, m.Mpps)
		}
	}
	for _, r := range Rivals {
		if !measured[r.Key] {
			t.Errorf("%s was not measured", r.Label)
		}
	}
}

func TestALaneThatDoesOtherwiseIsAnError(t *testing.T) {
	b := newBench(t)
	c, err := b.content(Prefixes, 50)
	if err != nil {
		t.Fatal(err)
	}
	g, err := newGroup(t.Context(), b.w, b.log, []string{Nothing, Floor}, func(Rival) *Content { return c })
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	for i, want := range []classify.Action{classify.Drop, classify.Accept} {
		list, err := checkFlows(c, want)
		if err != nil {
			t.Fatal(err)
		}
		l := g.lanes[i]
		l.Key = "pretender" // one that would have to do as the content says
		if err := g.once(l, list, want, 4096); err == nil || !strings.Contains(err.Error(), "should "+text(want)) {
			t.Errorf("%s, which should %s: %v", l.Label, text(want), err)
		}
	}
}

func TestAGroupThatCannotBeLoadedLeavesNothingBehind(t *testing.T) {
	b := newBench(t)
	c, err := newContent(Prefixes, 50)
	if err != nil {
		t.Fatal(err)
	}
	c.Prefixes[0] = netip.Prefix{} // which Sluice, whose file is written, does not see any more
	if g, err := newGroup(t.Context(), b.w, b.log, []string{Sluice, "nft-set"}, func(Rival) *Content { return c }); err == nil {
		g.Close()
		t.Error("nftables took a prefix that is none")
	}
	pins, err := filepath.Glob(fmt.Sprintf("/sys/fs/bpf/sluice-lane-%d-*", os.Getpid()))
	if err != nil || len(pins) > 0 {
		t.Errorf("pins %v: %v", pins, err)
	}
}

func TestFlowsHaveTheFateThatTheModelGivesThem(t *testing.T) {
	for _, kind := range []Kind{Prefixes, Hosts, Rules} {
		c, err := newContent(kind, 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, keys := range AllKeys {
			fate := classify.Accept
			if keys == FixedHit || keys == RandomHit {
				fate = classify.Drop
			}
			list, err := c.flows(keys, fate, 500)
			if err != nil {
				t.Fatal(err)
			}
			if want := map[bool]int{true: 1, false: 500}[keys == FixedHit || keys == FixedMiss]; len(list) != want {
				t.Errorf("%s, %s: %d flows, want %d", kind, keys, len(list), want)
			}
			for _, f := range list {
				d := classify.Judge(c.model, packetOf(f))
				if d.Action != fate || (d.Rule != 0) != (keys == FixedHit || keys == RandomHit) {
					t.Fatalf("%s, %s: %+v meets %+v", kind, keys, f, d)
				}
			}
		}
		if _, err := c.flows(RandomMiss, classify.Drop, 10); err == nil {
			t.Errorf("%s: the default accepts, and yet flows were found that it drops", kind)
		}
	}
}

// TestTheFileSaysWhatTheContentSays: the policy that the file compiles to judges as the content's own.
func TestTheFileSaysWhatTheContentSays(t *testing.T) {
	for _, kind := range []Kind{Prefixes, Hosts, Rules} {
		c, err := newContent(kind, 200)
		if err != nil {
			t.Fatal(err)
		}
		rng := rand.New(rand.NewPCG(9, 9))
		dropped := 0
		for _, p := range classifytest.Packets(rng, []classify.Policy{c.model}, 2000) {
			mine, file := classify.Judge(c.model, p), classify.Judge(c.want.XDP.Generation.Ingress, p)
			if mine.Action != file.Action {
				t.Fatalf("%s: %+v: %+v by the content, %+v by the file", kind, p, mine, file)
			}
			if mine.Action == classify.Drop {
				dropped++
			}
		}
		if dropped == 0 {
			t.Errorf("%s: nothing was dropped", kind)
		}
	}
}

func TestShapesAgreeWithTheModelAndADisagreementIsTold(t *testing.T) {
	b := newBench(t)
	for _, of := range classifytest.Shapes {
		r, err := b.shape(t.Context(), of, tiny.Shapes)
		if err != nil || r.Packets != tiny.Shapes || r.Disagreements != 0 || r.Dropped == 0 {
			t.Errorf("%+v: %v", r, err)
		}
	}
	// Tables of another policy, in Go and in XDP: nothing drops, and the model wants to drop.
	c, err := newContent(Rules, 1)
	if err != nil {
		t.Fatal(err)
	}
	site, gen, closer, err := liveGeneration(t.Context(), b.w, c.want.XDP)
	if err != nil {
		t.Fatal(err)
	}
	defer closer()
	wrong := classify.Policy{Default: classify.Drop}
	packet := packetOf(lane.Flow{Src: netip.MustParseAddr("192.0.2.1"), Dst: netip.MustParseAddr("198.51.100.1"), SrcPort: 1, DstPort: 2, Protocol: 17})
	var r ShapeResult
	if err := site.Box.Do(func() error {
		return r.judge(site, gen.Programs["live"], gen.Programs["explain"], gen.Maps["explained"], wrong, c.want.XDP.Generation.Tables, packet)
	}); err != nil {
		t.Fatal(err)
	}
	if r.Disagreements != 2 || !strings.Contains(r.First, "udp 192.0.2.1:1") {
		t.Errorf("%+v", r)
	}
}

func TestNestedPrefixesAreLeftToTheirOutermost(t *testing.T) {
	list := []netip.Prefix{
		netip.MustParsePrefix("192.0.2.7/32"), netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("192.0.2.0/32"),
		netip.MustParsePrefix("192.0.3.0/24"), netip.MustParsePrefix("192.0.2.0/25"),
	}
	want := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("192.0.3.0/24")}
	if got := classifytest.Outermost(list); !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestARunIsRefusedWithAnUnknownSize(t *testing.T) {
	if err := commandLine(&Results{}).Run(t.Context(), []string{"-size", "huge"}); err == nil || !strings.Contains(err.Error(), `"huge"`) {
		t.Errorf("got %v", err)
	}
	if err := commandLine(&Results{}).Run(t.Context(), []string{"-redraw", "-out", t.TempDir()}); err == nil {
		t.Error("results that are not there were drawn")
	}
}
