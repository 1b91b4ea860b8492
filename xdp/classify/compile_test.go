package classify_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

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
				t.Fatalf("policy %d, packet %+v\nthe model says  %+v\nthe tables say %+v\nrules: %+v", i, p, want, got, policy.Rules)
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
		seen := map[abi.ClassBits]bool{}
		for class, set := range tables.Classes {
			if class >= int(abi.ClassTables) && seen[set] {
				t.Fatalf("seed %d: class %d repeats a set", seed, class)
			}
			seen[set] = true
		}
		for table, prefixes := range tables.Prefixes {
			for i, pc := range prefixes {
				if i > 0 && prefixes[i-1].Prefix.Compare(pc.Prefix) >= 0 {
					t.Fatalf("seed %d: table %d is not sorted at %s", seed, table, pc.Prefix)
				}
				if pc.Prefix != pc.Prefix.Masked() || pc.Prefix.Addr().Is6() != (table >= 2) || int(pc.Class) >= len(tables.Classes) {
					t.Fatalf("seed %d: table %d has %s, class %d of %d", seed, table, pc.Prefix, pc.Class, len(tables.Classes))
				}
			}
		}
	}
}

func TestRulesWithManyPortRangesTakeSeveralEntries(t *testing.T) {
	var many []uint16
	for i := range uint16(9) {
		many = append(many, 100+10*i, 101+10*i)
	}
	tables := mustCompile(t, policy(classify.Drop, classify.FragDefault, rule(id(7), ports(many...), sourcePorts(many[:10]...))))
	if len(tables.Rules) != 3*2 {
		t.Fatalf("9 ranges times 5 source ranges took %d entries, want 6", len(tables.Rules))
	}
	for _, r := range tables.Rules {
		if r.ID != 7 || r.Flags != abi.RulePorts|abi.RuleSourcePorts|abi.RuleAnyProtocol {
			t.Errorf("entry %+v", r)
		}
	}
	unused := abi.PortRange{First: 1, Last: 0}
	if got := tables.Rules[5].Ports; got != [abi.MaxPortRanges]abi.PortRange{{First: 180, Last: 181}, unused, unused, unused} {
		t.Errorf("the last entry's ports are %v", got)
	}
	touching := mustCompile(t, policy(classify.Drop, classify.FragDefault, rule(ports(1, 2, 3, 4, 5, 6, 4, 8, 9, 9))))
	if len(touching.Rules) != 1 || touching.Rules[0].Ports[0] != (abi.PortRange{First: 1, Last: 9}) {
		t.Errorf("ranges that touch are one: %+v", touching.Rules)
	}
}

func TestCostCountsTheTables(t *testing.T) {
	tables := mustCompile(t,
		policy(classify.Drop, classify.FragDefault, rule(from("192.0.2.0/24", "198.18.0.0/15")), rule(id(2)), rule(id(3), from())),
		policy(classify.Drop, classify.FragDefault, rule(id(4), to("2001:db8::/32"))))
	// src4: default {2,4}, its prefixes {1,2,4}; src6: default {2,4}; dst4: default {1,2}; dst6: default {1,2}, its
	// prefix {1,2,4}. The four defaults stand apart even where they are equal. Rule 3 never matches.
	want := classify.Cost{Entries: 3, Prefixes: 3, Classes: 4 + 1, WorstProbes: 5 + 2}
	want.Bytes = 128*3 + 512*5 + 40*3 + 16*2
	if diff := cmp.Diff(want, tables.Cost()); diff != "" {
		t.Error(diff)
	}
	empty := mustCompile(t)
	if diff := cmp.Diff(classify.Cost{Classes: 4, Bytes: 4 * 512, WorstProbes: 5}, empty.Cost()); diff != "" {
		t.Errorf("no policies: %s", diff)
	}
}

func TestPrefixesThatChangeNothingAreLeftOut(t *testing.T) {
	tables := mustCompile(t, policy(classify.Drop, classify.FragDefault, rule(from("10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32"))))
	got := tables.Prefixes[abi.ClassSrc4]
	if len(got) != 1 || got[0].Prefix != netip.MustParsePrefix("10.0.0.0/8") {
		t.Errorf("prefixes inside one of the same list stayed: %v", got)
	}
}

