package tc

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sluice/xdp/abi"
	"sluice/xdp/table"
)

var queryWorkloads = []FlowWorkload{
	{Name: "web-1", Ifindex: 7, Addresses: []netip.Addr{netip.MustParseAddr("10.0.1.10"), netip.MustParseAddr("fd00:1::10")}},
	{Name: "web-2", Ifindex: 8, Addresses: []netip.Addr{netip.MustParseAddr("10.0.1.20")}},
}

// site is one flow of each kind.
func querySite(t *testing.T) *tables {
	x := newTables(t, 64, 64)
	web := nat(abi.Flow{State: uint8(abi.FlowEstablished), Flags: abi.FlowInside, Owner: 7, Rule: [2]uint32{3, 4},
		Sent: abi.FlowSide{Packets: 5, Bytes: 600}, Answered: abi.FlowSide{Packets: 7, Bytes: 800}}, 4000)
	key := x.put(table.Flows, "10.0.1.10:1000", "203.0.113.9:443", protoTCP, 3*time.Second, web)
	x.translate(key, web, uint64(x.now-int64(13*time.Second)))
	x.put(table.FreshOut, "10.0.1.20:5353", "198.18.0.53:53", protoUDP, 0, abi.Flow{Flags: abi.FlowInside, Owner: 8, Rule: [2]uint32{9, 0}})
	x.put(table.FreshIn, "203.0.113.7:9", "10.0.1.10:443", protoTCP, 0, abi.Flow{State: uint8(abi.FlowReplied), Rule: [2]uint32{0, 4}})
	x.put(table.Flows, "10.0.1.20:77", "10.0.1.10:80", protoTCP, 0, abi.Flow{State: uint8(abi.FlowClosing), Flags: abi.FlowInside, Owner: 8})
	x.put(table.FreshOut, "198.18.0.2:1", "203.0.113.9:0", protoICMP, 0, abi.Flow{Flags: abi.FlowInside, Judged: uint8(abi.ReasonFlowRevoked)})
	x.put(table.FreshIn, "[2001:db8::7]:1234", "[fd00:1::10]:443", protoTCP, 0, abi.Flow{})
	return x
}

func names(list []Flow) (out []string) {
	for _, f := range list {
		out = append(out, f.ProtocolName()+" "+f.Source()+" > "+f.Destination())
	}
	return out
}

func TestAFlowIsToldWhole(t *testing.T) {
	x := querySite(t)
	list, err := x.SelectFlows(t.Context(), FlowQuery{Protocol: protoTCP, Translated: true, Workloads: queryWorkloads})
	if err != nil || len(list.Flows) != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	want := Flow{
		Origin: "inside", Protocol: protoTCP, Src: netip.MustParseAddr("10.0.1.10"), Dst: netip.MustParseAddr("203.0.113.9"), SrcPort: 1000, DstPort: 443,
		Translated: netip.MustParseAddrPort("198.18.0.2:4000"), State: "established", Sent: Count{Packets: 5, Bytes: 600},
		Answered: Count{Packets: 7, Bytes: 800}, Rules: [2]uint32{3, 4}, Owner: 7, Workload: "web-1",
	}
	got := list.Flows[0]
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Flow{}), cmpopts.IgnoreFields(Flow{}, "Age", "Idle"),
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("flow (-want +got):\n%s", diff)
	}
	if got.Idle < 3*time.Second || got.Age-got.Idle != 10*time.Second || got.Wire() != "198.18.0.2:4000" {
		t.Errorf("idle %v, age %v, on the wire %s", got.Idle, got.Age, got.Wire())
	}
}

