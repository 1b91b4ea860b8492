package classify_test

import (
	"math/rand/v2"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"sluice/xdp/abi"
	"sluice/xdp/classify"
	"sluice/xdp/classify/classifytest"
)

func mustCompile(t testing.TB, policies ...classify.Policy) *classify.Tables {
	t.Helper()
	tables, err := classify.Compile(policies)
	if err != nil {
		t.Fatal(err)
	}
	return tables
}

// compare judges packets by every policy in both ways, and returns how many pairs it compared.
func compare(t *testing.T, policies []classify.Policy, packets []classify.Packet) int {
	t.Helper()
	tables := mustCompile(t, policies...)
	for i, policy := range policies {
		for _, p := range packets {
			want, got := classify.Judge(policy, p), tables.Eval(i, p)
			if !reflect.DeepEqual(want, got) {
				t.Fatalf("policy %d, packet %+v\nthe model says  %+v\nthe tables say %+v", i, p, want, got)
			}
		}
	}
	return len(policies) * len(packets)
}

func TestTablesAgreeWithTheModelOnGeneratedPolicies(t *testing.T) {
	pairs := 0
	reasons := map[classify.Reason]int{}
	actions := map[classify.Action]int{}
	shadows := 0
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 2))
		policies := classifytest.Policies(rng)
		packets := classifytest.Packets(rng, policies, 400)
		pairs += compare(t, policies, packets)
		for _, p := range packets {
			d := classify.Judge(policies[0], p)
			reasons[d.Reason]++
			actions[d.Action]++
			shadows += len(d.Shadows)
		}
	}
	if pairs < 200_000 {
		t.Errorf("only %d pairs were compared", pairs)
	}
	// A generator that never reaches a branch would make the comparison worthless.
	for r := classify.ByRule; r <= classify.ByFragmentRule; r++ {
		if reasons[r] < 500 {
			t.Errorf("only %d decisions of reason %d", reasons[r], r)
		}
	}
	for a := classify.Continue; a <= classify.Drop; a++ {
		if actions[a] < 5000 {
			t.Errorf("only %d decisions with action %d", actions[a], a)
		}
	}
	if shadows < 5000 {
		t.Errorf("only %d shadow matches", shadows)
	}
	t.Logf("%d pairs; reasons %v, actions %v, %d shadow matches", pairs, reasons, actions, shadows)
}

func TestTablesKeepTheirInvariants(t *testing.T) {
	for seed := range uint64(100) {
		rng := rand.New(rand.NewPCG(seed, 3))
		policies := classifytest.Policies(rng)
		tables := mustCompile(t, policies...)
		if again := mustCompile(t, policies...); !reflect.DeepEqual(tables, again) {
			t.Fatalf("seed %d: equal input gave different tables", seed)
		}
	}
}

func TestRulesTakeAnEntryPerPairOfPortRanges(t *testing.T) {
	tables := mustCompile(t, policy(classify.Drop, classify.FragDefault,
		rule(id(7), ports(1, 2, 4, 5, 5, 6, 100, 200), sourcePorts(9, 9, 11, 11))))
	if len(tables.Rules) != 3*2 {
		t.Fatalf("3 ranges, once those that touch are one, times 2 source ranges took %d entries", len(tables.Rules))
	}
	for _, r := range tables.Rules {
		if r.ID != 7 || r.Flags != abi.RulePorts|abi.RuleSourcePorts|abi.RuleAnyProtocol|abi.RuleHidden|abi.RulePlain {
			t.Errorf("entry %+v", r)
		}
	}
	if got := tables.Rules[5]; got.Ports != (abi.PortRange{First: 100, Last: 200}) || got.SourcePorts != (abi.PortRange{First: 11, Last: 11}) {
		t.Errorf("the last entry is %+v", got)
	}
}

func TestCompileRefusesEveryInvalidRuleAtOnce(t *testing.T) {
	bad := []classify.Rule{
		rule(id(0)), rule(id(abi.RuleIDs)), rule(protocol(256)), rule(protocol(-2)),
		rule(func(r *classify.Rule) { r.Action = classify.Continue }), rule(ports(9, 8)), rule(sourcePorts(9, 8)),
		rule(func(r *classify.Rule) { r.NotTo = []netip.Prefix{{}} }),
		rule(flags(syn, 0), protocol(17)), rule(func(r *classify.Rule) { r.TCPFlags = syn }), rule(types(8), protocol(6)),
		rule(fragment(5)), rule(vlan(2, 1)), rule(length(2, 1)),
		rule(protocol(1), func(r *classify.Rule) { r.ICMPTypes = []classify.ICMPRange{{TypeFirst: 2, TypeLast: 1}} }),
	}
	_, err := classify.Compile([]classify.Policy{{Name: "x", Default: 3}, policy(classify.Drop, classify.FragDefault, bad...)})
	if err == nil {
		t.Fatal("no error")
	}
	if lines := strings.Split(err.Error(), "\n"); len(lines) != 1+len(bad) {
		t.Errorf("%d lines, want one per fault:\n%s", len(lines), err)
	}
	if _, err := classify.Compile(make([]classify.Policy, abi.MaxPolicies+1)); err == nil {
		t.Error("too many policies were accepted")
	}
}

// byteSource lets a fuzzer's bytes steer the generators, and goes on at random when they are used up.
type byteSource struct {
	data []byte
	then rand.Source
}

func (s *byteSource) Uint64() uint64 {
	if len(s.data) == 0 {
		return s.then.Uint64()
	}
	b := uint64(s.data[0])
	s.data = s.data[1:]
	return b<<56 | b<<24 // IntN uses the high bits of either half
}

func FuzzCompile(f *testing.F) {
	f.Add([]byte("nested prefixes, ports and fragments"), uint64(1))
	f.Add([]byte{0, 255, 0, 255, 128, 7}, uint64(2))
	f.Fuzz(func(t *testing.T, data []byte, seed uint64) {
		rng := rand.New(&byteSource{data, rand.NewPCG(seed, 4)})
		policies := classifytest.Policies(rng)
		compare(t, policies, classifytest.Packets(rng, policies, 50))
		for _, finding := range classify.Lint(policies) {
			if finding.ID == 0 || finding.Text == "" {
				t.Errorf("%+v", finding)
			}
		}
	})
}

// BenchmarkCompile is a blocklist of a million prefixes before 100,000 rules of a shape.
func BenchmarkCompile(b *testing.B) {
	for _, shape := range classifytest.Shapes {
		b.Run(string(shape), func(b *testing.B) {
			rng := rand.New(rand.NewPCG(1, 5))
			p := policy(classify.Drop, classify.FragDefault, classifytest.Rules(rng, shape, 100_000)...)
			block := rule(id(100_001), drop)
			block.From = classifytest.Blocklist4(rng, 1_000_000)
			p.Rules = append([]classify.Rule{block}, p.Rules...)
			var tables *classify.Tables
			for b.Loop() {
				tables = mustCompile(b, p)
			}
			cost := tables.Cost()
			b.ReportMetric(float64(cost.Classes), "classes")
			b.ReportMetric(float64(cost.Bytes)/1e6, "MB")
			b.ReportMetric(float64(cost.WorstProbes), "probes")
		})
	}
}
