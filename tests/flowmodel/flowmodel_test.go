package flowmodel

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"sluice/xdp/abi"
	"sluice/xdp/classify"
	"sluice/xdp/packet"
)

var (
	client, node   = netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("198.18.0.2")
	one, two, host = netip.MustParseAddr("10.0.1.10"), netip.MustParseAddr("10.0.1.20"), netip.MustParseAddr("10.7.0.9")
	client6, node6 = netip.MustParseAddr("2001:db8:7::7"), netip.MustParseAddr("2001:db8::2")
	one6           = netip.MustParseAddr("fd00:1::10")
)

// rules: what the first generation of testWorld accepts.
const (
	web = 1 + iota
	out
	own
)

// testWorld has four generations: one with rules, one where a workload may not open anything, one that accepts everything, and
// the first without SNAT.
func testWorld() *World {
	accept := func(id uint32, protocol int, ports ...classify.PortRange) classify.Rule {
		return classify.Rule{ID: id, Name: fmt.Sprint(id), Protocol: protocol, Ports: ports, Action: classify.Accept}
	}
	drop := func(name string, rules ...classify.Rule) classify.Policy {
		return classify.Policy{Name: name, Default: classify.Drop, Rules: rules}
	}
	httpd := accept(web, packet.TCP, classify.PortRange{First: 80, Last: 80})
	all := accept(out, classify.AnyProtocol)
	first := Generation{
		Name: "rules",
		Interfaces: map[string]Interface{
			"uplink": {Role: abi.RoleUplink, Judge: true, Own4: node, Own6: node6},
			"wl1":    {Role: abi.RoleWorkload, SNAT: SNAT{V4: true, V6: true}},
			"wl2":    {Role: abi.RoleWorkload, SNAT: SNAT{V4: true}},
			"down":   {Role: abi.RoleDownstream, SNAT: SNAT{V4: true}},
		},
		Self: map[netip.Addr]bool{node: true, node6: true},
		Workloads: []Workload{
			{Interface: "wl1", Addresses: []netip.Addr{one, one6}, Ingress: drop("in", httpd), Egress: drop("out", all)},
			{Interface: "wl2", Addresses: []netip.Addr{two}, Ingress: drop("in", httpd), Egress: drop("out", all)},
		},
		Ingress: drop("ingress", httpd), Egress: drop("egress", accept(own, packet.UDP)),
		FirstPort: 2000, LastPort: 2003,
	}
	for _, pair := range [][2]abi.Role{
		{abi.RoleUplink, abi.RoleWorkload}, {abi.RoleWorkload, abi.RoleUplink}, {abi.RoleDownstream, abi.RoleUplink},
		{abi.RoleUplink, abi.RoleDownstream}, {abi.RoleNone, abi.RoleUplink},
	} {
		first.Matrix[pair[0]][pair[1]] = true
	}
	shut, open, bare := first, first, first
	shut.Workloads = []Workload{first.Workloads[0], first.Workloads[1]}
	shut.Workloads[0].Egress = drop("out")
	open.Workloads = []Workload{first.Workloads[0], first.Workloads[1]}
	for i := range open.Workloads {
		open.Workloads[i].Ingress, open.Workloads[i].Egress = classify.Policy{Default: classify.Accept}, classify.Policy{Default: classify.Accept}
	}
	open.Ingress, open.Egress = classify.Policy{Default: classify.Accept}, classify.Policy{Default: classify.Accept}
	bare.Interfaces = map[string]Interface{}
	for name, i := range first.Interfaces {
		i.SNAT = SNAT{}
		bare.Interfaces[name] = i
	}
	return &World{Generations: []Generation{first, shut, open, bare}, MaxFlows: 64, Fresh: 4096, Routes: []Route{
		{netip.MustParsePrefix("198.51.100.0/24"), "uplink"}, {netip.MustParsePrefix("2001:db8:7::/64"), "uplink"},
		{netip.MustParsePrefix("10.7.0.0/24"), "down"},
	}}
}

func testCast() Cast {
	return Cast{
		Endpoints: []Endpoint{{"uplink", client}, {"uplink", client.Next()}, {"uplink", client6}, {"", node}, {"", node6},
			{"wl1", one}, {"wl1", one6}, {"wl2", two}, {"down", host}},
		Routers: []Endpoint{{"uplink", netip.MustParseAddr("198.51.100.1")}, {"uplink", netip.MustParseAddr("2001:db8:7::1")}, {"", node}},
		Clients: []uint16{4000, 4001, 2001}, Servers: []uint16{80, 53, 4000},
	}
}

