package progruntc_test

import (
	"slices"
	"structs"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"

	"sluice/tc"
	"sluice/xdp"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
)

// Ids of the limits, one for each policy; what goes beyond counts at 20 more.
const (
	limitIngress = 40 + iota
	limitEgress
	limitW1In
	limitW1Out
	limitPackets
)

const limitedPort = 5353

// limited puts a limit of two frames of a line before the rules of every policy. At one bit per second none comes again
// while a test runs. The last one counts packets, ten of them.
func limited(t *testing.T, line string) func(*tc.State) {
	t.Helper()
	burst := uint64(2 * len(frameOf(t, line)))
	return func(s *tc.State) {
		g := &s.Generation
		for i, p := range []*classify.Policy{&g.Ingress, &g.Egress, &g.Workloads[0].Ingress, &g.Workloads[0].Egress} {
			g.Limiters = append(g.Limiters, classify.Limiter{Rule: uint32(limitIngress + i), Beyond: uint32(limitIngress + i + 20), Rate: 1, Burst: burst, Bits: true,
				PerSource: i%2 == 1, IPv4Bits: 32, IPv6Bits: 128})
			rule := classify.Rule{ID: uint32(limitIngress + i), Name: "limit", Protocol: 17, Ports: ports(limitedPort, limitedPort),
				Action: classify.Limit, Argument: uint32(i)}
			p.Rules = append([]classify.Rule{rule}, p.Rules...)
		}
		g.Limiters = append(g.Limiters, classify.Limiter{Rule: limitPackets, Beyond: limitPackets + 20, Rate: 1, Burst: 600})
		w := &g.Workloads[0].Egress
		w.Rules = append([]classify.Rule{{ID: limitPackets, Name: "packets", Protocol: 6, Ports: ports(limitedPort, limitedPort),
			Action: classify.Limit, Argument: limitPackets - limitIngress}}, w.Rules...)
	}
}

func TestEveryPolicyLimits(t *testing.T) {
	const line = "udp 10.0.1.10:4000 > 198.51.100.7:5353"
	s := newSite(t, judged, limited(t, line))
	g := s.live(t)
	for _, c := range []struct {
		name    string
		passes  step
		another string // source
	}{
		{"policy.ingress, all sources together", step{at: "uplink ingress", line: "udp 198.51.100.7:4000 > 198.18.0.2:5353", reason: abi.ReasonLocal, rule: limitIngress}, ""},
		{"policy.egress, each source", step{at: "uplink egress", line: "udp 198.18.0.2:4000 > 198.51.100.9:5353", reason: abi.ReasonLimitAccept, rule: limitEgress},
			"udp 192.0.2.1:4000 > 198.51.100.9:5353"},
		{"a workload's ingress", step{at: "wl1 egress", line: "udp 198.18.0.2:4000 > 10.0.1.10:5353", reason: abi.ReasonLimitAccept, rule: limitW1In}, ""},
		{"a workload's egress, each source", step{at: "wl1 ingress", line: line, reason: abi.ReasonForwarded, to: "uplink", rule: limitW1Out},
			"udp [fd00:1::10]:4000 > [2001:db8:7::7]:5353"},
	} {
		s.sub(t, c.name, func(t *testing.T) {
			s.try(t, g, c.passes)
			s.try(t, g, c.passes)
			beyond := step{at: c.passes.at, line: c.passes.line, reason: abi.ReasonLimitDrop, rule: c.passes.rule}
			s.try(t, g, beyond)
			s.try(t, g, beyond)
			if c.another != "" {
				other := c.passes
				other.line = c.another
				s.try(t, g, other)
			}
		})
	}
	drops, err := s.beyond()
	if err != nil {
		t.Fatal(err)
	}
	size := uint64(len(frameOf(t, line)))
	want := map[uint32]tc.Count{}
	for id := uint32(limitIngress); id <= limitW1Out; id++ {
		want[id] = tc.Count{Packets: 2, Bytes: 2 * size}
	}
	if diff := cmp.Diff(want, drops); diff != "" {
		t.Errorf("beyond the limits (-want +got):\n%s", diff)
	}
}

