package classify_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"sluice/xdp/classify"
	"sluice/xdp/classify/classifytest"
)

// edit changes policies as operators do: a rule in another place, another rule, other ports, an address more in a list.
// Lists are shared and immutable, so a changed one is a new one.
func edit(rng *rand.Rand, policies []classify.Policy) []classify.Policy {
	out := slices.Clone(policies)
	p := &out[rng.IntN(len(out))]
	p.Rules = slices.Clone(p.Rules)
	if len(p.Rules) == 0 {
		p.Rules = classifytest.Rules(rng, classifytest.Nested, 3)
		return out
	}
	at := rng.IntN(len(p.Rules))
	switch r := &p.Rules[at]; rng.IntN(7) {
	case 0:
		r.Shadow = !r.Shadow
	case 1:
		r.Ports = []classify.PortRange{{First: uint16(rng.IntN(1000)), Last: 1000}}
	case 2:
		r.From = append(slices.Clone(r.From), netip.PrefixFrom(classifytest.Addr4(rng), rng.IntN(33)))
	case 3:
		r.To = []netip.Prefix{netip.PrefixFrom(classifytest.Addr6(rng), rng.IntN(129))}
	case 4:
		r.NotFrom = r.To
	case 5:
		p.Rules = slices.Delete(p.Rules, at, at+1)
	case 6:
		other := rng.IntN(len(p.Rules))
		p.Rules[at], p.Rules[other] = p.Rules[other], p.Rules[at]
	}
	return out
}

// agree wants tables to judge as fresh ones and the model do, and to ask as little of the machine as they may.
func agree(t *testing.T, rng *rand.Rand, policies []classify.Policy, got *classify.Tables, packets int) {
	t.Helper()
	want := mustCompile(t, policies...)
	for _, p := range classifytest.Packets(rng, policies, packets) {
		for i := range policies {
			a, b, c := want.Eval(i, p), got.Eval(i, p), classify.Judge(policies[i], p)
			if !reflect.DeepEqual(a, b) || !reflect.DeepEqual(b, c) {
				t.Fatalf("policy %d, %+v: fresh tables say %+v, changed ones %+v, the model %+v", i, p, a, b, c)
			}
		}
	}
	if a, b := want.Cost(), got.Cost(); b.Bytes > 3*a.Bytes+1<<20 || b.WorstProbes > 4*a.WorstProbes+100 {
		t.Errorf("fresh tables cost %+v, changed ones %+v", a, b)
	}
}

func TestACacheNeverChangesAVerdict(t *testing.T) {
	for seed := range uint64(24) {
		rng := rand.New(rand.NewPCG(seed, 31))
		policies := classifytest.Policies(rng)
		if seed%4 == 0 { // with a list that is sorted apart, and rules enough for buckets
			rules := classifytest.Rules(rng, classifytest.Shapes[seed/4%4], 400)
			rules[7].From = classifytest.Blocklist4(rng, 3000)
			policies = append(policies, policy(classify.Drop, classify.FragDefault, rules...))
		}
		for i := range policies {
			policies[i].Name = fmt.Sprint("policy-", i)
		}
		var cache classify.Cache
		for step := range 25 {
			got, err := cache.Compile(policies)
			if err != nil {
				t.Fatalf("seed %d, step %d: %v", seed, step, err)
			}
			if again, _ := cache.Compile(slices.Clone(policies)); again != got {
				t.Fatalf("seed %d, step %d: the same policies have other tables", seed, step)
			}
			agree(t, rng, policies, got, 100)
			policies = edit(rng, policies)
		}
	}
}

func TestACompilationThatFailsLeavesTheCacheInOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 32))
	good := []classify.Policy{policy(classify.Drop, classify.FragDefault, classifytest.Rules(rng, classifytest.FW, 300)...)}
	bad := []classify.Policy{policy(classify.Drop, classify.FragDefault)}
	for i := range uint32(3000) {
		bad[0].Rules = append(bad[0].Rules, rule(id(i+1), protocol(6), sourcePorts(uint16(i), uint16(i))))
	}
	var cache classify.Cache
	for range 2 {
		if _, err := cache.Compile(bad); err == nil {
			t.Fatal("compiled what is too much")
		}
		got, err := cache.Compile(good)
		if err != nil {
			t.Fatal(err)
		}
		agree(t, rng, good, got, 1000)
	}
}
