package main

import (
	"strings"
	"testing"
	"time"

	"sluice/tests/bench/report"
	"sluice/tests/bench/report/reporttest"
)

// made are results with known figures.
func made() *Results {
	r := &Results{
		When: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC), Size: "full", Revision: "v0", Took: 700 * time.Second, Routes: 1_000_000,
		Machine: report.Machine{Kernel: "6.12 x86_64", CPU: "some CPU", Cores: 2, MemoryGB: 8, JIT: "on", Go: "go1", Load: "0 0 0"},
	}
	for round := range 3 {
		for _, peers := range []int{1, 2} {
			for i, rival := range Rivals {
				t := time.Duration((round+10)*peers) * time.Second / time.Duration(1+i)
				r.Trials = append(r.Trials, Trial{Rival: rival.Key, Peers: peers, Round: round, RIB: t, FIB: t + time.Second, Rest: t + 2*time.Second, CPU: 2 * t,
					Resident: int64(200e6 * peers / (1 + i)), Peak: int64(300e6 * peers / (1 + i))})
			}
		}
	}
	return r
}

// TestTheReport draws known results, saved and loaded again. -update writes the golden text anew.
func TestTheReport(t *testing.T) {
	for name, plot := range reporttest.Redraw(t, commandLine(&Results{}), made()) {
		for _, rival := range Rivals {
			if !strings.Contains(plot, rival.Colour) {
				t.Errorf("%s is not in %s", rival.Label, name)
			}
		}
	}
}

// TestARatioIsThatOfARound: what slowed a whole round is in both of its values.
func TestARatioIsThatOfARound(t *testing.T) {
	text := made().Markdown(nil)
	if want := "| into the RIB, s | 11.0 (10.0 to 12.0) | 5.50 (5.00 to 6.00) | 2.00 |"; !strings.Contains(text, want) {
		t.Errorf("no line %q in\n%s", want, text)
	}
}
