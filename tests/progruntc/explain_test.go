package progruntc_test

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sluice/tc"
	"sluice/xdp/abi"
)

func TestExplainSaysWhatTheLiveProgramsWouldDo(t *testing.T) {
	s := newSite(t)
	const one = int(abi.PolicyWorkloads)
	tests := []struct {
		iface  string
		egress bool
		line   string
		want   tc.Explanation
	}{
		{"uplink", false, "tcp 198.51.100.7:9 > 10.0.1.10:80",
			tc.Explanation{Verdict: abi.FatePass, Reason: abi.ReasonDelivered, Rule: w1Web, Policy: one, RedirectTo: "wl1"}},
		{"uplink", false, "tcp 198.51.100.7:9 > 10.0.1.10:81",
			tc.Explanation{Verdict: abi.FateDrop, Reason: abi.ReasonDefaultDrop, Policy: one}},
		{"wl1", false, "udp 10.0.1.10:9 > 198.51.100.66:53",
			tc.Explanation{Verdict: abi.FateDrop, Reason: abi.ReasonRuleDrop, Rule: w1Bad, Policy: one + 1}},
		{"wl1", false, "udp 10.0.1.20:9 > 198.51.100.7:53",
			tc.Explanation{Verdict: abi.FateDrop, Reason: abi.ReasonWorkloadSpoofed, Policy: -1}},
		{"wl1", false, "udp 10.0.1.10:9 > 10.21.0.9:53",
			tc.Explanation{Verdict: abi.FatePass, Reason: abi.ReasonForwarded, Rule: w1Out, Policy: one + 1, RedirectTo: "tun0"}},
		{"tun0", false, "tcp 10.21.0.9:9 > 10.0.1.10:80",
			tc.Explanation{Verdict: abi.FateDrop, Reason: abi.ReasonForwardDenied, Rule: ingressWeb, Policy: int(abi.PolicyIngress)}},
		{"uplink", true, "udp 198.18.0.2:9 > 198.51.100.7:53",
			tc.Explanation{Verdict: abi.FatePass, Reason: abi.ReasonRuleAccept, Rule: egressDNS, Policy: int(abi.PolicyEgress)}},
		{"uplink", true, "udp 198.18.0.2:9 > 10.99.0.1:53",
			tc.Explanation{Verdict: abi.FateDrop, Reason: abi.ReasonStrictTunnel, Policy: -1}},
		{"uplink", false, "tcp 198.51.100.7:9 > 10.0.1.10:80 ttl=1",
			tc.Explanation{Verdict: abi.FateStack, Reason: abi.ReasonStackTTL, Rule: w1Web, Policy: one}},
	}
	for _, test := range tests {
		got, err := s.Explain(t.Context(), test.iface, test.egress, frameOf(t, test.line))
		if err != nil {
			t.Fatal(err)
		}
		test.want.Ifindex = uint32(index(t, test.iface).Index)
		if diff := cmp.Diff(test.want, got, cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
			t.Errorf("%s %s:\n%s", test.iface, test.line, diff)
		}
	}
	if flows, err := s.Flows(t.Context()); err != nil || len(flows) != 0 {
		t.Errorf("explaining left flows: %v, %v", flows, err)
	}
	if _, err := s.Explain(t.Context(), "zz9", false, frameOf(t, tests[0].line)); !errors.Is(err, tc.ErrNoInterface) {
		t.Errorf("an unknown interface: %v", err)
	}
	if _, err := s.Explain(t.Context(), "lo", false, frameOf(t, tests[0].line)); !errors.Is(err, tc.ErrNoGeneration) {
		t.Errorf("an interface without programs: %v", err)
	}
	if _, err := s.Explain(t.Context(), "uplink", false, nil); err == nil {
		t.Error("an empty frame was explained")
	}
}

// TestFlowsLiveAsLongAsTheirProtocolAllows ages entries in the table, since nobody waits two hours here.
func TestFlowsLiveAsLongAsTheirProtocolAllows(t *testing.T) {
	s := newSite(t)
	request := func(flags string) step {
		return step{at: "uplink ingress", line: "tcp 198.51.100.7:9999 > 10.0.1.10:80 flags=" + flags, reason: abi.ReasonDelivered, to: "wl1"}
	}
	reply := func(flags string, passes bool) step {
		st := step{at: "wl1 ingress", line: "tcp 10.0.1.10:80 > 198.51.100.7:9999 flags=" + flags, reason: abi.ReasonForwarded, to: "uplink"}
		if !passes {
			st.reason, st.to = abi.ReasonDefaultDrop, ""
		}
		return st
	}
	want := baseline()
	want.Generation.Workloads[0].Egress.Rules = nil // only replies pass
	s.converge(t, want)
	g := s.prepared(t, "uplink ingress", "wl1 ingress")

	// The clock goes on: what is to live has ten seconds left.
	tests := []struct {
		name  string
		steps []step
		idle  time.Duration
		state string
		lives bool
	}{
		{"a SYN waits a minute", []step{request("S")}, 50 * time.Second, "new", true},
		{"and no longer", []step{request("S")}, 61 * time.Second, "", false},
		{"unproven a minute", []step{request("S"), reply("SA", true)}, 61 * time.Second, "", false},
		{"established lives two hours", []step{request("S"), reply("A", true), request("A")}, 7430 * time.Second, "established", true},
		{"and a little", []step{request("S"), reply("A", true), request("A")}, 7441 * time.Second, "", false},
		{"half closed two minutes", []step{request("S"), reply("A", true), request("FA")}, 110 * time.Second, "closing", true},
		{"and then it is over", []step{request("S"), reply("A", true), request("FA")}, 121 * time.Second, "", false},
		{"a closed one half a minute", []step{request("S"), reply("FA", true), request("FA")}, 20 * time.Second, "closed", true},
		{"a reset one ten seconds", []step{request("S"), reply("SA", true), request("R")}, 11 * time.Second, "", false},
		{"the tuple used anew is a new flow", []step{request("S"), reply("SA", true), request("R"), request("S")}, 50 * time.Second, "new", true},
	}
	for _, test := range tests {
		s.sub(t, test.name, func(t *testing.T) {
			s.clearFlows(t)
			for _, st := range test.steps {
				s.try(t, g, st)
			}
			s.age(t, test.idle)
			flows, err := s.Flows(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if test.lives && (len(flows) != 1 || flows[0].State != test.state || flows[0].Source() != "198.51.100.7:9999" ||
				flows[0].Destination() != "10.0.1.10:80" || flows[0].ProtocolName() != "tcp" || flows[0].Idle < test.idle) {
				t.Errorf("flows %+v", flows)
			}
			if !test.lives && len(flows) != 0 {
				t.Errorf("flows %+v", flows)
			}
			s.try(t, g, reply("A", test.lives))
		})
	}
	s.sub(t, "what timed out begins anew", func(t *testing.T) {
		s.clearFlows(t)
		s.try(t, g, request("S"))
		s.try(t, g, reply("A", true))
		s.try(t, g, request("A"))
		s.age(t, 7441*time.Second)
		s.try(t, g, request("S"))
		if flows, err := s.Flows(t.Context()); err != nil || len(flows) != 1 || flows[0].State != "new" {
			t.Errorf("flows %+v, %v", flows, err)
		}
	})
}

// age makes every flow idle for so long.
func (s *site) age(t *testing.T, by time.Duration) {
	t.Helper()
	s.eachFlow(t, func(m *ebpf.Map, key abi.FlowKey, flow abi.Flow) {
		flow.LastNs -= uint64(by)
		if err := m.Put(key, flow); err != nil {
			t.Fatal(err)
		}
	})
}
