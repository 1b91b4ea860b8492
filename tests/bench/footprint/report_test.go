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
	const ms = time.Millisecond
	r := &Results{
		When: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC), Size: "full", Revision: "v0", Took: 480 * time.Second, Rate: 20_000,
		Machine: report.Machine{Kernel: "6.12 x86_64", CPU: "some CPU", Cores: 2, MemoryGB: 8, JIT: "on", Go: "go1", Load: "0 0 0"},
		Idle: []Idle{
			{Prefixes: 10, Wall: time.Minute, CPU: 30 * ms, Wakeups: 2.5, Resident: Resident{RSS: 60e6, PSS: 50e6}},
			{Prefixes: 10, Flows: 100_000, Wall: time.Minute, CPU: 600 * ms, Wakeups: 3, Resident: Resident{RSS: 61e6, PSS: 51e6}},
		},
	}
	for _, size := range []int{10, million} {
		n := int64(size)
		r.Memory = append(r.Memory,
			Memory{Prefixes, size, Sluice, 50*n + 40e6, 60*n + 44e6, time.Second, Maps{60 * n, 44e6, 100}, Resident{80e6 + 100*n, 70e6 + 100*n, 50e6 + 100*n, 90e6 + 500*n}},
			Memory{Prefixes, size, IPSet, 40 * n, 30 * n, time.Duration(n) * 4 * time.Microsecond, Maps{}, Resident{}},
			Memory{Prefixes, size, NFT, 130 * n, 0, time.Duration(n) * 20 * time.Microsecond, Maps{}, Resident{}},
			Memory{Rules, size, IPTables, 300 * n, 0, ms, Maps{}, Resident{}})
	}
	change := func(what What, size int, rival, label string, seen ...time.Duration) {
		m := Measurement{What: what, Size: size, Rival: rival, Label: label}
		for _, at := range seen {
			m.Rounds = append(m.Rounds, Change{Command: at + ms, CPU: at / 2, FirstNew: at, LastOld: at - ms, Frames: 10_000, Pause: 2 * ms})
		}
		if label == "sluice apply" {
			m.Phases = map[string]time.Duration{"compile": 300 * ms, "step of xdp": 40 * ms, "plan": time.Microsecond}
		}
		r.Changes = append(r.Changes, m)
	}
	for _, size := range []int{thousand, million} {
		slow := time.Duration(size / thousand)
		change(Swap, size, Sluice, "sluice apply", 2*slow*ms, 4*slow*ms, 2*slow*ms)
		change(Add, size, Sluice, "sluice apply", 100*ms, 120*ms, 100*ms)
		change(Add, size, Sluice, banLabel, 8*ms, 9*ms, 8*ms)
		change(Swap, size, IPSet, "ipset restore, with swap", 4*slow*ms, 8*slow*ms, 4*slow*ms)
		change(Add, size, IPSet, "ipset add", 2*ms, 2*ms, 2*ms)
		change(Swap, size, NFT, "nft -f, flush and add", 20*slow*ms)
		change(Add, size, NFT, "nft add element", 80*slow*ms)
	}
	r.Changes[3].Rounds[1].Lost, r.Changes[3].Rounds[1].Leaked, r.Changes[5].Rounds[0].Mixed = 3, 2, 70
	for i, n := range []int{10, 100_000} {
		r.Boot = append(r.Boot, Boot{Prefixes: n, Kernel: "6.12.0", Phases: map[string]time.Duration{"compile": time.Duration(i+1) * time.Second}, Stages: []Stage{
			{"kernel, until its init starts", 2 * time.Second}, {"init: mounts, modules", time.Second}, {"sluice, until its first drop", time.Duration(5+i) * time.Second},
		}})
	}
	return r
}

// TestTheReport draws known results, saved and loaded again. -update writes the golden text anew.
func TestTheReport(t *testing.T) {
	for name, plot := range reporttest.Redraw(t, commandLine(&Results{}), made()) {
		if name != "footprint-memory-rules.svg" && !strings.Contains(plot, rival(Sluice).Colour) {
			t.Errorf("Sluice is not in %s", name)
		}
	}
}

// TestAnEmptyReportCanBeDrawn: a part that was not measured leaves no figure that is not a number.
func TestAnEmptyReportCanBeDrawn(t *testing.T) {
	r := &Results{}
	for _, f := range r.figures() {
		if strings.Contains(string(f.SVG), "NaN") {
			t.Errorf("%s has a figure that is not a number", f.File)
		}
	}
	if text := r.Markdown(nil); strings.Contains(text, "NaN") {
		t.Errorf("not a number in\n%s", text)
	}
}