func TestQueriesChooseFlows(t *testing.T) {
	const (
		web    = "tcp 10.0.1.10:1000 > 203.0.113.9:443"
		dns    = "udp 10.0.1.20:5353 > 198.18.0.53:53"
		in     = "tcp 203.0.113.7:9 > 10.0.1.10:443"
		inside = "tcp 10.0.1.20:77 > 10.0.1.10:80"
		echo   = "icmp 198.18.0.2 > 203.0.113.9"
		in6    = "tcp [2001:db8::7]:1234 > [fd00:1::10]:443"
	)
	x := querySite(t)
	for _, c := range []struct {
		name string
		q    FlowQuery
		want []string
	}{
		{"all", FlowQuery{}, []string{echo, web, inside, dns, in, in6}},
		{"an address", FlowQuery{Prefix: netip.MustParsePrefix("10.0.1.20/32")}, []string{inside, dns}},
		{"a prefix", FlowQuery{Prefix: netip.MustParsePrefix("203.0.113.0/29")}, []string{in}},
		{"an IPv6 prefix", FlowQuery{Prefix: netip.MustParsePrefix("2001:db8::/32")}, []string{in6}},
		{"what one is translated to", FlowQuery{Prefix: netip.MustParsePrefix("198.18.0.2/32")}, []string{echo, web}},
		{"a port", FlowQuery{Port: 443}, []string{web, in, in6}},
		{"a translated port", FlowQuery{Port: 4000}, []string{web}},
		{"a protocol", FlowQuery{Protocol: protoUDP}, []string{dns}},
		{"a state", FlowQuery{State: "revoked"}, []string{echo}},
		{"a rule on either side", FlowQuery{Rule: 4}, []string{web, in}},
		{"translated ones", FlowQuery{Translated: true}, []string{web}},
		{"a workload", FlowQuery{Workload: "web-1", Workloads: queryWorkloads}, []string{web, inside, in, in6}},
		{"one that opened what another one owns", FlowQuery{Workload: "web-2", Workloads: queryWorkloads}, []string{inside, dns}},
		{"all that is asked for", FlowQuery{Workload: "web-1", Port: 443, State: "new", Workloads: queryWorkloads}, []string{in6}},
		{"nothing", FlowQuery{Port: 444}, nil},
		{"the first two", FlowQuery{Limit: 2}, []string{echo, web}},
	} {
		t.Run(c.name, func(t *testing.T) {
			list, err := x.SelectFlows(t.Context(), c.q)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, names(list.Flows)); diff != "" {
				t.Errorf("chosen (-want +got):\n%s", diff)
			}
			if c.q.Limit == 0 && list.Total != len(c.want) || c.q.Limit != 0 && list.Total != 6 {
				t.Errorf("%d in all", list.Total)
			}
		})
	}
	list, err := x.SelectFlows(t.Context(), FlowQuery{Workloads: queryWorkloads, Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]int{"established": 1, "new": 2, "replied": 1, "closing": 1, "revoked": 1}, list.States); diff != "" {
		t.Errorf("states:\n%s", diff)
	}
	if diff := cmp.Diff(map[string]int{"web-1": 3, "web-2": 2, "": 1}, list.Workloads); diff != "" {
		t.Errorf("workloads:\n%s", diff)
	}
}

func TestALimitHoldsAFewOfMany(t *testing.T) {
	x := newTables(t, 20000, 64)
	x.fill(table.Flows, 20000, abi.Flow{LastNs: uint64(x.now), SinceNs: uint64(x.now)})
	all, err := x.SelectFlows(t.Context(), FlowQuery{})
	if err != nil || all.Total != 20000 {
		t.Fatalf("%d, %v", all.Total, err)
	}
	few, err := x.SelectFlows(t.Context(), FlowQuery{Limit: 10})
	if err != nil || few.Total != 20000 || !slices.Equal(names(few.Flows), names(all.Flows)[:10]) {
		t.Errorf("%d in all, %q (%v), want the first of %q", few.Total, names(few.Flows), err, names(all.Flows)[:10])
	}
}

// A flow that is proven stands in two tables for a moment.
func TestAFlowInTwoTablesIsOne(t *testing.T) {
	x := newTables(t, 64, 64)
	for _, name := range []string{table.Flows, table.FreshOut} {
		x.put(name, "10.0.1.10:1", "203.0.113.9:443", protoTCP, 0, abi.Flow{Flags: abi.FlowInside})
	}
	list, err := x.SelectFlows(t.Context(), FlowQuery{})
	if err != nil || list.Total != 1 || len(list.Flows) != 1 || list.States["new"] != 1 {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestFlowsAreClearedWithTheirTranslations(t *testing.T) {
	x := querySite(t)
	n, err := x.ClearFlows(t.Context(), FlowQuery{Workload: "web-1", Port: 443, Workloads: queryWorkloads})
	if err != nil || n != 3 {
		t.Errorf("%d, %v", n, err)
	}
	left, err := x.Flows(t.Context())
	if got := strings.Join(names(left), ", "); err != nil || got != "icmp 198.18.0.2 > 203.0.113.9, tcp 10.0.1.20:77 > 10.0.1.10:80, udp 10.0.1.20:5353 > 198.18.0.53:53" {
		t.Errorf("left are %s (%v)", got, err)
	}
	var key abi.FlowKey
	var way abi.Translation
	if all := x.on[table.Translations].Iterate(); all.Next(&key, &way) {
		t.Errorf("a translation is left: %+v", way)
	}
	if n, err := x.ClearFlows(t.Context(), FlowQuery{}); n != 3 || err != nil {
		t.Errorf("the rest: %d, %v", n, err)
	}
}

// A port that another flow has by now is not taken from it.
func TestClearingLeavesTheTranslationOfAnotherFlow(t *testing.T) {
	x := newTables(t, 64, 64)
	f := nat(abi.Flow{Flags: abi.FlowInside}, 4000)
	x.put(table.Flows, "10.0.1.10:1", "203.0.113.9:443", protoTCP, 0, f)
	other := x.put(table.Flows, "10.0.1.10:2", "203.0.113.9:443", protoTCP, 0, f)
	wire := x.translate(other, f, 1)
	if n, err := x.ClearFlows(t.Context(), FlowQuery{Port: 1}); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	var way abi.Translation
	if err := x.on[table.Translations].Lookup(wire, &way); errors.Is(err, ebpf.ErrKeyNotExist) {
		t.Error("it is gone")
	}
}
