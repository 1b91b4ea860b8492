package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/tests/bench/load"
	"sluice/tests/bench/report"
	"sluice/tests/bench/report/reporttest"
)

// made are results with known ratios: each lane costs a fixed number of times what its round makes of a microsecond.
func made() *Results {
	r := &Results{
		When: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC), Size: "full", Revision: "v0", Took: 840 * time.Second, Rounds: 3, Streams: 3, Policy: 10_000,
		Machine: report.Machine{Kernel: "6.12 x86_64", CPU: "some CPU", Cores: 2, MemoryGB: 8, JIT: "on", Go: "go1", Load: "0 0 0"},
	}
	add := func(e Experiment, s Shape, size int, lanes []Rival, costs map[string]float64) {
		for _, c := range lanes { // in one order
			cost, is := costs[c.Key]
			if !is || c.Key == None && size != 10 {
				continue
			}
			m := Measurement{Experiment: e, Shape: s, Size: size, Rival: c.Key, Micros: []float64{cost, 2 * cost, cost}, Rate: []float64{1000 / cost, 500 / cost, 1000 / cost}}
			if s.Kind != load.Stream {
				m.P50, m.P99, m.P999 = m.Micros, []float64{2 * cost}, []float64{3 * cost}
			}
			r.Measurements = append(r.Measurements, m)
		}
	}
	for i, s := range Shapes {
		k := float64(1 + i)
		add(NodeNetworking, s, 10_000, Networking, map[string]float64{
			Node: 8 * k, Plain: 10 * k, XDPPass: 11 * k, Conntrack: 12 * k, NFT: 14 * k, Routing: 8.5 * k, Sluice: 10.5 * k, SluiceTCX: 9 * k, SluiceOpen: 10 * k,
		})
	}
	for size, slow := range map[int]float64{10: 1, 1_000: 10, 100_000: 1000} {
		for _, s := range []Shape{Shapes[0], Shapes[2], Shapes[4]} {
			add(EgressFiltering, s, size, Filtering, map[string]float64{
				None: 10, Legacy: 10 + slow, IPTablesNFT: 10 + 2*slow, IPSet: 11, NFTSet: 11.5, SluiceRules: 10.5 + slow/500, SluiceSet: 10.5,
			})
		}
	}
	slices.SortStableFunc(r.Measurements, func(a, b Measurement) int { return a.Size - b.Size })
	r.Profiles = []Profile{
		{Shapes[0], Plain, 1000, []Symbol{{"ip_forward", 0.2}, {"fib_table_lookup", 0.1}}},
		{Shapes[0], SluiceTCX, 1000, []Symbol{{"bpf: uplink_ingress", 0.2}, {"fib_table_lookup", 0.15}, {"ip_forward", 0.01}}},
	}
	return r
}

func TestTargetsSayByHowMuch(t *testing.T) {
	type row struct{ What, Got, Verdict, Detail string }
	var got []row
	for _, x := range made().Targets() {
		got = append(got, row{x.What, report.Digits(x.Got.Median), x.Verdict(), x.Detail})
	}
	if len(got) != 24 {
		t.Fatalf("%d targets", len(got))
	}
	want := map[int]row{
		0: {"TCP_RR, Sluice against kernel forwarding", "1.05", "**missed** by 14 %",
			"10.5 against 10.0; eBPF host routing alone: 8.50; XDP_PASS alone adds 1.00 to kernel forwarding. To meet it, Sluice may add 0.700 to host routing, and adds 2.00"},
		8: {"TCP_STREAM, Sluice against kernel forwarding", "1.05", "**missed** by 31 %",
			"52.5 against 50.0; eBPF host routing alone: 42.5; XDP_PASS alone adds 5.00 to kernel forwarding. The limit is 40.0, less than host routing alone takes"},
		9:  {"TCP_RR, Sluice, tcx alone against kernel forwarding", "0.900", "met, by 2 %", "9.00 against 10.0; eBPF host routing alone: 8.50"},
		11: {"TCP_RR, Sluice, tcx alone against kernel, conntrack, nftables policy", "0.643", "met, by 8 %", "9.00 against 14.0; eBPF host routing alone: 8.50"},
		18: {"TCP_RR past an egress filter, Sluice, rules: 100,000 denied against 10", "1.19", "**missed** by 8 %", "12.5 against 10.5"},
		21: {"TCP_RR past an egress filter, Sluice, set: 100,000 denied against 10", "1.00", "met, by 9 %", "10.5 against 10.5"},
	}
	for i, w := range want {
		if diff := cmp.Diff(w, got[i]); diff != "" {
			t.Errorf("target %d: %s", i, diff)
		}
	}
	if empty := (&Results{}).Targets(); len(empty) != 24 || slices.ContainsFunc(empty, func(x report.Target) bool { return x.Verdict() != "not measured" }) {
		t.Errorf("without measurements: %+v", empty)
	}
}

func TestWinsOfRivalsAreTold(t *testing.T) {
	wins := made().Wins()
	for _, want := range []string{
		"kernel forwarding wins node networking, TCP_RR, 10,000 denied: 10.0 CPU µs per operation, and Sluice 1.05 times that",
		"ipset wins egress filtering, TCP_STREAM, 100,000 denied: 11.0 CPU µs per MB, and Sluice, rules 1.14 times that",
	} {
		if !slices.Contains(wins, want) {
			t.Errorf("no %q in %q", want, wins)
		}
	}
	for _, w := range wins {
		if strings.Contains(w, rival(Routing).Label) || strings.Contains(w, rival(None).Label+" wins") || strings.HasPrefix(w, "Sluice") {
			t.Errorf("no rival: %s", w)
		}
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

// TestRivalsCanBeToldApart: within an experiment a colour and a name of its own for each, and one key everywhere.
func TestRivalsCanBeToldApart(t *testing.T) {
	keys := map[string]bool{}
	for _, list := range [][]Rival{Networking, Filtering} {
		seen := map[string]bool{}
		for _, r := range list {
			if r.Key == "" || keys[r.Key] {
				t.Errorf("key %q is empty or another's", r.Key)
			}
			keys[r.Key] = true
			for _, s := range []string{"label " + r.Label, r.Colour} {
				if s == "" || seen[s] {
					t.Errorf("%q of %s is empty or another's", s, r.Label)
				}
				seen[s] = true
			}
		}
	}
}

func TestAProfileCountsTheLoadAlone(t *testing.T) {
	script := `load  ffffffff81c0ffee tcp_ack
load  ffffffff81c0ffef tcp_ack
load      55d0c0ffee00 [unknown]
ksoftirqd/1  ffffffffc0123456 bpf_prog_0123456789abcdef_uplink_ingress
compile  ffffffff81c0ffee tcp_ack
ksoftirqd/0  ffffffff81c0ffee tcp_ack
iperf3  ffffffff81000000 copy_user
`
	want := Profile{Samples: 5, Symbols: []Symbol{{"tcp_ack", 0.4}, {"bpf: uplink_ingress", 0.2}, {"copy_user", 0.2}, {userSpace, 0.2}}}
	if diff := cmp.Diff(want, symbols([]byte(script), "ksoftirqd/1")); diff != "" {
		t.Error(diff)
	}
}
