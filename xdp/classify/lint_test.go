package classify_test

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/xdp/classify"
	"sluice/xdp/classify/classifytest"
)

func TestLintFindsRulesWithoutEffect(t *testing.T) {
	const repeats = "rule one before it matches the same packets: it is never reached"
	const covered = "rule one before it matches all that it could: it is never reached"
	cases := []struct {
		name  string
		rules []classify.Rule // the last is judged
		want  string
	}{
		{"an empty set", []classify.Rule{rule(from())}, "from is an empty set: it never matches"},
		{"an empty destination", []classify.Rule{rule(to())}, "to is an empty set: it never matches"},
		{"no port", []classify.Rule{rule(ports())}, "ports is empty: it never matches"},
		{"two families", []classify.Rule{rule(from("10.0.0.0/8"), to("fd00::/8"))},
			"from and to have no address family in common: it never matches"},
		{"a repetition", []classify.Rule{rule(from("10.0.0.0/8")), rule(from("10.0.0.0/9", "10.0.0.0/8"))}, repeats},
		{"nil is everywhere", []classify.Rule{rule(from("0.0.0.0/0", "::/0")), rule()}, repeats},
		{"a shorter prefix before", []classify.Rule{rule(from("10.0.0.0/8")), rule(from("10.1.0.0/16"), protocol(6))}, covered},
		{"more ports before", []classify.Rule{rule(ports(80, 90)), rule(ports(80, 80, 85, 90))}, covered},
		{"any port before", []classify.Rule{rule(), rule(ports(80, 80))}, covered},
		{"a covered shadow rule", []classify.Rule{rule(), rule(shadow)}, repeats},
		{"only one family before", []classify.Rule{rule(from("0.0.0.0/0")), rule()}, ""},
		{"a longer prefix before", []classify.Rule{rule(from("10.1.0.0/16")), rule(from("10.0.0.0/8"))}, ""},
		{"ports before any", []classify.Rule{rule(ports(0, 65535)), rule()}, ""},
		{"a shadow rule before", []classify.Rule{rule(shadow), rule()}, ""},
		{"an exclusion before", []classify.Rule{rule(notFrom("10.0.0.1/32")), rule()}, ""},
		{"the same exclusion", []classify.Rule{rule(notFrom("10.0.0.1/32")), rule(notFrom("10.0.0.0/8"))}, covered},
		{"another protocol before", []classify.Rule{rule(protocol(6)), rule(protocol(17))}, ""},
		{"a TTL before", []classify.Rule{rule(ttl(255)), rule()}, ""},
		{"no ICMP type", []classify.Rule{rule(types())}, "icmp_types is empty: it never matches"},
		{"no VLAN", []classify.Rule{rule(vlan())}, "vlan is empty: it never matches"},
		{"no length", []classify.Rule{rule(length())}, "length is empty: it never matches"},
		{"an interface that is not there", []classify.Rule{rule(interfaces(0))}, "none of its interfaces is there: it never matches"},
		{"fewer flags before", []classify.Rule{rule(flags(syn, 0)), rule(flags(syn, ack))}, covered},
		{"more flags before", []classify.Rule{rule(flags(syn, ack)), rule(flags(syn, 0))}, ""},
		{"the other flag before", []classify.Rule{rule(flags(0, syn)), rule(flags(syn, 0))}, ""},
		{"more types before", []classify.Rule{rule(types(3, 8)), rule(types(needed))}, covered},
		{"one code before", []classify.Rule{rule(types(needed)), rule(types(3))}, ""},
		{"all fragments before", []classify.Rule{rule(fragment(classify.FragmentYes)), rule(fragment(classify.FragmentLater))}, covered},
		{"whole packets before", []classify.Rule{rule(fragment(classify.FragmentNo)), rule()}, ""},
		{"more VLANs before", []classify.Rule{rule(vlan(0, 100)), rule(vlan(0, 0, 7, 9))}, covered},
		{"tagged before any", []classify.Rule{rule(vlan(1, 4094)), rule()}, ""},
		{"more lengths before", []classify.Rule{rule(length(0, 100)), rule(length(50, 60))}, covered},
		{"any length before", []classify.Rule{rule(), rule(length(50, 60))}, covered},
		{"more code points before", []classify.Rule{rule(dscp(1, 2)), rule(dscp(2))}, covered},
		{"fewer code points before", []classify.Rule{rule(dscp(2)), rule(dscp(1, 2))}, ""},
		{"more interfaces before", []classify.Rule{rule(interfaces(1, 2)), rule(interfaces(2))}, covered},
		{"another interface before", []classify.Rule{rule(interfaces(1)), rule(interfaces(2))}, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			c.rules[len(c.rules)-1].ID = 99
			var want []classify.Finding
			if c.want != "" {
				want = []classify.Finding{{Policy: "ingress", Rule: "one", ID: 99, Text: c.want}}
			}
			got := classify.Lint([]classify.Policy{policy(classify.Drop, classify.FragDefault, c.rules...)})
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWhatLintFindsCanBeLeftOut(t *testing.T) {
	found := 0
	for seed := range uint64(150) {
		rng := rand.New(rand.NewPCG(seed, 6))
		policies := classifytest.Policies(rng)
		useless := map[uint32]bool{}
		for _, f := range classify.Lint(policies) {
			useless[f.ID] = true
		}
		found += len(useless)
		packets := classifytest.Packets(rng, policies, 200)
		for _, p := range policies {
			short := p
			short.Rules = slices.DeleteFunc(slices.Clone(p.Rules), func(r classify.Rule) bool { return useless[r.ID] })
			for _, pk := range packets {
				if a, b := classify.Judge(p, pk), classify.Judge(short, pk); !reflect.DeepEqual(a, b) {
					t.Fatalf("seed %d: %+v is judged %+v, and %+v without the rules that lint found", seed, pk, a, b)
				}
			}
		}
	}
	if found < 1000 {
		t.Errorf("lint found only %d rules", found)
	}
}

// TestLintFindsWhatComparingEveryPairFinds: each rule that an earlier one makes unreachable is found, and named.
func TestLintFindsWhatComparingEveryPairFinds(t *testing.T) {
	found := 0
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 31))
		policies := classifytest.Policies(rng)
		for _, shape := range classifytest.Shapes {
			policies = append(policies, policy(classify.Drop, classify.FragDefault, classifytest.Rules(rng, shape, 60)...))
		}
		for _, p := range policies {
			var want []uint32
			for i := range p.Rules {
				for j := range p.Rules[:i+1] { // a pair by itself, or a rule by itself
					pair := p
					pair.Rules = []classify.Rule{p.Rules[j], p.Rules[i]}
					if i == j {
						pair.Rules = pair.Rules[:1]
					}
					findings := classify.Lint([]classify.Policy{pair})
					if n := len(findings); n > 0 && findings[n-1].ID == p.Rules[i].ID {
						want = append(want, p.Rules[i].ID)
						break
					}
				}
			}
			var got []uint32
			for _, f := range classify.Lint([]classify.Policy{p}) {
				got = append(got, f.ID)
			}
			if !slices.Equal(got, want) {
				t.Fatalf("seed %d: found %v, want %v", seed, got, want)
			}
			found += len(got)
		}
	}
	if found < 500 {
		t.Errorf("only %d findings", found)
	}
}

func BenchmarkLint(b *testing.B) {
	for _, shape := range classifytest.Shapes {
		b.Run(string(shape), func(b *testing.B) {
			p := policy(classify.Drop, classify.FragDefault, classifytest.Rules(rand.New(rand.NewPCG(1, 32)), shape, 100_000)...)
			for b.Loop() {
				classify.Lint([]classify.Policy{p})
			}
		})
	}
}
