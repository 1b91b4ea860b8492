package compile

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/xdp/classify"
)

func TestConditionsOfARuleAreResolved(t *testing.T) {
	d := compile(t, parse(t, uplink+`
policy:
  ingress:
    rules:
      - {name: flags, protocol: tcp, tcp_flags: [syn, "!ack", "!rst"], action: drop}
      - {name: icmp, protocol: icmp, icmp_types: [echo-request, 13, "3/4", port-unreachable], action: drop}
      - {name: icmpv6, protocol: icmpv6, icmp_types: [echo-request, packet-too-big, port-unreachable], action: drop}
      - {name: ip, vlan: [100, 200-299, untagged], length: [20-128, 1500], dscp: [ef, af41, cs1, 0], ttl: 255, fragment: whole, action: drop}
      - {name: fragmented, fragment: fragmented, action: drop}
      - {name: first, fragment: first, action: drop}
      - {name: later, fragment: later, action: drop}
`), Runtime{}, eth0)
	kind := func(t, first, last uint8) classify.ICMPRange {
		return classify.ICMPRange{TypeFirst: t, TypeLast: t, CodeFirst: first, CodeLast: last}
	}
	want := []classify.Rule{
		{Name: "flags", Protocol: 6, TCPMask: 0x16, TCPFlags: 0x02},
		{Name: "icmp", Protocol: 1, ICMPTypes: []classify.ICMPRange{kind(8, 0, 255), kind(13, 0, 255), kind(3, 4, 4), kind(3, 3, 3)}},
		{Name: "icmpv6", Protocol: 58, ICMPTypes: []classify.ICMPRange{kind(128, 0, 255), kind(2, 0, 255), kind(1, 4, 4)}},
		{Name: "ip", Protocol: classify.AnyProtocol, VLANs: []classify.Range{{First: 100, Last: 100}, {First: 200, Last: 299}, {}},
			Lengths: []classify.Range{{First: 20, Last: 128}, {First: 1500, Last: 1500}}, DSCP: 1<<46 | 1<<34 | 1<<8 | 1, TTL: 255,
			Fragment: classify.FragmentNo},
		{Name: "fragmented", Protocol: classify.AnyProtocol, Fragment: classify.FragmentYes},
		{Name: "first", Protocol: classify.AnyProtocol, Fragment: classify.FragmentInitial},
		{Name: "later", Protocol: classify.AnyProtocol, Fragment: classify.FragmentLater},
	}
	for i := range want {
		want[i].ID, want[i].Action = uint32(i+1), classify.Drop
	}
	if diff := cmp.Diff(want, d.XDP.Generation.Ingress.Rules, comparers); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
}

// TestARuleFollowsItsInterfaces: one that is not there matches nothing, and one that comes back with another index makes
// another generation.
func TestARuleFollowsItsInterfaces(t *testing.T) {
	cfg := parse(t, uplink+tunnel("t")+`
policy:
  ingress: {rules: [{name: r, interfaces: [t, eth0], action: drop}, {name: t, interfaces: [t], action: drop}]}
  egress: {rules: [{name: r, interfaces: [eth0], action: drop}]}
`)
	on := func(list ...classify.Interface) []classify.Interface { return list }
	var before string
	for _, c := range []struct {
		facts   Facts
		want    []classify.Interface
		entries int // of r and t, and of r in policy.egress: both objects have the same tables
	}{
		{facts("eth0"), on(classify.Interface{Name: "t"}, classify.Interface{Name: "eth0", Index: 1}), 2},
		{facts("eth0", "t"), on(classify.Interface{Name: "t", Index: 2}, classify.Interface{Name: "eth0", Index: 1}), 4},
		{facts("t", "eth0"), on(classify.Interface{Name: "t", Index: 1}, classify.Interface{Name: "eth0", Index: 2}), 4},
	} {
		d := compile(t, cfg, Runtime{}, c.facts)
		if diff := cmp.Diff(c.want, rule(t, d.XDP.Generation.Ingress, "r").Interfaces); diff != "" {
			t.Errorf("interfaces (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(c.want[1:], rule(t, d.TC.Generation.Egress, "r").Interfaces); diff != "" {
			t.Errorf("interfaces of policy.egress (-want +got):\n%s", diff)
		}
		n := 0
		for _, r := range d.XDP.Generation.Tables.Rules {
			if r.Ifindex != 0 {
				n++
			}
		}
		if n != c.entries {
			t.Errorf("%d entries, want %d", n, c.entries)
		}
		if d.XDP.Digest == before {
			t.Error("the generation is the same as before")
		}
		before = d.XDP.Digest
	}
}
