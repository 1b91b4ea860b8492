package classify_test

import (
	"testing"

	"sluice/xdp/abi"
	"sluice/xdp/classify"
)

// TestAPolicySaysWhetherWhatItDecidesHoldsForTheFlow, compiled anew and stepped forward from a policy without conditions.
func TestAPolicySaysWhetherWhatItDecidesHoldsForTheFlow(t *testing.T) {
	for _, test := range []struct {
		name string
		rule classify.Rule
		want uint8
	}{
		{"what tells flows apart", classify.Rule{Protocol: 6, Ports: []classify.PortRange{{First: 1, Last: 9}}, Action: classify.Drop}, 0},
		{"an interface", classify.Rule{Protocol: 6, Interfaces: []classify.Interface{{Name: "a", Index: 3}}, Action: classify.Drop}, 0},
		{"an ICMP type", classify.Rule{Protocol: 1, ICMPTypes: []classify.ICMPRange{{TypeLast: 8}}, Action: classify.Drop}, 0},
		{"fragments", classify.Rule{Protocol: 6, Fragment: classify.FragmentYes, Action: classify.Drop}, 0},
		{"TCP flags", classify.Rule{Protocol: 6, TCPMask: 2, Action: classify.Drop}, abi.PerPacketSees},
		{"a TTL", classify.Rule{Protocol: 6, TTL: 255, Action: classify.Drop}, abi.PerPacketSees},
		{"a DSCP", classify.Rule{Protocol: 6, DSCP: 1, Action: classify.Drop}, abi.PerPacketSees},
		{"a VLAN", classify.Rule{Protocol: 6, VLANs: []classify.Range{{First: 1, Last: 1}}, Action: classify.Drop}, abi.PerPacketSees},
		{"a length", classify.Rule{Protocol: 6, Lengths: []classify.Range{{First: 1, Last: 1}}, Action: classify.Drop}, abi.PerPacketSees},
		{"a limit", classify.Rule{Protocol: 6, Action: classify.Limit}, abi.PerPacketDoes},
		{"a log", classify.Rule{Protocol: 6, Sample: 1, Action: classify.Accept}, abi.PerPacketDoes},
		{"shadow", classify.Rule{Protocol: 6, Shadow: true, Action: classify.Drop}, abi.PerPacketDoes},
		{"both", classify.Rule{Protocol: 6, TTL: 1, Shadow: true, Action: classify.Drop}, abi.PerPacketSees | abi.PerPacketDoes},
	} {
		test.rule.ID, test.rule.Name = 2, "second"
		policies := func(rules ...classify.Rule) []classify.Policy {
			first := classify.Rule{ID: 1, Name: "first", Protocol: classify.AnyProtocol, From: nil, TTL: 0, Action: classify.Accept,
				Ports: []classify.PortRange{{First: 80, Last: 80}}}
			return []classify.Policy{{Name: "p", Rules: append(rules, first), Default: classify.Drop}}
		}
		fresh, err := classify.Compile(policies(test.rule))
		if err != nil {
			t.Fatal(err)
		}
		if got := fresh.Policies[0].PerPacket; got != test.want {
			t.Errorf("%s: %d, want %d", test.name, got, test.want)
		}
		var cache classify.Cache
		for _, rules := range [][]classify.Rule{nil, {test.rule}} {
			if fresh, err = cache.Compile(policies(rules...)); err != nil {
				t.Fatal(err)
			}
		}
		if got := fresh.Policies[0].PerPacket; got != test.want {
			t.Errorf("%s, added: %d, want %d", test.name, got, test.want)
		}
	}
}
