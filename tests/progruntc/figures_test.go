package progruntc_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"sluice/tc"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
)

// manyRules are rules that none of the site's packets matches, and one behind them that accepts all.
func manyRules(first uint32, n int) []classify.Rule {
	rules := make([]classify.Rule, 0, n+1)
	for i := range n {
		net := netip.AddrFrom4([4]byte{172, byte(16 + i>>16), byte(i >> 8), byte(i)})
		rules = append(rules, classify.Rule{ID: first + uint32(i), Name: fmt.Sprintf("r%d", i), From: []netip.Prefix{netip.PrefixFrom(net, 32)},
			Protocol: 6, Ports: ports(uint16(1+i%60000), uint16(1+i%60000)), Action: classify.Drop})
	}
	return append(rules, classify.Rule{ID: first + uint32(n), Name: "rest", Protocol: classify.AnyProtocol, Action: classify.Accept})
}

// BenchmarkEstablished gives the time of a packet of an established flow by itself, in the best of many short test runs, where
// each policy has 10,000 rules. A packet that spends its TTL is judged and tracked as any other, and can be run again.
func BenchmarkEstablished(b *testing.B) {
	s := newSite(b, func(want *tc.State) {
		g := &want.Generation
		g.Workloads[0].Ingress.Rules, g.Workloads[0].Egress.Rules = manyRules(1000, 10000), manyRules(20000, 10000)
		g.Egress.Rules = manyRules(40000, 10000)
		g.RuleSlots = 60000
	})
	g := s.generation(b)
	const in, out = "tcp 198.51.100.7:9999 > 10.0.1.10:80 ttl=1 flags=", "tcp 10.0.1.10:4000 > 169.254.1.1:80 flags="
	const back, answer = "tcp 10.0.1.10:80 > 198.51.100.7:9999 ttl=1 flags=", "tcp 169.254.1.1:80 > 10.0.1.10:4000 ttl=1 flags="
	for _, st := range []step{
		{at: "uplink ingress", line: in + "S", reason: abi.ReasonStackTTL}, {at: "wl1 ingress", line: back + "SA", reason: abi.ReasonStackTTL},
		{at: "wl1 ingress", line: out + "S", reason: abi.ReasonLocal}, {at: "wl1 egress", line: answer + "SA", reason: abi.ReasonRuleAccept},
	} {
		s.try(b, g, st)
	}
	for _, test := range []struct{ name, at, line string }{
		{"uplink-ingress", "uplink ingress", in}, {"workload-ingress", "wl1 ingress", out},
		{"reply-at-workload-egress", "wl1 egress", answer},
	} {
		name, device := s.program(b, g, test.at)
		frame := frameOf(b, test.line+"A")
		copy(frame, device.HardwareAddr)
		const repeat = 2000 // short, for other work on the machine only adds
		best := time.Duration(1 << 40)
		for range 400 {
			began := time.Now()
			if _, err := g.Programs[name].Run(&ebpf.RunOptions{Data: frame, Repeat: repeat, Context: skBuff{Ifindex: uint32(device.Index)}}); err != nil {
				b.Fatal(err)
			}
			best = min(best, time.Since(began)/repeat)
		}
		b.ReportMetric(float64(best.Nanoseconds()), test.name+"-ns/packet")
	}
}
