package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/tests/bench/load"
)

// tiny is a run of no use but to see that all of it works.
var tiny = Options{
	Name: "tiny", Rounds: 1, Streams: 1, Each: 10 * time.Millisecond, Policy: 60, Lists: []int{30}, Some: []int{30},
}

func newBench(t *testing.T) *bench {
	t.Helper()
	w, err := newWorkshop(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	g, err := load.New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	return &bench{tiny, w, g, slog.New(slog.NewTextHandler(io.Discard, nil)), &Results{}, choice{}}
}

// TestEveryLaneDoesWhatItClaims: experiments check it themselves before they measure.
func TestEveryLaneDoesWhatItClaims(t *testing.T) {
	b := newBench(t)
	if err := b.networking(t.Context()); err != nil {
		t.Error(err)
	}
	if err := b.filtering(t.Context()); err != nil {
		t.Error(err)
	}
	for _, list := range [][]Rival{Networking, Filtering} {
		for _, r := range list {
			for _, s := range Shapes {
				i := slices.IndexFunc(b.results.Measurements, func(m Measurement) bool { return m.Rival == r.Key && m.Shape == s })
				if i < 0 {
					if s.Connections == 1 {
						t.Errorf("%s was not measured by %s", r.Label, s)
					}
					continue
				}
				m := b.results.Measurements[i]
				if len(m.Micros) != tiny.Rounds || slices.Min(m.Micros) <= 0 || len(m.Rate) != tiny.Rounds || slices.Min(m.Rate) <= 0 {
					t.Errorf("%s, %s: %+v", r.Label, s, m)
				}
			}
		}
	}
}

func TestALaneThatPretendsIsAnError(t *testing.T) {
	b := newBench(t)
	for what, r := range map[string]Rival{
		"to deny": {Denies: true}, "to drop what is not served": {Strict: true}, "to bypass the kernel": {Bypass: true},
	} {
		r.Label, r.load = "one that pretends "+what, loadPlain
		g, err := newGroup(t.Context(), b.w, b.log, b.load, []*pathLane{{Rival: r, list: deniedPrefixes(10)}})
		if err != nil {
			t.Fatal(err)
		}
		if err := g.check(t.Context()); !errors.Is(err, errPretends) || !strings.Contains(err.Error(), r.Label) {
			t.Errorf("%s: %v", r.Label, err)
		}
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestAGroupThatCannotBeLoadedLeavesNothingBehind(t *testing.T) {
	b := newBench(t)
	broken := Rival{Label: "broken", load: func(context.Context, *workshop, *Site, []netip.Prefix) (func() error, error) {
		return nil, errors.ErrUnsupported
	}}
	list := deniedPrefixes(10)
	g, err := newGroup(t.Context(), b.w, b.log, b.load, []*pathLane{{Rival: rival(SluiceSet), list: list}, {Rival: broken, list: list}})
	if !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("%v, %v", g, err)
	}
	pins, err := filepath.Glob(fmt.Sprintf("/sys/fs/bpf/sluice-lane-%d-*", os.Getpid()))
	if err != nil || len(pins) > 0 {
		t.Errorf("pins %v: %v", pins, err)
	}
}

// TestListsHoldNothingThatIsServed: then a flow meets all of a list, and no kernel refuses one for what overlaps.
func TestListsHoldNothingThatIsServed(t *testing.T) {
	for _, n := range []int{1, 10, 20_000} {
		list := deniedPrefixes(n)
		if len(list) != n || list[n-1] != denied || !denied.Contains(deniedServer) {
			t.Fatalf("%d prefixes of %d, the last is %s", len(list), n, list[n-1])
		}
		slices.SortFunc(list, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
		for i, p := range list {
			if i > 0 && p.Overlaps(list[i-1]) {
				t.Errorf("%s overlaps %s", p, list[i-1])
			}
			if p != denied && overlaps(p) {
				t.Errorf("%s holds addresses that are not for lists", p)
			}
		}
	}
}

func TestARunIsRefusedWithAnUnknownSizeOrExperiment(t *testing.T) {
	for _, args := range [][]string{{"-size", "huge"}, {"-only", "nothing"}, {"-redraw", "-out", t.TempDir()}} {
		if err := commandLine(&Results{}).Run(t.Context(), args); err == nil {
			t.Errorf("%q ran", args)
		}
	}
}

func TestATurnGrowsUntilItHasSomeOperations(t *testing.T) {
	const first = 20 * time.Millisecond
	some, few, broken := load.Result{Operations: 100}, load.Result{Operations: 3}, errors.New("broken")
	for _, c := range []struct {
		what   string
		each   time.Duration
		failed int
		result load.Result
		err    error
		again  bool
		then   time.Duration
		wrong  error
	}{
		{"enough operations", first, 0, some, nil, false, first, nil},
		{"few operations", first, 0, few, nil, true, 2 * first, nil},
		{"few operations in a long turn", 8 * first, 0, few, nil, false, 8 * first, nil},
		{"not one in a long turn", 8 * first, 0, load.Result{}, load.ErrNothing, true, 16 * first, nil},
		{"not one in any turn", 128 * first, 2, load.Result{}, load.ErrNothing, false, 128 * first, load.ErrNothing},
		{"an error", first, 0, load.Result{}, broken, true, first, nil},
		{"the third error", first, 2, load.Result{}, broken, false, first, broken},
	} {
		turn := turnState{c.each, c.failed}
		again, err := turn.next(c.result, c.err, first)
		if again != c.again || turn.each != c.then || !errors.Is(err, c.wrong) {
			t.Errorf("%s: again %v, then %v, error %v", c.what, again, turn.each, err)
		}
	}
}