// segment is a TCP packet between two ends, "S" and so on.
func segment(src, dst netip.Addr, sport, dport uint16, flags uint8, seq, ack uint32) Packet {
	return Packet{Protocol: packet.TCP, Src: src, Dst: dst, Sport: sport, Dport: dport, Flags: flags, Seq: seq, Ack: ack, TTL: 64}
}

// in and outOf run a packet at a hook, where it must leave with a reason.
func (m *Model) expect(t *testing.T, h Hook, from string, p Packet, want abi.Reason) Packet {
	t.Helper()
	o := m.Run(h, from, p, 0, nil)
	if o.Reason != want || o.Fault != "" {
		t.Fatalf("%s: %s is %s (%s), want %s", h, p, o.Reason, o.Fault, want)
	}
	if err := m.Check(); err != nil {
		t.Fatal(err)
	}
	return o.Left
}

const (
	syn = packet.SYN
	ack = packet.ACK
	fin = packet.FIN
	rst = packet.RST
)

func TestASessionIsProvenByTheAcknowledgementOfItsAnswer(t *testing.T) {
	wl1, up := Hook{Interface: "wl1"}, Hook{Interface: "uplink"}
	for _, c := range []struct {
		name   string
		ack    uint32
		proven bool
	}{{"right", 5001, true}, {"wrong", 5000, false}, {"none", 0, false}} {
		t.Run(c.name, func(t *testing.T) {
			m := NewModel(testWorld())
			m.Switch(3) // without SNAT
			m.expect(t, wl1, "", segment(one, client, 4000, 80, syn, 1000, 0), abi.ReasonForwarded)
			m.expect(t, up, "", segment(client, one, 80, 4000, syn|ack, 5000, 1001), abi.ReasonDelivered)
			m.expect(t, wl1, "", segment(one, client, 4000, 80, ack, 1001, c.ack), abi.ReasonForwarded)
			f := onlyFlow(t, m)
			if f.proven != c.proven || (f.Table == Proven) != c.proven || f.Packets != [2]uint64{2, 1} {
				t.Errorf("%s", f)
			}
		})
	}
}

func TestAnAnswerThatEndsAtOnceIsProvenByTheAcknowledgementOfItsFIN(t *testing.T) {
	wl1, up := Hook{Interface: "wl1"}, Hook{Interface: "uplink"}
	m := NewModel(testWorld())
	m.Switch(3)
	m.expect(t, wl1, "", segment(one, client, 4000, 80, ack, 1001, 5001), abi.ReasonForwarded) // its SYN was not seen
	m.expect(t, up, "", segment(client, one, 80, 4000, fin|ack, 5001, 1001), abi.ReasonDelivered)
	m.Pass(2 * time.Second)
	if f := onlyFlow(t, m); f.proven || f.Table == Proven {
		t.Errorf("before: %s", f)
	}
	m.expect(t, wl1, "", segment(one, client, 4000, 80, ack, 1001, 5002), abi.ReasonForwarded)
	if f := onlyFlow(t, m); !f.proven || f.Table != Proven || f.State() != Closing {
		t.Errorf("after: %s", f)
	}
}

func onlyFlow(t *testing.T, m *Model) *Flow {
	t.Helper()
	if len(m.Flows) != 1 {
		t.Fatalf("flows %v", m.Flows)
	}
	for _, f := range m.Flows {
		return f
	}
	return nil
}

func TestARevokedRuleStopsBothDirectionsAndGivenBackLetsThemGo(t *testing.T) {
	wl1, up := Hook{Interface: "wl1"}, Hook{Interface: "uplink"}
	ask, answer := segment(one, client, 4000, 80, syn, 1, 0), segment(client, one, 80, 4000, syn|ack, 5, 2)
	m := NewModel(testWorld())
	m.Switch(3)
	m.expect(t, wl1, "", ask, abi.ReasonForwarded)
	m.expect(t, up, "", answer, abi.ReasonDelivered)
	m.Switch(1)
	m.expect(t, up, "", answer, abi.ReasonFlowRevoked)
	m.expect(t, wl1, "", ask, abi.ReasonDefaultDrop)
	m.Switch(3)
	m.expect(t, up, "", answer, abi.ReasonDelivered)
	m.Switch(1)
	m.expect(t, wl1, "", ask, abi.ReasonDefaultDrop)
	m.expect(t, up, "", answer, abi.ReasonFlowRevoked)
}

