package progruntc_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"sluice/tc"
	"sluice/xdp"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
)

// established brings the web flow into the table of proven ones, and both its directions onto the short way.
func (s *site) established(t *testing.T) {
	t.Helper()
	g := s.live(t)
	for _, st := range []step{web("S").numbered(100, 0), webReply("SA").numbered(5000, 101), web("A").numbered(101, 5001), web("A"), webReply("A")} {
		s.try(t, g, st)
	}
	uplink, wl1 := uint32(index(t, "uplink").Index), uint32(index(t, "wl1").Index)
	where, flow := s.webFlow(t)
	key, end := abi.KeyOf(netip.MustParseAddr(client4), netip.MustParseAddr(w1v4), 9999, 80, 6)
	there := abi.FlowWay{Epoch: flow.Epoch, Leads: sealed(key, end, uplink, wl1|abi.FlowToPeer), Rule: [2]uint32{0, w1Web}}
	back := abi.FlowWay{Epoch: flow.Epoch, Leads: sealed(key, 1-end, wl1, uplink), Rule: [2]uint32{w1Out, 0}}
	if where != "flows" || flow.Epoch == 0 || flow.There != there || flow.Back != back {
		t.Fatalf("in %q: there %+v, back %+v, want %+v and %+v", where, flow.There, flow.Back, there, back)
	}
}

// sealed is what an element says of the way from an ingress hook on, of the packets that one end of a key sends.
func sealed(key abi.FlowKey, end int, at, to uint32) uint64 {
	raw, err := binary.Append(nil, binary.NativeEndian, key)
	if err != nil {
		panic(err) // a struct of fixed size
	}
	hash := uint64(end)
	for ; len(raw) > 0; raw = raw[8:] {
		hash = (hash ^ binary.NativeEndian.Uint64(raw)) * 0x9e3779b97f4a7c15
	}
	return (uint64(to)<<32 | uint64(at)) ^ hash ^ hash>>32
}

func TestTheShortWayCountsAsTheLongOne(t *testing.T) {
	const w1Answers = 92
	s := newSite(t, func(want *tc.State) {
		w := &want.Generation.Workloads[0].Egress
		w.Rules = []classify.Rule{{ID: w1Answers, Name: "answers", Protocol: 6, SourcePorts: ports(80, 80), Action: classify.Accept}}
	})
	g := s.live(t)
	for _, st := range []step{web("S").numbered(100, 0), webReply("SA").numbered(5000, 101), web("A").numbered(101, 5001)} {
		s.try(t, g, st)
	}
	for range 5 {
		s.try(t, g, web("A"))
		s.try(t, g, webReply("PA"))
	}
	_, flow := s.webFlow(t)
	if flow.There.Epoch != flow.Epoch || flow.Back.Epoch != flow.Epoch || flow.Back.Rule != [2]uint32{w1Answers, 0} {
		t.Fatalf("there is no short way: %+v", flow)
	}
	hits, err := xdp.RuleHits(s.dir)
	if err != nil || hits[w1Web].Packets != 7 || hits[w1Answers].Packets != 6 || flow.Sent.Packets != 7 || flow.Answered.Packets != 6 ||
		hits[w1Web].Bytes != flow.Sent.Bytes || hits[w1Answers].Bytes != flow.Answered.Bytes {
		t.Errorf("7 packets and 6 answers: rules %+v and %+v, flow %+v: %v", hits[w1Web], hits[w1Answers], flow, err)
	}
}

func TestTheShortWayIsNotForEveryPacketOfAFlow(t *testing.T) {
	s := newSite(t)
	s.established(t)
	g := s.live(t)
	with := func(st step, more string, reason abi.Reason) step {
		st = st.dropped(reason)
		st.line += more
		return st
	}
	for _, st := range []step{
		with(web("A"), " ttl=1", abi.ReasonStackTTL), with(webReply("A"), " ttl=1", abi.ReasonStackTTL),
		with(web("A"), " len=1600", abi.ReasonStackMTU), with(webReply("A"), " len=1600", abi.ReasonStackMTU),
		{at: "wl2 ingress", line: "tcp 10.0.1.10:80 > 198.51.100.7:9999 flags=A", reason: abi.ReasonWorkloadSpoofed},
		web("A"), webReply("A"),
		webReply("FA"), web("FA"), web("A"), webReply("A"),
	} {
		s.try(t, g, st)
	}
	if _, flow := s.webFlow(t); abi.FlowState(flow.State) != abi.FlowClosed {
		t.Errorf("both ends have ended it: %+v", flow)
	}
}

