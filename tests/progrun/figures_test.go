package progrun_test

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"sluice/xdp"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
	"sluice/xdp/classify/classifytest"
)

// BenchmarkPackets gives the time of one packet in the generation by itself, as the kernel measures it over a million
// runs (less than 40 ns of that is the harness), and the instructions that the verifier walked.
func BenchmarkPackets(b *testing.B) {
	rng := rand.New(rand.NewPCG(3, 3))
	policies := classifytest.Policies(rng)
	for len(policies) < 3 {
		policies = append(policies, classifytest.Policies(rng)...)
	}
	many := xdp.Generation{Failsafe: policies[0], System: policies[1], Ingress: policies[2], FlowSlots: 1024}
	many.Failsafe.Default, many.System.Default, many.Ingress.Default = classify.Continue, classify.Continue, classify.Drop
	for _, test := range []struct {
		name  string
		g     xdp.Generation
		frame []byte
	}{
		{"arp", strict(), ether(0x0806, make([]byte, 46))},
		{"no-rules/tcp4", generation(classify.Accept), frame4(6, tcp(1, 2))},
		{"no-rules/tcp6", generation(classify.Accept), ether(typeIP6, ip6(6, 64, src6, tcp(1, 2)))},
		{"strict/accept", strict(), from4(outside, frame4(6, tcp(1, 443)))},
		{"strict/drop", strict(), frame4(17, udp(1, 2))},
		{"strict/default", strict(), from4(outside, frame4(17, udp(1, 2)))},
		{"generated/tcp4", many, frame4(6, tcp(1, 443))},
	} {
		s := newSite(b, test.g)
		s.fastest(b, test.name+"-ns/packet", test.frame)
		b.ReportMetric(float64(walked(b, s.live)), "verifier-insns")
	}
}

// fastest reports the time of a packet in the live program, in the best of many short runs: what disturbs them only adds.
func (s *site) fastest(b *testing.B, metric string, frame []byte) {
	b.Helper()
	best := time.Duration(1 << 40)
	for range 500 {
		_, each, err := s.live.Benchmark(frame, 5_000, nil)
		if err != nil {
			b.Fatal(err)
		}
		best = min(best, each)
	}
	b.ReportMetric(float64(best.Nanoseconds()), metric)
}

func walked(b *testing.B, p *ebpf.Program) uint32 {
	b.Helper()
	info, err := p.Info()
	if err != nil {
		b.Fatal(err)
	}
	n, ok := info.VerifiedInstructions()
	if !ok {
		b.Fatal("the kernel tells no number of verified instructions")
	}
	return n
}

// BenchmarkChange is one rule changed in a generation of a million prefixes and 100,000 rules, from the policies to the
// switched slot; what resides in the process and what its maps hold is told, too.
func BenchmarkChange(b *testing.B) {
	rng := rand.New(rand.NewPCG(4, 4))
	g := generation(classify.Drop, classifytest.Rules(rng, classifytest.ACL, 100_000)...)
	g.Ingress.Rules[0] = classify.Rule{ID: 1, Name: "block", From: classifytest.Blocklist4(rng, 1_000_000), Protocol: classify.AnyProtocol, Action: classify.Drop}
	s := newSite(b, generation(classify.Accept))
	var compiled, digested, loaded time.Duration
	n := 0
	for b.Loop() {
		n++
		g.Ingress.Rules[n].Action = 3 - g.Ingress.Rules[n].Action
		start := time.Now()
		tables, err := classify.Compile(g.Policies())
		if err != nil {
			b.Fatal(err)
		}
		g.Tables = tables
		compiled += time.Since(start)
		start = time.Now()
		want := state(g, xdp.Interface{Name: "uplink", Mode: xdp.Native})
		digested += time.Since(start)
		start = time.Now()
		if err := s.Apply(context.Background(), xdp.Op{Kind: xdp.Load, State: want}); err != nil {
			b.Fatal(err)
		}
		loaded += time.Since(start)
	}
	for name, d := range map[string]time.Duration{"compile": compiled, "digest": digested, "load": loaded} {
		b.ReportMetric(float64(d.Milliseconds())/float64(n), name+"-ms")
	}
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(usage.Maxrss)/1024, "peak-MB")
	b.ReportMetric(float64(g.Tables.Cost().Bytes)/1e6, "maps-MB")
}

// BenchmarkReadHits reads the counters of 100,000 rules that all were hit.
func BenchmarkReadHits(b *testing.B) {
	g := generation(classify.Drop, classifytest.Rules(rand.New(rand.NewPCG(5, 5)), classifytest.ACL, 100_000)...)
	s := newSite(b, g)
	one := make([]abi.RuleHit, ebpf.MustPossibleCPU())
	for i := range one {
		one[i] = abi.RuleHit{Packets: 1, Bytes: 60, Last: 1 << 32}
	}
	for id := range uint32(100_001) {
		if err := s.hits.Put(id, one); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		hits, err := xdp.RuleHits(s.dir)
		if err != nil || len(hits) != 100_000 {
			b.Fatalf("%d counters: %v", len(hits), err)
		}
	}
}
