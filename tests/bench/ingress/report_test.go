package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/tests/bench/report"
	"sluice/tests/bench/report/reporttest"
)

// made are results with known ratios: each rival costs a fixed number of times what its round makes of a nanosecond.
func made() *Results {
	r := &Results{
		When: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC), Size: "full", Revision: "v0", Took: 600 * time.Second, Rounds: 3,
		Machine: report.Machine{Kernel: "6.12 x86_64", CPU: "some CPU", Cores: 2, MemoryGB: 8, JIT: "on", Go: "go1", Load: "0 0 0"},
		Shapes: []ShapeResult{
			{Shape: "acl", Rules: 500, Packets: 1_000_000, Dropped: 400_000},
			{Shape: "fw", Rules: 500, Packets: 1_000_000, Dropped: 1, Disagreements: 2, First: "udp a > b: XDP says 1"},
		},
		Gateways: []GatewayCost{{Prefixes, million, 12_000_000, 42}},
	}
	add := func(e Experiment, kind Kind, size int, keys Keys, costs map[string]float64) {
		for _, c := range Rivals { // in one order
			if cost := costs[c.Key]; cost > 0 {
				r.Measurements = append(r.Measurements, Measurement{e, kind, size, keys, c.Key,
					[]float64{cost, 2 * cost, cost}, []float64{1000 / cost, 500 / cost, 1000 / cost}})
			}
		}
	}
	for _, keys := range []Keys{RandomHit, FixedHit} {
		add(Drop, Prefixes, 1000, keys, map[string]float64{Floor: 100, Sluice: 200, LPM: 150, "ipset-raw": 500})
		add(Drop, Rules, 1000, keys, map[string]float64{Floor: 100, Sluice: 250, IPTable: 3000})
	}
	add(Drop, Prefixes, million, RandomHit, map[string]float64{Floor: 100, Sluice: 300, LPM: 1600, "ipset-raw": 1000, "ipset": 1200})
	add(Drop, Prefixes, million, FixedHit, map[string]float64{Floor: 100, Sluice: 250, LPM: 200, "ipset-raw": 500})
	add(Mixed, Prefixes, million, RandomHit, map[string]float64{Floor: 100, Sluice: 300, IPTable: 900, IPTableNFT: 9000})
	add(Mixed, Prefixes, million, FixedHit, map[string]float64{Floor: 100, Sluice: 250, IPTable: 6000})
	add(Forward, Rules, 100_000, FixedHit, map[string]float64{Nothing: 800, Pass: 900, Sluice: 1000, Path: 1500, "ipset": 1000})
	add(Forward, Rules, 100_000, RandomHit, map[string]float64{Nothing: 1000, Pass: 1030, Sluice: 1600, List: 1300, Path: 4000, "ipset": 2000, "ipset-raw": 1800, "nft-netdev": 1500})
	add(TestRun, Rules, 1000, RandomHit, map[string]float64{Floor: 30, Parse: 45, Sluice: 200})
	add(TestRun, Prefixes, 1000, RandomHit, map[string]float64{Floor: 30, Parse: 45, Sluice: 200, LPM: 130})
	return r
}