func TestTheShortWayEndsWithWhatLedToIt(t *testing.T) {
	drop := func(p *classify.Policy, line classify.Rule) {
		line.ID, line.Name, line.Action = 93, "no more", classify.Drop
		p.Rules = append([]classify.Rule{line}, p.Rules...)
	}
	s := newSite(t)
	for _, test := range []struct {
		name   string
		change func(*tc.State)
		steps  []step
	}{
		{"a rule against the opener drops both directions", func(w *tc.State) {
			drop(&w.Generation.Workloads[0].Ingress, classify.Rule{Protocol: 6, From: prefixes(client4)})
		}, []step{web("A").dropped(abi.ReasonRuleDrop), webReply("A").dropped(abi.ReasonFlowRevoked)}},
		{"answers first", func(w *tc.State) {
			drop(&w.Generation.Workloads[0].Ingress, classify.Rule{Protocol: 6, From: prefixes(client4)})
		}, []step{webReply("A").dropped(abi.ReasonFlowRevoked), web("A").dropped(abi.ReasonRuleDrop)}},
		{"a rule against the answers drops those", func(w *tc.State) {
			drop(&w.Generation.Workloads[0].Egress, classify.Rule{Protocol: 6, To: prefixes(client4)})
		}, []step{web("A"), webReply("A").dropped(abi.ReasonRuleDrop), web("A")}},
		{"path: stack", func(w *tc.State) {
			for i := range w.Interfaces {
				w.Interfaces[i].Stack = w.Interfaces[i].Name == "wl1"
			}
		}, []step{web("A").dropped(abi.ReasonStackPath), webReply("A").dropped(abi.ReasonStackPath)}},
		{"no rule is needed any more", func(w *tc.State) {
			w.Generation.Workloads[0].Ingress = classify.Policy{Name: "workload/one/ingress", Default: classify.Accept}
		}, []step{webReply("A"), web("A"), webReply("A"), web("A")}},
	} {
		s.sub(t, test.name, func(t *testing.T) {
			s.clearFlows(t)
			s.established(t)
			want := baseline()
			test.change(&want)
			s.converge(t, want)
			g := s.live(t)
			for _, st := range test.steps {
				s.try(t, g, st)
			}
			s.converge(t, baseline())
			g = s.live(t)
			for _, st := range []step{web("A"), webReply("A"), web("A"), webReply("A")} {
				s.try(t, g, st)
			}
		})
	}
}

func TestTheShortWayFollowsTheRoutingTable(t *testing.T) {
	s := newSite(t)
	s.established(t)
	g := s.live(t)
	route := func(change func(*netlink.Route) error, via string) {
		t.Helper()
		client := &net.IPNet{IP: net.ParseIP(client4).To4(), Mask: net.CIDRMask(32, 32)}
		if err := change(&netlink.Route{Dst: client, LinkIndex: index(t, via).Index, Scope: netlink.SCOPE_LINK}); err != nil {
			t.Fatal(err)
		}
	}
	route(netlink.RouteAdd, "wl2")
	nextTick(t)
	s.try(t, g, webReply("A").dropped(abi.ReasonStackForward))
	route(netlink.RouteDel, "wl2")
	nextTick(t)
	s.try(t, g, webReply("A"))
	s.try(t, g, web("A"))
}

func TestABanEndsTheShortWayWhereTcAsksAboutBans(t *testing.T) {
	s := newSite(t, judged)
	bans, err := xdp.OpenBans(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { bans.Close() })
	g := s.live(t)
	for _, st := range []step{web("S").numbered(100, 0), webReply("SA").numbered(5000, 101), web("A").numbered(101, 5001), web("A")} {
		s.try(t, g, st)
	}
	if _, flow := s.webFlow(t); flow.There.Rule != [2]uint32{ingressWeb, w1Web} {
		t.Fatalf("there is no short way: %+v", flow)
	}
	client := netip.MustParsePrefix(client4 + "/32")
	if err := bans.Set(client, 0); err != nil {
		t.Fatal(err)
	}
	s.try(t, g, web("A").dropped(abi.ReasonBanned))
	if hits, err := bans.Hits(client); err != nil || hits.Packets != 1 {
		t.Errorf("the ban counts %+v: %v", hits, err)
	}
	if err := bans.Remove(client); err != nil {
		t.Fatal(err)
	}
	s.try(t, g, web("A"))
}

func TestAFilterTakesAPacketOnceWhereTheShortWayGivesUp(t *testing.T) {
	s := newSite(t, judged)
	f, set := s.flowspec(t)
	g := s.live(t)
	for _, st := range []step{web("S").numbered(100, 0), webReply("SA").numbered(5000, 101), web("A").numbered(101, 5001), web("A")} {
		s.try(t, g, st)
	}
	if _, flow := s.webFlow(t); flow.There.Leads == 0 {
		t.Fatalf("there is no short way: %+v", flow)
	}
	limits := everything()
	limits.Packets = &classify.Limiter{Rate: 1, Burst: 3600}
	set(limits)
	large := web("A").dropped(abi.ReasonStackMTU)
	large.line += " len=1600"
	s.try(t, g, large)
	if hits, err := f.Hits("everything"); err != nil || hits.Packets != 1 {
		t.Errorf("one packet counts %+v: %v", hits, err)
	}
}