func TestAFlowEndsWhenItsTimeIsOver(t *testing.T) {
	wl1, up := Hook{Interface: "wl1"}, Hook{Interface: "uplink"}
	m := NewModel(testWorld())
	m.Switch(3)
	q := Packet{Protocol: packet.UDP, Src: one, Dst: client, Sport: 4000, Dport: 53, TTL: 64}
	m.expect(t, wl1, "", q, abi.ReasonForwarded)
	m.Pass(55 * time.Second)
	m.expect(t, up, "", q.Reply(), abi.ReasonDelivered)
	m.Pass(170 * time.Second)
	m.expect(t, up, "", q.Reply(), abi.ReasonDelivered)
	m.Pass(190 * time.Second)
	m.expect(t, up, "", q.Reply(), abi.ReasonDefaultDrop)
}

func TestATranslatedFlowComesBackAndNoTwoShareATuple(t *testing.T) {
	wl1, up := Hook{Interface: "wl1"}, Hook{Interface: "uplink"}
	m := NewModel(testWorld())
	used := map[uint16]bool{}
	for i := range uint16(4) {
		q := Packet{Protocol: packet.UDP, Src: one, Dst: client, Sport: 4000 + i, Dport: 53, TTL: 64}
		left := m.expect(t, wl1, "", q, abi.ReasonForwarded)
		if left.Src != node || used[left.Sport] || left.Sport < 2000 || left.Sport > 2003 {
			t.Errorf("left as %s", left)
		}
		used[left.Sport] = true
		back := m.expect(t, up, "", left.Reply(), abi.ReasonDelivered)
		if back.Dst != one || back.Dport != q.Sport {
			t.Errorf("came back as %s", back)
		}
	}
	q := Packet{Protocol: packet.UDP, Src: one, Dst: client, Sport: 4010, Dport: 53, TTL: 64}
	m.expect(t, wl1, "", q, abi.ReasonSnatExhausted)
	q.Dst = client.Next() // another host: the same ports again
	m.expect(t, wl1, "", q, abi.ReasonForwarded)
	own := Packet{Protocol: packet.UDP, Src: node, Dst: client, Sport: 2001, Dport: 53, TTL: 64}
	m.expect(t, Hook{"uplink", true}, "", own, abi.ReasonSnatClash)
}

// TestTheModelKeepsItsOwnInvariants: whatever comes, translations are unique, and nothing leaves an uplink from a private address.
func TestTheModelKeepsItsOwnInvariants(t *testing.T) {
	reasons := map[abi.Reason]int{}
	for seed := range uint64(3000) {
		g := &Generator{Rng: rand.New(rand.NewPCG(seed, 1)), World: testWorld(), Cast: testCast()}
		steps := g.Sequence(40)
		if err := play(g.World, steps, reasons); err != nil {
			short := Shrink(steps, func(s []Step) bool { return play(g.World, s, map[abi.Reason]int{}) != nil })
			t.Fatalf("seed %d: %v\n%s", seed, play(g.World, short, reasons), Lines(short))
		}
	}
	for _, r := range []abi.Reason{
		abi.ReasonDelivered, abi.ReasonForwarded, abi.ReasonLocal, abi.ReasonStackForward, abi.ReasonEstablished, abi.ReasonICMPError,
		abi.ReasonFlowRevoked, abi.ReasonSnatExhausted, abi.ReasonSnatClash, abi.ReasonSnatFragment, abi.ReasonSnatUntracked,
		abi.ReasonMartianSource, abi.ReasonWorkloadSpoofed, abi.ReasonForwardDenied, abi.ReasonDefaultDrop, abi.ReasonStackTTL,
	} {
		if reasons[r] == 0 {
			t.Errorf("no packet of %v had the reason %s: the sequences do not reach it", reasons, r)
		}
	}
}

// play runs a sequence through a model alone.
func play(w *World, steps []Step, reasons map[abi.Reason]int) error {
	m := NewModel(w)
	for _, s := range steps {
		switch {
		case s.Pass != 0:
			m.Pass(s.Pass)
			continue
		case s.Switch != 0:
			m.Switch(s.Switch - 1)
			continue
		case s.Sweep:
			for _, k := range m.Expired() {
				m.Forget(k)
			}
			continue
		}
		p, mark := m.At(s), uint32(0)
		for i, h := range s.Hops {
			o := m.Run(h.Hook, h.From, p, mark, nil)
			reasons[o.Reason]++
			if o.Fault != "" {
				return fmt.Errorf("%s: %s", s, o.Fault)
			}
			if err := m.Check(); err != nil {
				return fmt.Errorf("%s: %w", s, err)
			}
			if m.Leaks(h, o) {
				return fmt.Errorf("%s: it left from %s", s, o.Left.Src)
			}
			if i+1 == len(s.Hops) {
				break
			}
			var goes bool
			if p, mark, goes = o.Next(s.Hops[i+1]); !goes {
				break
			}
		}
	}
	return nil
}
