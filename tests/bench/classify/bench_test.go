package classify_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"sluice/xdp/classify"
	"sluice/xdp/classify/classifytest"
)

func BenchmarkPrefixes(b *testing.B) {
	for _, family := range []int{4, 6} {
		for _, n := range []int{1_000, 10_000, 100_000, 1_000_000} {
			b.Run(fmt.Sprintf("ipv%d/%d", family, n), func(b *testing.B) {
				rng := rand.New(rand.NewPCG(1, uint64(n)))
				set, any := classifytest.Blocklist4(rng, n), func() netip.Addr { return classifytest.Addr4(rng) }
				if family == 6 {
					set, any = classifytest.Blocklist6(rng, n), func() netip.Addr { return classifytest.Addr6(rng) }
				}
				t, took := compileOf(b, blocklist(set))
				x := newBench(b, t, set, nothing, lpm, tables)
				b.Logf("%d prefixes: compiled in %v, filled in %v, %d bytes", n, took, x.loading, t.Cost().Bytes)
				var hit, miss []classify.Packet
				for len(hit) < keyCount {
					hit = append(hit, tcp(inside(rng, set[rng.IntN(n)], any()), any(), 80))
				}
				for len(miss) < keyCount {
					if p := tcp(any(), any(), 80); t.Eval(0, p).Rule == 0 {
						miss = append(miss, p)
					}
				}
				for _, keys := range []struct {
					name    string
					packets []classify.Packet
				}{{"hit", hit}, {"miss", miss}, {"fixed", hit[:1]}} {
					cost := x.run(b, keys.packets)
					b.Logf("%-5s LPM_TRIE %6.0f ns, table %6.0f ns, ratio %.3f", keys.name, cost[lpm], cost[tables], cost[tables]/cost[lpm])
				}
			})
		}
	}
}

// BenchmarkRules shows what a packet costs by the number of rules, and how many times of 100 rules that is: medians and
// quartiles of rounds in which all sizes ran side by side.
func BenchmarkRules(b *testing.B) {
	sizes := []int{10, 100, 1_000, 10_000, 100_000}
	for _, shape := range classifytest.Shapes {
		b.Run(string(shape), func(b *testing.B) {
			var xs []*bench
			var rules [][]classify.Rule
			for _, n := range sizes {
				rng := rand.New(rand.NewPCG(2, uint64(n)))
				policy := classify.Policy{Name: "ingress", Default: classify.Accept, Rules: classifytest.Rules(rng, shape, n)}
				t, took := compileOf(b, policy)
				x := newBench(b, t, nil, nothing, classes, judged, uncounted)
				xs, rules = append(xs, x), append(rules, policy.Rules)
				c := t.Cost()
				b.Logf("%6d rules: compiled in %v, filled in %v, %.1f MB, %d entries, %d classes, worst probes %d", n,
					took.Round(time.Millisecond), x.loading.Round(time.Millisecond), float64(c.Bytes)/1e6, c.Entries, c.Classes, c.WorstProbes)
			}
			for _, keys := range []string{"match", "random", "fixed"} {
				for i, x := range xs {
					x.setKeys(b, rulePackets(rand.New(rand.NewPCG(4, uint64(i))), rules[i], keys))
				}
				got := sideBySide(b, xs, judged, classes, uncounted)
				for i, n := range sizes {
					cost, ratio := quartiles(got[i][0]), quartiles(ratios(got[i][0], got[1][0]))
					b.Logf("%-6s %6d rules: %4.0f ns (%4.0f-%4.0f), of it classes %4.0f, counting %4.0f; %.2f times 100 rules (%.2f-%.2f)", keys, n,
						cost[1], cost[0], cost[2], quartiles(got[i][1])[1], cost[1]-quartiles(got[i][2])[1], ratio[1], ratio[0], ratio[2])
				}
			}
		})
	}
}

// rulePackets returns packets that rules match, or any of the same /8, or one again and again.
func rulePackets(rng *rand.Rand, rules []classify.Rule, keys string) []classify.Packet {
	all := netip.MustParsePrefix("10.0.0.0/8")
	var out []classify.Packet
	for len(out) < keyCount {
		r, from, to, port := rules[rng.IntN(len(rules))], all, all, uint16(rng.IntN(65536))
		if r.From != nil && keys != "random" {
			from = r.From[0]
		}
		if r.To != nil && keys != "random" {
			to = r.To[0]
		}
		if r.Ports != nil && keys != "random" {
			port = r.Ports[0].First
		}
		p := tcp(inside(rng, from, classifytest.Addr4(rng)), inside(rng, to, classifytest.Addr4(rng)), port)
		if r.Protocol == 17 {
			p.Protocol = 17
		}
		out = append(out, p)
		if keys == "fixed" {
			break
		}
	}
	return out
}