func TestABudgetErrorNamesTheFirstRuleThatDoesNotFit(t *testing.T) {
	p := policy(classify.Drop, classify.FragDefault)
	for i := range uint32(abi.MaxRules - 1) {
		p.Rules = append(p.Rules, rule(id(i+1)))
	}
	big := rule(id(5000), ports(1, 1, 3, 3, 5, 5, 7, 7, 9, 9))
	big.Name = "big"
	p.Rules = append(p.Rules, big)
	_, err := classify.Compile([]classify.Policy{p})
	var budget *classify.BudgetError
	if !errors.As(err, &budget) {
		t.Fatalf("got %v", err)
	}
	if budget.Rule != "ingress/big" || budget.Needs != 2 || budget.Free != 1 || budget.Total != abi.MaxRules+1 || budget.Budget != abi.MaxRules {
		t.Errorf("%+v", budget)
	}
	want := "rule ingress/big needs 2 entries, 1 of 4096 are left (all rules together: 4097): " +
		"write its ports as fewer ranges (up to 4 share an entry), or join rules by sets"
	if err.Error() != want {
		t.Errorf("%q", err)
	}
	p.Rules = p.Rules[:abi.MaxRules-1]
	if got := mustCompile(t, p); len(got.Rules) != abi.MaxRules-1 {
		t.Errorf("%d entries", len(got.Rules))
	}
}

func TestTheLastEntryOfTheRuleSpaceIsReached(t *testing.T) {
	p := policy(classify.Drop, classify.FragDefault)
	for i := range uint32(abi.MaxRules) {
		p.Rules = append(p.Rules, rule(id(i+1), to(fmt.Sprintf("10.%d.%d.0/24", i/256, i%256))))
	}
	tables := mustCompile(t, p)
	d := tables.Eval(0, packet("192.0.2.1", "10.15.255.9", 1))
	if d.Rule != abi.MaxRules || d.Reason != classify.ByRule {
		t.Errorf("%+v", d)
	}
}

func TestCompileRefusesEveryInvalidRuleAtOnce(t *testing.T) {
	bad := []classify.Rule{
		rule(id(0)), rule(id(abi.RuleIDs)), rule(protocol(256)), rule(protocol(-2)),
		rule(func(r *classify.Rule) { r.Action = classify.Continue }), rule(ports(9, 8)), rule(sourcePorts(9, 8)),
		rule(func(r *classify.Rule) { r.NotTo = []netip.Prefix{{}} }),
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

// manyPrefixes returns 1,000 rules with 100 prefixes each; nested ones lie in each other at random.
func manyPrefixes(nested bool) []classify.Policy {
	rng := rand.New(rand.NewPCG(1, 5))
	p := policy(classify.Drop, classify.FragDefault)
	for i := range uint32(1000) {
		var list []netip.Prefix
		for range 100 {
			addr := netip.AddrFrom4([4]byte{10, byte(rng.Uint32()), byte(rng.Uint32()), byte(rng.Uint32())})
			length := 24 + rng.IntN(9)
			if nested {
				length = 9 + rng.IntN(24)
			}
			list = append(list, netip.PrefixFrom(addr, length))
		}
		r := rule(id(i+1), ports(uint16(i), uint16(i)))
		r.From = list
		p.Rules = append(p.Rules, r)
	}
	return []classify.Policy{p}
}

func BenchmarkCompile1000Rules100000Prefixes(b *testing.B) {
	for _, nested := range []bool{false, true} {
		b.Run(fmt.Sprintf("nested=%v", nested), func(b *testing.B) {
			policies := manyPrefixes(nested)
			var tables *classify.Tables
			for b.Loop() {
				tables = mustCompile(b, policies...)
			}
			cost := tables.Cost()
			b.ReportMetric(float64(cost.Classes), "classes")
			b.ReportMetric(float64(cost.Prefixes), "prefixes")
			b.ReportMetric(float64(cost.Bytes)/(1<<20), "MiB")
			b.ReportMetric(float64(cost.WorstProbes), "probes")
		})
	}
}