func TestTargetsSayByHowMuch(t *testing.T) {
	type row struct{ What, Got, Verdict, Detail string }
	var got []row
	for _, x := range made().Targets() {
		if x.Got.Valid() {
			got = append(got, row{x.What, report.Digits(x.Got.Median), x.Verdict(), x.Detail})
		}
	}
	want := []row{
		{"drop at 1M prefixes, random hit, against the best of the kernel's own filters (ipset, raw PREROUTING)", "0.300", "met, stretch too",
			"300 against 1,000; XDP_DROP alone: 100"},
		{"drop at 1M prefixes, fixed hit, against the best of the kernel's own filters (ipset, raw PREROUTING)", "0.500", "**missed** by 25 %",
			"250 against 500; XDP_DROP alone: 100. To meet it, Sluice may add 100, and adds 150"},
		{"drop at 1M prefixes, random hit, against 1k rules of iptables legacy, FORWARD", "0.333", "**missed** by 233 %",
			"300 against 900; XDP_DROP alone: 100. The limit is 90.0, less than that: no program could meet it here"},
		{"drop at 1M prefixes, random hit, against 1k rules of iptables nft, FORWARD", "0.0333", "met, by 67 %", "300 against 9,000; XDP_DROP alone: 100"},
		{"drop at 1M prefixes, fixed hit, against 1k rules of iptables legacy, FORWARD", "0.0417", "met, by 58 %", "250 against 6,000; XDP_DROP alone: 100"},
		{"pass one flow through the rules, against no program at all", "1.25", "**missed** by 14 %",
			"1,000 against 800; no program at all: 800. To meet it, Sluice may add 80.0, and adds 200. XDP_PASS alone: 900, 1.12 times no program, 50 % of what Sluice adds: no program could meet the target here"},
		{"pass random flows through the rules, against no program at all", "1.60", "**missed** by 7 %",
			"1,600 against 1,000; no program at all: 1,000. To meet it, Sluice may add 500, and adds 600. XDP_PASS alone: 1,030, 1.03 times no program, 5 % of what Sluice adds"},
		{"pass random flows through the rules, against a list as long (ipset, raw PREROUTING)", "0.889", "met, by 11 %", "1,600 against 1,800; no program at all: 1,000"},
		{"pass random flows past a list, against the same list (ipset, raw PREROUTING)", "0.722", "met, by 28 %", "1,300 against 1,800; no program at all: 1,000"},
		{"pass random flows through the rules, against a list as long (nftables set, netdev ingress)", "1.07", "**missed** by 7 %",
			"1,600 against 1,500; no program at all: 1,000. To meet it, Sluice may add 500, and adds 600"},
		{"pass random flows past a list, against the same list (nftables set, netdev ingress)", "0.867", "met, by 13 %", "1,300 against 1,500; no program at all: 1,000"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if empty := (&Results{}).Targets(); len(empty) == 0 || slices.ContainsFunc(empty, func(x report.Target) bool { return x.Verdict() != "not measured" }) {
		t.Errorf("without measurements: %+v", empty)
	}
}

func TestWinsOfRivalsAreTold(t *testing.T) {
	want := []string{
		"XDP with LPM_TRIE wins drop, 1,000 prefixes, random hit: 150 ns, and Sluice 1.33 times that",
		"XDP with LPM_TRIE wins drop, 1,000 prefixes, fixed hit: 150 ns, and Sluice 1.33 times that",
		"XDP with LPM_TRIE wins drop, 1,000,000 prefixes, fixed hit: 200 ns, and Sluice 1.25 times that",
		"nftables set, netdev ingress wins forward, 100,000 rules, random hit: 1,500 ns, and Sluice 1.07 times that by rules, 0.867 by the rival's own list",
		"XDP with LPM_TRIE wins test run, 1,000 prefixes, random hit: 130 ns, and Sluice 1.54 times that",
	}
	if diff := cmp.Diff(want, made().Wins()); diff != "" {
		t.Error(diff)
	}
}

// TestTheReport draws known results, saved and loaded again. -update writes the golden text anew.
func TestTheReport(t *testing.T) {
	for name, plot := range reporttest.Redraw(t, commandLine(&Results{}), made()) {
		if !strings.Contains(plot, rival(Sluice).Colour) {
			t.Errorf("Sluice is not in %s", name)
		}
	}
}

// TestRivalsCanBeToldApart: a colour and a name of its own for each, and one place in the table.
func TestRivalsCanBeToldApart(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range Rivals {
		for _, s := range []string{"key " + r.Key, "label " + r.Label, r.Colour} {
			if s == "" || seen[s] {
				t.Errorf("%q of %s is empty or another's", s, r.Label)
			}
			seen[s] = true
		}
	}
}