// TestEveryPolicyCountsWhatAShadowLimitWouldDrop: the rule behind it, 40 above, has the packets.
func TestEveryPolicyCountsWhatAShadowLimitWouldDrop(t *testing.T) {
	const line = "udp 10.0.1.10:4000 > 198.51.100.7:5353"
	s := newSite(t, judged, limited(t, line), func(s *tc.State) {
		g := &s.Generation
		for i, p := range []*classify.Policy{&g.Ingress, &g.Egress, &g.Workloads[0].Ingress, &g.Workloads[0].Egress} {
			id := uint32(limitIngress + i)
			at := slices.IndexFunc(p.Rules, func(r classify.Rule) bool { return r.ID == id })
			p.Rules[at].Shadow = true
			p.Rules = slices.Insert(p.Rules, at+1, classify.Rule{ID: id + 40, Name: "behind", Protocol: 17, Action: classify.Accept})
		}
	})
	g := s.live(t)
	for _, st := range []step{
		{at: "uplink ingress", line: "udp 198.51.100.7:4000 > 198.18.0.2:5353", reason: abi.ReasonLocal, rule: limitIngress + 40},
		{at: "uplink egress", line: "udp 198.18.0.2:4000 > 198.51.100.9:5353", reason: abi.ReasonRuleAccept, rule: limitEgress + 40},
		{at: "wl1 egress", line: "udp 198.18.0.2:4000 > 10.0.1.10:5353", reason: abi.ReasonRuleAccept, rule: limitW1In + 40},
		{at: "wl1 ingress", line: line, reason: abi.ReasonForwarded, to: "uplink", rule: limitW1Out + 40},
	} {
		for range 3 {
			s.try(t, g, st)
		}
	}
	drops, err := s.beyond()
	if err != nil {
		t.Fatal(err)
	}
	want := map[uint32]tc.Count{}
	for id := uint32(limitIngress); id <= limitW1Out; id++ {
		want[id] = tc.Count{Packets: 1, Bytes: uint64(len(frameOf(t, line)))}
	}
	if diff := cmp.Diff(want, drops); diff != "" {
		t.Errorf("beyond the limits (-want +got):\n%s", diff)
	}
}

// TestOneBufferOfManyPacketsIsAsMany: what GSO joined is paid for by the packet. 600 are 13 buffers of 44, and one of 28.
func TestOneBufferOfManyPacketsIsAsMany(t *testing.T) {
	const line = "tcp 10.0.1.10:4000 > 198.51.100.7:5353"
	s := newSite(t, limited(t, line))
	g := s.live(t)
	name, device := s.program(t, g, "wl1 ingress")
	frame := frameOf(t, line)
	copy(frame, device.HardwareAddr)
	var ctx struct { // struct __sk_buff up to gso_size
		_ structs.HostLayout
		skBuff
		_       [30]uint32
		GSOSegs uint32
		_       [2]uint32
		GSOSize uint32
		_       [3]uint32
	}
	ctx.Ifindex, ctx.GSOSegs, ctx.GSOSize = uint32(device.Index), 44, 1448
	send := func() (passed int) {
		t.Helper()
		for range 20 {
			verdict, err := g.Programs[name].Run(&ebpf.RunOptions{Data: frame, Context: ctx})
			if err != nil {
				t.Fatal(err)
			}
			if verdict == tcxRedirect {
				passed++
			}
		}
		return passed
	}
	if passed := send(); passed != 13 {
		t.Errorf("%d buffers of 44 packets passed, want 13", passed)
	}
	// A VM's buffer says the size of its packets alone: here one byte, so the frame is as many as it is long.
	ctx.GSOSegs, ctx.GSOSize = 0, 1
	if passed := send(); passed != 0 {
		t.Errorf("%d buffers of %d packets passed, with 28 and a few seconds' left", passed, len(frame))
	}
}

// beyond is what was dropped beyond limits, by rule. A limit's other id is 20 above.
func (s *site) beyond() (map[uint32]tc.Count, error) {
	hits, err := xdp.RuleHits(s.dir)
	out := map[uint32]tc.Count{}
	for id := uint32(limitIngress); id <= limitPackets; id++ {
		if n := hits[id+20].Count; n.Packets > 0 {
			out[id] = n
		}
	}
	return out, err
}
