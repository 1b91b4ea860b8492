package compile

import (
	"math/rand/v2"
	"strings"
	"testing"

	"sluice/bgp/flowspec"
	"sluice/bgp/flowspec/flowspectest"
	"sluice/xdp/classify"
)

// What a neighbor may send is translated, and then matches what the rule does, or is refused by its name.
func FuzzFlowSpec(f *testing.F) {
	rng := rand.New(rand.NewPCG(3, 4))
	for i := range 20 {
		family := [...]flowspec.Family{flowspec.IPv4, flowspec.IPv6}[i%2]
		wire, err := flowspectest.Rule(rng, family).MarshalComponents()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire, family == flowspec.IPv4, uint64(i))
	}
	f.Fuzz(func(t *testing.T, wire []byte, ipv4 bool, packets uint64) {
		family := flowspec.IPv6
		if ipv4 {
			family = flowspec.IPv4
		}
		rule, err := flowspec.Parse(family, wire)
		if err != nil {
			return
		}
		got, err := TranslateFlowSpec(rule, []flowspec.Action{{Kind: flowspec.RateBytes}}, nil)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "FlowSpec rule "+rule.String()+": ") {
				t.Fatalf("%v does not name the rule %s", err, rule)
			}
			return
		}
		policy, rng := policyOf(dropping(got)), rand.New(rand.NewPCG(packets, 5))
		for range 20 {
			p := flowspectest.Packet(rng, family)
			if d := classify.Judge(policy, classified(p)); (d.Action == classify.Drop) != rule.Match(p) {
				t.Fatalf("%s matches %+v: %v; its translation %+v says %+v", rule, p, rule.Match(p), got, d)
			}
		}
	})
}
