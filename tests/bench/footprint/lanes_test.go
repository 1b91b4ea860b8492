package main

import (
	"io"
	"log/slog"
	"testing"
	"time"
)

// tiny is a run of no use but to see that all of it works.
var tiny = Options{
	Name: "tiny", Prefixes: []int{200}, Rules: []int{10}, MaxNFT: 1000, Change: []Changes{{200, 2, 2}}, Rate: 5000,
	Idle: 200 * time.Millisecond, Flows: 5000, Boot: []int{10},
}

// TestATinyRunMeasuresEverything: each part checks itself that lanes do what they claim.
func TestATinyRunMeasuresEverything(t *testing.T) {
	w, err := newWorkshop(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close) // after the parallel parts
	part := func(name string, of func(t *testing.T, b *bench)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			of(t, &bench{o: tiny, w: w, log: slog.New(slog.NewTextHandler(io.Discard, nil)), results: &Results{}})
		})
	}
	part("memory and changes", func(t *testing.T, b *bench) {
		if err := b.sizes(t.Context()); err != nil {
			t.Fatal(err)
		}
		checkMemory(t, b.results)
		checkChanges(t, b.results)
	})
	part("idle", func(t *testing.T, b *bench) {
		if err := b.idle(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := b.results.Idle; len(got) != 3 || got[1].Flows != tiny.Flows || got[0].Wall < tiny.Idle || got[0].Resident.PSS == 0 {
			t.Errorf("%+v", got)
		}
	})
}

func checkMemory(t *testing.T, r *Results) {
	t.Helper()
	for _, c := range Rivals {
		for kind, size := range map[Kind]int{Prefixes: 200, Rules: 10} {
			m := r.memory(kind, size, c.Key)
			if measured := m.Size > 0; measured != c.fits(kind, size, tiny) || measured && m.Load <= 0 {
				t.Errorf("%s with %d %s: %+v", c.Label, size, kind, m)
			}
		}
	}
	m := r.memory(Prefixes, 200, Sluice)
	if m.Maps.Tables == 0 || m.Maps.State == 0 || m.Own != m.Maps.Tables+m.Maps.State || m.Resident.Anonymous == 0 || m.Resident.Peak < m.Resident.RSS/2 {
		t.Errorf("Sluice takes %+v", m)
	}
	if m := r.memory(Prefixes, 200, IPSet); m.Own == 0 {
		t.Errorf("ipset takes %+v", m)
	}
}

func checkChanges(t *testing.T, r *Results) {
	t.Helper()
	ways := map[string]int{}
	for _, m := range r.Changes {
		ways[m.Rival+" "+string(m.What)] += len(m.Rounds)
		for _, c := range m.Rounds {
			// Whatever else the machine does may lose a frame; none lets a listed one through.
			if c.Leaked > 0 || c.Frames < 1000 || c.Command <= 0 || c.CPU <= 0 || c.Lost > c.Frames/10 {
				t.Errorf("%s: %+v", m.Label, c)
			}
		}
		if m.Label == "sluice apply" && m.Phases["compile"] == 0 {
			t.Errorf("the phases of %s are %v", m.Label, m.Phases)
		}
	}
	for way, rounds := range map[string]int{"sluice swap": 2, "sluice add": 4, "ipset swap": 2, "ipset add": 2, "nft-set swap": 2, "nft-set add": 2} {
		if ways[way] != rounds {
			t.Errorf("%s was measured in %d rounds, want %d", way, ways[way], rounds)
		}
	}
}
