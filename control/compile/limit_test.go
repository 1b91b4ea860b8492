package compile

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/control/config"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
)

const limits = uplink + `policy:
  ingress:
    rules:
      - {name: a, action: drop}
      - {name: b, protocol: udp, action: limit, limit: {rate: 10kpps, burst: 20kp, per: source, ipv4_prefix: 24, ipv6_prefix: 56}}
      - {name: c, action: limit, limit: {rate: 1Gbps}, mode: shadow}
      - {name: d, action: limit, limit: {rate: 1Gbps, burst: 1MB}, log: {sample: 1000}}
  egress: {rules: [{name: b, action: limit, limit: {rate: 100pps, per: source}}]}
workloads:
  - {name: w, interface: w, addresses: [10.0.1.1], ingress: {rules: [{name: b, action: limit, limit: {rate: 8kbps}}]}}
  - {name: v, interface: v, addresses: [10.0.1.2], egress: {rules: [{name: b, action: limit, limit: {rate: 5Mpps}}]}}
`

// TestLimitersAreOneTableInWhichIngressComesFirst: both objects judge policy.ingress, by the same indexes.
func TestLimitersAreOneTableInWhichIngressComesFirst(t *testing.T) {
	d := compile(t, parse(t, limits), Runtime{RuleIDs: map[string]uint32{"ingress/b": 70, "ingress/b/beyond": 90}}, facts("eth0", "w", "v"))
	id := func(key string) uint32 {
		if d.RuleIDs[key] == 0 {
			t.Errorf("%s has no id", key)
		}
		return d.RuleIDs[key]
	}
	ingress := []classify.Limiter{
		{Rule: 70, Beyond: 90, Rate: 10_000, Burst: 20_000, PerSource: true, IPv4Bits: 24, IPv6Bits: 56},
		{Rule: id("ingress/c"), Beyond: id("ingress/c/beyond"), Rate: 1e9, Burst: 12_500_000, Bits: true, IPv4Bits: 32, IPv6Bits: 128}, // would
		{Rule: id("ingress/d"), Beyond: id("ingress/d/beyond"), Rate: 1e9, Burst: 1e6, Bits: true, IPv4Bits: 32, IPv6Bits: 128},
	}
	all := append(slices.Clone(ingress),
		classify.Limiter{Rule: id("egress/b"), Beyond: id("egress/b/beyond"), Rate: 100, Burst: 10, PerSource: true, IPv4Bits: 32, IPv6Bits: 64},
		classify.Limiter{Rule: id("workload/w/ingress/b"), Beyond: id("workload/w/ingress/b/beyond"), Rate: 8000, Burst: 15180, Bits: true, IPv4Bits: 32, IPv6Bits: 128},
		classify.Limiter{Rule: id("workload/v/egress/b"), Beyond: id("workload/v/egress/b/beyond"), Rate: 5e6, Burst: 500_000, IPv4Bits: 32, IPv6Bits: 128},
	)
	if diff := cmp.Diff(ingress, d.XDP.Generation.Limiters); diff != "" {
		t.Errorf("XDP (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(all, d.TC.Generation.Limiters); diff != "" {
		t.Errorf("tc (-want +got):\n%s", diff)
	}
	// Buckets are shared: both make room for the other's limits.
	if x, tc := d.XDP.Generation.LimitSlots, d.TC.Generation.LimitSlots; x != minSlots || tc != x {
		t.Errorf("room for %d and %d limits", x, tc)
	}
	far := compile(t, parse(t, limits), Runtime{RuleIDs: map[string]uint32{"workload/v/egress/b": 3000}}, facts("eth0", "w", "v"))
	none := compile(t, parse(t, uplink), Runtime{}, facts("eth0"))
	if far, none := far.XDP.Generation.LimitSlots, none.XDP.Generation.LimitSlots; far != 4096 || none != 0 {
		t.Errorf("room for %d limits where an id is 3000, and for %d where there is none", far, none)
	}
	for _, p := range append(d.TC.Generation.Policies(), d.XDP.Generation.Policies()...) {
		for _, r := range p.Rules {
			if r.Action == classify.Limit && all[r.Argument].Rule != r.ID {
				t.Errorf("%s/%s names the limiter of rule %d", p.Name, r.Name, all[r.Argument].Rule)
			}
			if want := map[string]uint32{"d": 1000}[r.Name]; r.Sample != want {
				t.Errorf("%s/%s logs one in %d, want %d", p.Name, r.Name, r.Sample, want)
			}
		}
	}
}

func TestABurstBelowOnePacketOfFullSizeIsWarnedOf(t *testing.T) {
	const never = "packets of full size never pass: they have %d bytes on %s, and the burst is of %d; write burst: %[1]dB or more"
	jumbo := "interfaces: [{name: eth0, role: uplink, addresses: [198.18.0.2/30]}, {name: eth1, role: uplink, mtu: 9000}, {name: eth2, role: downstream, mtu: 9500}]\n"
	for _, c := range []struct{ name, file, want string }{
		{"below", uplink + "policy: {ingress: {rules: [{name: r, action: limit, limit: {rate: 1Mbps, burst: 1500B}}]}}", "ingress/r: " + fmt.Sprintf(never, 1514, "eth0", 1500)},
		{"one packet", uplink + "policy: {ingress: {rules: [{name: r, action: limit, limit: {rate: 1Mbps, burst: 1514B}}]}}", ""},
		{"the least that the file gets by itself", uplink + "policy: {ingress: {rules: [{name: r, action: limit, limit: {rate: 1kbps}}]}}", ""},
		{"packets", uplink + "policy: {ingress: {rules: [{name: r, action: limit, limit: {rate: 1kpps, burst: 1p}}]}}", ""},
		{"the file's MTU", jumbo + "policy: {egress: {rules: [{name: r, action: limit, limit: {rate: 1Mbps, burst: 9kB}}]}}", "egress/r: " + fmt.Sprintf(never, 9014, "eth1", 9000)},
		{"of the interfaces of the rule", jumbo + "policy: {ingress: {rules: [{name: r, interfaces: [eth0], action: limit, limit: {rate: 1Mbps, burst: 9kB}}]}}", ""},
		{"of a workload", uplink + "workloads: [{name: w, interface: v, addresses: [10.0.1.1], egress: {rules: [{name: r, action: limit, limit: {rate: 1Mbps, burst: 1kB}}]}}]",
			"workload/w/egress/r: " + fmt.Sprintf(never, 1514, "v", 1000)},
	} {
		d := compile(t, parse(t, c.file), Runtime{}, facts("eth0", "eth1", "eth2", "v"))
		if got := strings.Join(d.Warnings, "\n"); got != c.want {
			t.Errorf("%s: warnings %q, want %q", c.name, got, c.want)
		}
	}
}

func TestOfTwoShadowRulesThatDoMoreThanCountTheFirstIsAsked(t *testing.T) {
	const limit = "action: limit, limit: {rate: 1kpps}, mode: shadow"
	for _, c := range []struct {
		name, first, second string
		warned              bool
	}{
		{"two limits", limit, limit, true},
		{"a log and a limit", "action: drop, mode: shadow, log: {sample: 1}", limit, true},
		{"a limit and a log", limit, "action: drop, mode: shadow, log: {sample: 1}", true},
		{"two logs", "action: drop, mode: shadow, log: {sample: 1}", "action: accept, mode: shadow, log: {sample: 1}", false},
		{"one that only counts", "action: drop, mode: shadow", limit, false},
		{"one that limits", strings.TrimSuffix(limit, ", mode: shadow"), limit, false},
	} {
		d := compile(t, parse(t, uplink+"policy: {ingress: {rules: [{name: a, protocol: udp, "+c.first+"}, {name: b, protocol: udp, "+c.second+"}]}}\n"), Runtime{}, facts("eth0"))
		var want []string
		if c.warned {
			want = []string{"ingress/b: in shadow mode it neither logs nor limits what a before it matches as well, which does so in shadow mode too"}
		}
		if diff := cmp.Diff(want, d.Warnings); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

func TestShadowRulesThatNoPacketMatchesBothOfAreNotWarnedOf(t *testing.T) {
	const second = "limit, limit: {rate: 1kpps}, mode: shadow"
	for _, c := range []struct {
		first, second string
		warned        bool
	}{
		{"protocol: udp", "protocol: tcp", false},
		{"protocol: udp", "ttl: 255", true},
		{"protocol: udp, ports: [53]", "protocol: udp, ports: [123, 500-600]", false},
		{"protocol: udp, ports: [53, 550]", "protocol: udp, ports: [123, 500-600]", true},
		{"protocol: udp, source_ports: [53]", "protocol: udp, source_ports: [54]", false},
		{"from: [192.0.2.0/24]", "from: [198.51.100.0/24]", false},
		{"from: [192.0.2.0/24]", "from: ['2001:db8::/32']", false},
		{"from: [192.0.2.0/24]", "from: [192.0.2.7]", true},
		{"to: [192.0.2.0/24]", "to: [198.51.100.0/24]", false},
		{"to: [192.0.2.0/24]", "from: [198.51.100.0/24]", true},
	} {
		d := compile(t, parse(t, uplink+"policy: {ingress: {rules: [{name: a, "+c.first+", action: drop, mode: shadow, log: {sample: 1}}, {name: b, "+c.second+", action: "+second+"}]}}\n"), Runtime{}, facts("eth0"))
		if warned := len(d.Warnings) > 0; warned != c.warned {
			t.Errorf("%s and %s: warnings %q, want some: %v", c.first, c.second, d.Warnings, c.warned)
		}
	}
}

// TestTheFileHasTheBoundsOfLimiters: config imports nothing of the data path, so it has them once more.
func TestTheFileHasTheBoundsOfLimiters(t *testing.T) {
	for _, c := range []struct {
		limit  string
		want   classify.Limiter
		beyond string
	}{
		{"rate: 1Gpps, burst: 86400Gp", classify.Limiter{Rate: classify.MaxPacketRate, Burst: classify.MaxPacketRate * classify.MaxBurstSeconds}, "rate: 1001Mpps"},
		{"rate: 400Gbps", classify.Limiter{Rate: classify.MaxBitRate}, "rate: 401Gbps"},
		{"rate: 1kbps", classify.Limiter{Rate: classify.MinBitRate}, "rate: 999bps"},
	} {
		yaml := func(limit string) string {
			return uplink + "policy: {ingress: {rules: [{name: a, action: limit, limit: {" + limit + "}}]}}\n"
		}
		got := compile(t, parse(t, yaml(c.limit)), Runtime{}, facts("eth0")).XDP.Generation.Limiters[0]
		if got.Rate != c.want.Rate || c.want.Burst != 0 && got.Burst != c.want.Burst {
			t.Errorf("%s: %+v, want %+v", c.limit, got, c.want)
		}
		if _, err := config.Parse(config.Source{Name: "edge.yaml", Bytes: []byte(yaml(c.beyond))}); err == nil {
			t.Errorf("%s is accepted", c.beyond)
		}
	}
}

func TestAnotherRateIsAnotherGeneration(t *testing.T) {
	digests := func(yaml string) [2]string {
		d := compile(t, parse(t, yaml), Runtime{}, facts("eth0", "w", "v"))
		return [2]string{d.XDP.Digest, d.TC.Digest}
	}
	before := digests(limits)
	if same := digests(limits); same != before {
		t.Errorf("the same file: %v, then %v", before, same)
	}
	if ingress := digests(strings.Replace(limits, "10kpps", "11kpps", 1)); ingress[0] == before[0] || ingress[1] == before[1] {
		t.Error("another rate in policy.ingress is not in both digests")
	}
	if egress := digests(strings.Replace(limits, "100pps", "101pps", 1)); egress[0] != before[0] || egress[1] == before[1] {
		t.Error("another rate in policy.egress concerns tc alone")
	}
}

func TestTooManyLimitsAreRefusedAtTheRule(t *testing.T) {
	yaml := uplink + "policy:\n  ingress:\n    rules:\n"
	for i := range abi.MaxLimiters + 2 {
		yaml += fmt.Sprintf("      - {name: r%d, from: [10.%d.%d.0/24], action: limit, limit: {rate: 1pps}}\n", i, i/256, i%256)
	}
	same(t, strings.Split(refusal(t, parse(t, yaml), facts("eth0")).Error(), "\n"),
		fmt.Sprintf("edge.yaml:%d:9: policy.ingress.rules[%d]: 4096 rules with action: limit come before it, and no more fit; let one rule limit per source, rather than one for each source",
			5+abi.MaxLimiters, abi.MaxLimiters))
}
