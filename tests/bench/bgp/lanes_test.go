package main

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"sluice/tests/bench/report"
)

// tiny is a run of no use but to see that all of it works.
var tiny = Options{Name: "tiny", Routes: 1000, Peers: []int{1, 2}, Rounds: 1, Rest: 200 * time.Millisecond, Limit: 2 * time.Minute, Memory: 2 << 30}

// TestATinyRunMeasuresEverything: a trial checks itself that all routes are there.
func TestATinyRunMeasuresEverything(t *testing.T) {
	r := &Results{}
	if err := measure(t.Context(), report.Run{Log: slog.New(slog.DiscardHandler)}, tiny, r); err != nil {
		t.Fatal(err)
	}
	if len(r.Trials) != 4 {
		t.Errorf("%d trials", len(r.Trials))
	}
	for _, trial := range r.Trials {
		if trial.RIB <= 0 || trial.FIB <= 0 || trial.CPU <= 0 || trial.Resident < 1<<20 || trial.Peak < trial.Resident/2 {
			t.Errorf("%+v", trial)
		}
	}
}

func TestARivalThatTakesTooMuchMemoryEndsTheRun(t *testing.T) {
	o := tiny
	o.Memory = 1 << 20
	err := measure(t.Context(), report.Run{Log: slog.New(slog.DiscardHandler)}, o, &Results{})
	if err == nil || !strings.Contains(err.Error(), "MB of memory, and may take 1") || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it ends with %v", err)
	}
}

// TestARouteThatIsMissingIsSeen: neither check takes a kernel without routes for one that has them.
func TestARouteThatIsMissingIsSeen(t *testing.T) {
	b := &bench{o: tiny, table: newTable(tiny.Routes), log: slog.New(slog.DiscardHandler)}
	x, err := b.newBox(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	})
	if n, err := x.installed(b.table[:1]); n != 0 || err != nil {
		t.Errorf("%d routes are found: %v", n, err)
	}
	if err := b.check(t.Context(), x, nil); err == nil || !strings.Contains(err.Error(), "want 1000") {
		t.Errorf("check: %v", err)
	}
}
