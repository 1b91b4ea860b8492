package progruntc_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"sluice/tc"
	"sluice/xdp"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
	"sluice/xdp/pin"
)

// flowTables are the pins of the three, in the order in which a flow is looked up.
var flowTables = []string{"flows", "fresh-out", "fresh-in"}

func (s *site) flowTable(t testing.TB, name string) *ebpf.Map {
	t.Helper()
	m, err := ebpf.LoadPinnedMap(pin.At(s.dir).StateMapPath(name, 3), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// eachFlow calls f for every entry, of which it may change or delete that one.
func (s *site) eachFlow(t testing.TB, f func(*ebpf.Map, abi.FlowKey, abi.Flow)) {
	t.Helper()
	for _, name := range flowTables {
		m := s.flowTable(t, name)
		found := map[abi.FlowKey]abi.Flow{}
		var key abi.FlowKey
		var flow abi.Flow
		entries := m.Iterate()
		for entries.Next(&key, &flow) {
			found[key] = flow
		}
		for key, flow := range found {
			f(m, key, flow)
		}
	}
}

// clearFlows forgets every flow.
func (s *site) clearFlows(t *testing.T) {
	t.Helper()
	s.eachFlow(t, func(m *ebpf.Map, key abi.FlowKey, _ abi.Flow) {
		if err := m.Delete(key); err != nil {
			t.Fatal(err)
		}
	})
	if flows, err := s.Flows(context.Background()); err != nil || len(flows) != 0 {
		t.Fatalf("flows %v: %v", flows, err)
	}
}

// flow is the entry of a flow and the table in which it stands: "" where there is none. It stands in one alone.
func (s *site) flow(t testing.TB, src string, sport uint16, dst string, dport uint16, protocol uint8) (where string, flow abi.Flow) {
	t.Helper()
	key, _ := abi.KeyOf(netip.MustParseAddr(src), netip.MustParseAddr(dst), sport, dport, protocol)
	for _, name := range flowTables {
		var found abi.Flow
		if s.flowTable(t, name).Lookup(key, &found) != nil {
			continue
		}
		if where != "" {
			t.Errorf("the flow stands in %s and in %s", where, name)
		}
		where, flow = name, found
	}
	return where, flow
}

// web is a packet of a TCP flow that the outside opens to workload 1, or with w1 one that it opens itself.
func web(flags string) step {
	return step{at: "uplink ingress", line: "tcp 198.51.100.7:9999 > 10.0.1.10:80 flags=" + flags, reason: abi.ReasonDelivered, to: "wl1"}
}

func webReply(flags string) step {
	return step{at: "wl1 ingress", line: "tcp 10.0.1.10:80 > 198.51.100.7:9999 flags=" + flags, reason: abi.ReasonForwarded, to: "uplink"}
}

func (st step) numbered(seq, ack uint32) step {
	st.seq, st.ack = seq, ack
	return st
}

func (st step) later(idle time.Duration) step {
	st.idle = idle
	return st
}

func (st step) dropped(reason abi.Reason) step {
	st.reason, st.to, st.rule = reason, "", 0
	return st
}

func (s *site) webFlow(t testing.TB) (string, abi.Flow) {
	t.Helper()
	return s.flow(t, client4, 9999, w1v4, 80, 6)
}

func TestATCPFlowIsProvenByTheNumberThatOnlyItsOpenerCanKnow(t *testing.T) {
	s := newSite(t)
	g := s.prepared(t, "uplink ingress", "wl1 ingress")
	for _, test := range []struct {
		name  string
		steps []step
		where string
		state abi.FlowState
	}{
		{"a SYN alone", []step{web("S").numbered(100, 0)}, "fresh-in", abi.FlowNew},
		{"a SYN again", []step{web("S").numbered(100, 0), web("S").numbered(100, 0)}, "fresh-in", abi.FlowNew},
		{"answered", []step{web("S"), webReply("SA").numbered(5000, 101)}, "fresh-in", abi.FlowReplied},
		{"who sees no answer guesses", []step{web("S"), webReply("SA").numbered(5000, 101), web("A").numbered(101, 5000)}, "fresh-in", abi.FlowReplied},
		{"or guesses high", []step{web("S"), webReply("SA").numbered(5000, 101), web("A").numbered(101, 70000)}, "fresh-in", abi.FlowReplied},
		{"a SYN proves nothing", []step{web("S"), webReply("SA").numbered(5000, 101), web("S").numbered(100, 5001)}, "fresh-in", abi.FlowReplied},
		{"who sees it acknowledges it", []step{web("S"), webReply("SA").numbered(5000, 101), web("A").numbered(101, 5001)}, "flows", abi.FlowEstablished},
		{"across the end of the number space", []step{web("S"), webReply("SA").numbered(0xffffffff, 101), web("A").numbered(101, 0)}, "flows", abi.FlowEstablished},
		{"with data at once", []step{web("S"), webReply("SA").numbered(5000, 101), web("PA").numbered(101, 5001)}, "flows", abi.FlowEstablished},
		{"the answer of a server that was started anew counts", []step{web("S"), webReply("SA").numbered(5000, 101), webReply("SA").numbered(9000, 101),
			web("A").numbered(101, 9001)}, "flows", abi.FlowEstablished},
		{"picked up in the midst", []step{web("A"), webReply("A"), web("A")}, "flows", abi.FlowEstablished},
		{"picked up, and refused", []step{web("A"), webReply("R"), web("A").later(2 * time.Second)}, "fresh-in", abi.FlowNew},
		{"both open at once", []step{web("S").numbered(100, 0), webReply("S").numbered(5000, 0), web("SA").numbered(100, 5001)}, "flows", abi.FlowEstablished},
	} {
		s.sub(t, test.name, func(t *testing.T) {
			s.clearFlows(t)
			for _, st := range test.steps {
				s.age(t, st.idle)
				s.try(t, g, st)
			}
			where, flow := s.webFlow(t)
			if where != test.where || abi.FlowState(flow.State) != test.state {
				t.Errorf("it stands in %q with state %d, want %q with %d: %+v", where, flow.State, test.where, test.state, flow)
			}
		})
	}
}

func TestOtherProtocolsAreProvenByAnAnswerToTheInside(t *testing.T) {
	s := newSite(t, func(want *tc.State) {
		w := &want.Generation.Workloads[0]
		w.Ingress.Rules = append(w.Ingress.Rules, classify.Rule{ID: 90, Name: "udp", Protocol: 17, Action: classify.Accept})
	})
	g := s.live(t)
	udp := func(to uint16) (string, abi.Flow) { return s.flow(t, w1v4, 4000, client4, to, 17) }
	s.try(t, g, step{at: "wl1 ingress", line: "udp 10.0.1.10:4000 > 198.51.100.7:53", reason: abi.ReasonForwarded, to: "uplink"})
	where, flow := udp(53)
	if where != "fresh-out" || flow.State != uint8(abi.FlowNew) || flow.Flags&abi.FlowInside == 0 || flow.Owner != uint32(index(t, "wl1").Index) {
		t.Errorf("asked: in %s, %+v", where, flow)
	}
	s.try(t, g, step{at: "uplink ingress", line: "udp 198.51.100.7:53 > 10.0.1.10:4000", reason: abi.ReasonDelivered, to: "wl1"})
	if where, flow = udp(53); where != "flows" || flow.State != uint8(abi.FlowEstablished) || flow.Sent.Packets != 1 || flow.Answered.Packets != 1 ||
		flow.Answered.Bytes != uint64(len(frameOf(t, "udp 198.51.100.7:53 > 10.0.1.10:4000"))) {
		t.Errorf("answered: in %s, %+v", where, flow)
	}
	s.try(t, g, step{at: "uplink ingress", line: "udp 198.51.100.7:54 > 10.0.1.10:4000", reason: abi.ReasonDelivered, to: "wl1"})
	s.try(t, g, step{at: "wl1 ingress", line: "udp 10.0.1.10:4000 > 198.51.100.7:54", reason: abi.ReasonForwarded, to: "uplink"})
	if where, flow = udp(54); where != "fresh-in" || flow.State != uint8(abi.FlowReplied) || flow.Owner != 0 {
		t.Errorf("asked by the outside: in %s, %+v", where, flow)
	}
	for range 2 { // each has an id of its own in its direction
		s.try(t, g, step{at: "wl1 ingress", line: "icmp 10.0.1.10 > 198.51.100.7 type=8 id=7", reason: abi.ReasonForwarded, to: "uplink"})
		s.try(t, g, step{at: "uplink ingress", line: "icmp 198.51.100.7 > 10.0.1.10 type=0 id=7", reason: abi.ReasonDelivered, to: "wl1"})
	}
	if where, flow = s.flow(t, w1v4, 7, client4, 0, 1); where != "flows" || flow.Sent.Packets != 2 || flow.Answered.Packets != 2 {
		t.Errorf("a ping: in %s, %+v", where, flow)
	}
}

func TestTheEndOfATCPFlow(t *testing.T) {
	s := newSite(t)
	g := s.prepared(t, "uplink ingress", "wl1 ingress")
	open := []step{web("S").numbered(100, 0), webReply("SA").numbered(5000, 101), web("A").numbered(101, 5001)}
	for _, test := range []struct {
		name   string
		steps  []step
		where  string
		state  abi.FlowState
		opener string
	}{
		{"one FIN", []step{web("FA")}, "flows", abi.FlowClosing, client4},
		{"a FIN twice", []step{web("FA"), web("FA")}, "flows", abi.FlowClosing, client4},
		{"both FINs, and what is late", []step{web("FA"), webReply("FA"), web("A")}, "flows", abi.FlowClosed, client4},
		{"a RST", []step{webReply("R")}, "flows", abi.FlowClosed, client4},
		{"what crosses with a RST", []step{web("R"), webReply("A"), web("A")}, "flows", abi.FlowClosed, client4},
		{"a RST that a stranger sent: the flow goes on", []step{web("R"), webReply("A").later(2 * time.Second), web("A")}, "flows", abi.FlowEstablished, client4},
		{"a RST behind both FINs is no reason to go on", []step{web("FA"), webReply("FA"), web("R"), webReply("A")}, "flows", abi.FlowClosed, client4},
		{"the port used again", []step{web("FA"), webReply("FA"), web("S").numbered(900, 0)}, "fresh-in", abi.FlowNew, client4},
		{"used again behind a RST", []step{webReply("R"), web("S").numbered(900, 0)}, "fresh-in", abi.FlowNew, client4},
		{"opened by the other end", []step{web("FA"), webReply("FA"), webReply("S").numbered(900, 0)}, "fresh-out", abi.FlowNew, w1v4},
		{"a SYN in its midst changes nothing", []step{web("S").numbered(900, 0)}, "flows", abi.FlowEstablished, client4},
	} {
		s.sub(t, test.name, func(t *testing.T) {
			for tries := 0; ; tries++ {
				began := time.Now()
				s.clearFlows(t)
				for _, st := range append(append([]step{}, open...), test.steps...) {
					s.age(t, st.idle)
					s.try(t, g, st)
				}
				if time.Since(began) < time.Second || tries == 10 { // else a RST was not answered in time
					break
				}
			}
			where, flow := s.webFlow(t)
			_, opener := abi.KeyOf(netip.MustParseAddr(test.opener), netip.MustParseAddr(other(test.opener)), portOf(test.opener), portOf(other(test.opener)), 6)
			if where != test.where || abi.FlowState(flow.State) != test.state || int(flow.Opener) != opener {
				t.Errorf("in %q with state %d, want %q with %d, opened by end %d: %+v", where, flow.State, test.where, test.state, opener, flow)
			}
			if test.state == abi.FlowNew && ((flow.Sent.Packets != 1 || flow.Answered != abi.FlowSide{}) || flow.Flags&^abi.FlowInside != 0) {
				t.Errorf("the new flow has something of the old one: %+v", flow)
			}
		})
	}
}

func other(end string) string {
	if end == client4 {
		return w1v4
	}
	return client4
}

func portOf(end string) uint16 {
	if end == client4 {
		return 9999
	}
	return 80
}

// TestARSTOpensNothing: nor does what policy drops.
func TestARSTOpensNothing(t *testing.T) {
	s := newSite(t)
	g := s.live(t)
	s.try(t, g, web("R"))
	s.try(t, g, step{at: "uplink ingress", line: "tcp 198.51.100.7:9999 > 10.0.1.10:81", reason: abi.ReasonDefaultDrop})
	if flows, err := s.Flows(t.Context()); err != nil || len(flows) != 0 {
		t.Errorf("flows %+v: %v", flows, err)
	}
}

// TestIdleTimes writes entries of every kind, and asks with a reply to each whether it lives.
func TestIdleTimes(t *testing.T) {
	s := newSite(t)
	g := s.prepared(t, "uplink ingress")
	line := map[uint8]string{6: "tcp 198.51.100.7:53 > 10.0.1.10:4000 flags=A", 17: "udp 198.51.100.7:53 > 10.0.1.10:4000",
		1: "icmp 198.51.100.7 > 10.0.1.10 type=0 id=4000", 132: "sctp 198.51.100.7:53 > 10.0.1.10:4000"}
	for _, test := range []struct {
		protocol uint8
		flow     abi.Flow
		seconds  time.Duration
	}{
		{6, abi.Flow{State: uint8(abi.FlowNew)}, 60}, {6, abi.Flow{State: uint8(abi.FlowReplied)}, 60},
		{6, abi.Flow{State: uint8(abi.FlowEstablished)}, 7440}, {6, abi.Flow{State: uint8(abi.FlowClosing)}, 120},
		{6, abi.Flow{State: uint8(abi.FlowClosed)}, 30}, {6, abi.Flow{State: uint8(abi.FlowClosed), Flags: abi.FlowRst}, 10},
		{17, abi.Flow{State: uint8(abi.FlowNew)}, 60}, {17, abi.Flow{State: uint8(abi.FlowReplied)}, 180},
		{17, abi.Flow{State: uint8(abi.FlowEstablished)}, 180}, {1, abi.Flow{State: uint8(abi.FlowEstablished)}, 30},
		{132, abi.Flow{State: uint8(abi.FlowNew)}, 60}, {132, abi.Flow{State: uint8(abi.FlowEstablished)}, 600},
	} {
		for _, late := range []time.Duration{-min(10, test.seconds/2), 2} { // what is to live has room for a test that is held up
			var now unix.Timespec
			if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
				t.Fatal(err)
			}
			dport := uint16(53)
			if test.protocol == 1 {
				dport = 0
			}
			key, opener := abi.KeyOf(netip.MustParseAddr(w1v4), netip.MustParseAddr(client4), 4000, dport, test.protocol)
			flow := test.flow
			flow.LastNs, flow.Opener, flow.Flags = uint64(now.Nano())-uint64((test.seconds+late)*time.Second), uint8(opener), flow.Flags|abi.FlowInside
			if err := s.flowTable(t, "flows").Put(key, flow); err != nil {
				t.Fatal(err)
			}
			st := step{at: "uplink ingress", line: line[test.protocol], reason: abi.ReasonDelivered, to: "wl1"}
			if late > 0 {
				st = st.dropped(abi.ReasonDefaultDrop)
			}
			t.Logf("protocol %d, state %d: %d s", test.protocol, test.flow.State, test.seconds+late)
			s.try(t, g, st)
		}
	}
}

// TestRulesCountEveryPacketThoughFewAreJudged: remembered, the first direction counts as if it were asked about.
func TestRulesCountEveryPacketThoughFewAreJudged(t *testing.T) {
	const w2Default = 91
	s := newSite(t, open(tc.RoleWorkload, tc.RoleWorkload), func(want *tc.State) {
		g := &want.Generation
		g.Workloads[1].Egress.Rules, g.Workloads[1].Egress.Default, g.Workloads[1].Egress.DefaultID = nil, classify.Accept, w2Default
	})
	g := s.live(t)
	line := "tcp 10.0.1.20:4000 > 10.0.1.10:80 flags="
	s.try(t, g, step{at: "wl2 ingress", line: line + "S", reason: abi.ReasonDelivered, to: "wl1", rule: w1Web})
	s.try(t, g, step{at: "wl1 ingress", line: "tcp 10.0.1.10:80 > 10.0.1.20:4000 flags=SA", reason: abi.ReasonDelivered, to: "wl2"})
	for range 10 {
		s.try(t, g, step{at: "wl2 ingress", line: line + "A", reason: abi.ReasonDelivered, to: "wl1", rule: w1Web})
	}
	_, flow := s.flow(t, w2v4, 4000, w1v4, 80, 6)
	if flow.Epoch == 0 || flow.Flags&abi.FlowAsk != 0 || flow.Rule != [2]uint32{w2Default, w1Web} || abi.Reason(flow.Judged) != abi.ReasonRuleAccept ||
		flow.At != uint32(index(t, "wl2").Index) || flow.In != flow.At || flow.Owner != flow.At {
		t.Errorf("nothing is remembered: %+v", flow)
	}
	hits, err := xdp.RuleHits(s.dir)
	if err != nil || hits[w1Web].Packets != 11 || hits[w2Default].Packets != 11 || hits[w1Web].Bytes != flow.Sent.Bytes {
		t.Errorf("11 packets: rule %+v, default %+v, flow %+v: %v", hits[w1Web], hits[w2Default], flow, err)
	}
}

// TestWhatDependsOnThePacketIsNotRemembered: conditions beyond those of a flow, limits, logs and shadow rules.
func TestWhatDependsOnThePacketIsNotRemembered(t *testing.T) {
	for _, test := range []struct {
		name string
		rule classify.Rule
		sees bool
	}{
		{"TCP flags", classify.Rule{Protocol: 6, TCPMask: 1, TCPFlags: 1, Action: classify.Drop}, true},
		{"a length", classify.Rule{Protocol: classify.AnyProtocol, Lengths: []classify.Range{{First: 60, Last: 65535}}, Action: classify.Drop}, true},
		{"a DSCP", classify.Rule{Protocol: classify.AnyProtocol, DSCP: 1 << 46, Action: classify.Drop}, true},
		{"a TTL", classify.Rule{Protocol: classify.AnyProtocol, TTL: 9, Action: classify.Drop}, true},
		{"a log", classify.Rule{Protocol: 17, Sample: 1, Action: classify.Accept}, false},
		{"a shadow rule", classify.Rule{Protocol: 17, Shadow: true, Action: classify.Drop}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newSite(t, func(want *tc.State) {
				test.rule.ID, test.rule.Name = 90, "first"
				w := &want.Generation.Workloads[0].Ingress
				w.Rules = append([]classify.Rule{test.rule}, w.Rules...)
			})
			g := s.live(t)
			for _, flags := range []string{"S", "A", "A"} {
				s.try(t, g, web(flags))
			}
			_, flow := s.webFlow(t)
			if flow.Flags&abi.FlowAsk == 0 || (flow.Epoch == 0) != test.sees {
				t.Errorf("remembered: %+v", flow)
			}
			switch test.name {
			case "TCP flags":
				s.try(t, g, web("F").dropped(abi.ReasonRuleDrop))
			case "a length":
				st := web("A").dropped(abi.ReasonRuleDrop)
				st.line += " len=100"
				s.try(t, g, st)
			case "a TTL":
				st := web("A").dropped(abi.ReasonRuleDrop)
				st.line += " ttl=9"
				s.try(t, g, st)
			}
			s.try(t, g, webReply("A")) // the drop of one packet revokes nothing
			s.try(t, g, web("A"))
		})
	}
}
