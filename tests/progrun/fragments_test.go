package progrun_test

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"sluice/xdp"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
	"sluice/xdp/classify/classifytest"
)

const (
	moreFragments = 0x2000 // of IPv4's field of flags and offset
	offset8       = 1      // in units of 8 bytes
)

// first4 and later4 are fragments of one datagram of UDP, by its identification.
func first4(id, port int) []byte {
	return withID4(id, ether(typeIP4, ip4Fragment(17, moreFragments, nil, udp(1000, port, make([]byte, 8)...))))
}
func later4(id int) []byte {
	return withID4(id, ether(typeIP4, ip4Fragment(17, offset8+1, nil, make([]byte, 8))))
}
func withID4(id int, frame []byte) []byte {
	binary.BigEndian.PutUint16(frame[18:], uint16(id))
	return frame
}

func fragment6(id uint32, offsetFlags int, rest []byte) []byte {
	header := ip6Frag(17, offsetFlags, rest)
	binary.BigEndian.PutUint32(header[4:], id)
	return header
}
func first6(id uint32, port int) []byte {
	return ether(typeIP6, ip6(44, 64, src6, fragment6(id, 1, udp(1000, port, make([]byte, 8)...))))
}
func later6(id uint32) []byte {
	return ether(typeIP6, ip6(44, 64, src6, fragment6(id, 0x11, make([]byte, 8))))
}

const resolverID = 7

// tracking lets UDP to port 53 in, drops by a rule what is about to expire, and tracks fragments.
func tracking(def classify.Action) xdp.Generation {
	port := classify.Rule{ID: resolverID, Protocol: 17, Ports: []classify.PortRange{{First: 53, Last: 53}}, Action: classify.Accept}
	if def == classify.Accept {
		port.Action = classify.Drop
	}
	g := generation(def, classify.Rule{ID: 3, Protocol: classify.AnyProtocol, TTL: 1, Action: classify.Drop}, port)
	g.Ingress.Fragments, g.Ingress.DefaultID = classify.FragTrack, 9
	return g
}

func TestALaterFragmentSharesTheFateOfItsFirst(t *testing.T) {
	s := newSite(t, tracking(classify.Drop))
	s.twin(t) // now: a first fragment is known for three seconds
	const (
		accepted, dropped = abi.ReasonRuleAccept, abi.ReasonDefaultDrop
		unknown, tracked  = abi.ReasonFragmentDefaultDrop, abi.ReasonFragmentTracked
	)
	s.check(t, "before its first: the default", later4(1), unknown)
	s.check(t, "the first", first4(1, 53), accepted)
	s.check(t, "the second", later4(1), tracked)
	s.check(t, "and again", later4(1), tracked)
	s.check(t, "a later fragment that a rule drops", ttl4(1, later4(1)), abi.ReasonRuleDrop)
	s.check(t, "another datagram", later4(2), unknown)
	s.check(t, "another source", from4("192.0.2.8", later4(1)), unknown)
	s.check(t, "another destination", to4("203.0.113.10", later4(1)), unknown)
	s.check(t, "the same identification of another protocol", withID4(1, ether(typeIP4, ip4Fragment(6, offset8+2, nil, make([]byte, 8)))), abi.ReasonDefaultDrop)
	s.check(t, "the same in a VLAN", withVLAN(100, later4(1)), unknown)
	s.check(t, "the first of what is not accepted", first4(3, 54), dropped)
	s.check(t, "its second", later4(3), unknown)
	s.check(t, "a whole packet with that identification", withID4(4, ether(typeIP4, ip4(17, nil, udp(1000, 53)))), accepted)
	s.check(t, "which is no first fragment", later4(4), unknown)
	s.check(t, "with options", withID4(5, ether(typeIP4, ip4Fragment(17, moreFragments, make([]byte, 8), udp(1000, 53, make([]byte, 8)...)))), accepted)
	s.check(t, "and without", later4(5), tracked)
	s.check(t, "in a VLAN", withVLAN(100, first4(6, 53)), accepted)
	s.check(t, "its second there", withVLAN(100, later4(6)), tracked)
	s.check(t, "and outside of it", later4(6), unknown)

	s.check(t, "IPv6 before its first", later6(0x10001), unknown)
	s.check(t, "IPv6, the first", first6(0x10001, 53), accepted)
	s.check(t, "IPv6, the second", later6(0x10001), tracked)
	s.check(t, "IPv6 with the same lower half", later6(0x20001), unknown)
	behind := func(offsetFlags int, rest []byte) []byte {
		return ether(typeIP6, ip6(0, 64, src6, extension(43, 1, extension(44, 0, fragment6(9, offsetFlags, rest)))))
	}
	s.check(t, "IPv6 behind extension headers", behind(1, udp(1000, 53, make([]byte, 8)...)), accepted)
	s.check(t, "IPv6 behind extension headers, the second", behind(0x10, make([]byte, 8)), tracked)
	// What the fragment header says of the next one is not the protocol where the rest has extension headers.
	s.check(t, "IPv6 with options in the first fragment", ether(typeIP6, ip6(44, 64, src6, join([]byte{60, 0}, be16(1), []byte{0, 0, 0, 10},
		extension(17, 0, udp(1000, 53, make([]byte, 8)...))))), accepted)
	s.check(t, "IPv6 with options in the first fragment, the second", ether(typeIP6, ip6(44, 64, src6,
		join([]byte{60, 0}, be16(0x18), []byte{0, 0, 0, 10}, make([]byte, 8)))), abi.ReasonFragmentTracked)
	s.check(t, "an atomic fragment", ether(typeIP6, ip6(44, 64, src6, fragment6(11, 0, udp(1000, 53)))), accepted)
	s.check(t, "is none", later6(11), unknown)
}

// withVLAN puts a tag into an untagged frame.
func withVLAN(id int, frame []byte) []byte {
	return join(frame[:12], be16(0x8100), be16(id), frame[12:])
}

func TestWhereTheDefaultAcceptsADroppedFirstIsFollowed(t *testing.T) {
	s := newSite(t, tracking(classify.Accept))
	s.twin(t) // now: a first fragment is known for three seconds
	s.check(t, "before its first: the default", later4(1), abi.ReasonFragmentDefaultAccept)
	s.check(t, "the first", first4(1, 53), abi.ReasonRuleDrop)
	s.check(t, "the second", later4(1), abi.ReasonFragmentTrackedDrop)
	s.check(t, "one that the default accepts", first4(2, 54), abi.ReasonDefaultAccept)
	s.check(t, "its second", later4(2), abi.ReasonFragmentDefaultAccept)
}

// TestEveryStageThatLetsAFirstFragmentInIsFollowed: what passes before policy.ingress is asked has later fragments as well.
func TestEveryStageThatLetsAFirstFragmentInIsFollowed(t *testing.T) {
	g := tracking(classify.Drop)
	g.Self = []netip.Addr{dst4}
	on := func(id uint32, name string, port uint16, action classify.Action) []classify.Rule {
		return []classify.Rule{{ID: id, Name: name, Protocol: 17, Ports: []classify.PortRange{{First: port, Last: port}}, Action: action}}
	}
	g.Failsafe = classify.Policy{Name: "failsafe", Rules: on(20, "snmp", 161, classify.Accept)}
	g.System = classify.Policy{Name: "system", Rules: on(21, "underlay", 51820, classify.Accept)}
	g.Ingress.Rules = append(g.Ingress.Rules, on(limitID, "limited", 5000, classify.Limit)...)
	g.Limiters = []classify.Limiter{slow(1, false)}
	s := newSite(t, g)
	s.twin(t) // now: a first fragment is known for three seconds
	putFlow(t, s.openMap(t, "fresh-out", 3), key(dst4, src4, 4000, 1000, 17), time.Second, abi.FlowNew)
	for n, c := range []struct {
		port          int
		first, second abi.Reason
	}{
		{161, abi.ReasonFailsafe, abi.ReasonFragmentTracked}, {51820, abi.ReasonSystem, abi.ReasonFragmentTracked},
		{4000, abi.ReasonEstablished, abi.ReasonFragmentTracked}, {5000, abi.ReasonLimitAccept, abi.ReasonFragmentDefaultDrop},
		{5000, abi.ReasonLimitAccept, abi.ReasonFragmentDefaultDrop}, // 50 bytes each
		{5000, abi.ReasonLimitDrop, abi.ReasonFragmentDefaultDrop},
	} {
		if got := run(t, s.live, s.uplink, first4(100+n, c.port)); got != verdictOf(c.first) {
			t.Errorf("first fragment to port %d: verdict %d, want %s", c.port, got, c.first)
		}
		s.last = s.tally(t)
		s.check(t, c.first.String(), later4(100+n), c.second)
	}
}

func TestOnlyTheDefaultsOwnFragmentsCountForIt(t *testing.T) {
	s := newSite(t, tracking(classify.Drop))
	s.twin(t) // now: a first fragment is known for three seconds
	run(t, s.live, s.uplink, first4(1, 53))
	run(t, s.live, s.uplink, later4(1))
	run(t, s.live, s.uplink, later4(2))
	if got := hits(t, s.hits, 9); got.Packets != 1 {
		t.Errorf("the default counts %d packets, want the one of an unknown datagram", got.Packets)
	}
}

func TestNothingIsRememberedWhereNobodyAsks(t *testing.T) {
	g := tracking(classify.Drop)
	g.Ingress.Fragments = classify.FragDefault
	s := newSite(t, g)
	s.check(t, "without track", first4(1, 53), abi.ReasonRuleAccept)
	s.check(t, "its second", later4(1), abi.ReasonFragmentDefaultDrop)

	g.Ingress.Fragments = classify.FragTrack
	s.load(t, g)
	s.check(t, "what another generation remembered not", later4(1), abi.ReasonFragmentDefaultDrop)
	if said := s.explain(t, s.uplink, first4(2, 53)); abi.Reason(said.Reason) != abi.ReasonRuleAccept {
		t.Errorf("explain says %s", abi.Reason(said.Reason))
	}
	s.check(t, "what was only explained", later4(2), abi.ReasonFragmentDefaultDrop)
	s.check(t, "what is dropped anyway", first4(3, 54), abi.ReasonDefaultDrop)
	if used := usedSlots(t, s.openMap(t, "fragments", 1)); len(used) != 0 {
		t.Errorf("slots %v are in use", used)
	}
	s.check(t, "now", first4(4, 53), abi.ReasonRuleAccept)
	other := tracking(classify.Drop)
	other.Ingress.Rules = append(other.Ingress.Rules, classify.Rule{ID: 50, Name: "new", Protocol: 6, Action: classify.Accept})
	s.load(t, other)
	s.check(t, "a generation goes on with what the one before knew", later4(4), abi.ReasonFragmentTracked)
}

func TestAFirstFragmentIsForgottenAfterThreeSeconds(t *testing.T) {
	s := newSite(t, tracking(classify.Drop))
	s.twin(t) // now: a first fragment is known for three seconds
	s.check(t, "the first", first4(1, 53), abi.ReasonRuleAccept)
	m := s.openMap(t, "fragments", 1)
	used := usedSlots(t, m)
	if len(used) != 1 {
		t.Fatalf("slots %v are in use, want one", used)
	}
	age := func(ticks uint64) {
		t.Helper()
		for index, word := range used {
			if err := m.Put(index, word-ticks); err != nil {
				t.Fatal(err)
			}
		}
	}
	age(30)
	s.check(t, "after half a second", later4(1), abi.ReasonFragmentTracked)
	age(181)
	s.check(t, "after three", later4(1), abi.ReasonFragmentDefaultDrop)
	s.check(t, "the next datagram with this identification", first4(1, 53), abi.ReasonRuleAccept)
	s.check(t, "its second", later4(1), abi.ReasonFragmentTracked)
}

func usedSlots(t *testing.T, m *ebpf.Map) map[uint32]uint64 {
	t.Helper()
	out := map[uint32]uint64{}
	var key uint32
	var word uint64
	entries := m.Iterate()
	for entries.Next(&key, &word) {
		if word != 0 {
			out[key] = word
		}
	}
	if err := entries.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// datagram is what the model of tracking knows one by.
type datagram struct {
	src, dst netip.Addr
	id       uint32
	protocol uint8 // of IPv4
	vlan     uint16
}

// remembering is the reference model of fragments: track, over that of the policies: a map without end.
type remembering struct {
	g      xdp.Generation
	passed map[datagram]bool
	since  map[datagram]time.Time
}

// rememberedFor is how long a first fragment is known at least, whatever the clock of the programs counts.
const rememberedFor = 2900 * time.Millisecond

// expect also says since when it knows the first fragment on which the answer depends.
func (m *remembering) expect(p classify.Packet, id uint32) (abi.Reason, time.Time) {
	reason := expect(m.g, p).reason
	d := datagram{p.Src, p.Dst, id, p.Protocol, p.VLAN}
	if p.Src.Is6() {
		d.protocol = 0
	}
	byDefault := []abi.Reason{abi.ReasonDefaultAccept, abi.ReasonDefaultDrop, abi.ReasonFragmentDefaultAccept, abi.ReasonFragmentDefaultDrop}
	passed, known := m.passed[d]
	switch {
	case !p.NonFirst:
		if passes := reason.Fate() != abi.FateDrop; passes != (m.g.Ingress.Default == classify.Accept) {
			m.passed[d], m.since[d] = passes, time.Now()
		}
	case known && passed && slices.Contains(byDefault, reason):
		return abi.ReasonFragmentTracked, m.since[d]
	case known && slices.Contains(byDefault, reason):
		return abi.ReasonFragmentTrackedDrop, m.since[d]
	}
	return reason, time.Time{}
}

// TestTrackingAgreesWithTheReferenceModel sends fragments of datagrams in disorder through generated policies.
func TestTrackingAgreesWithTheReferenceModel(t *testing.T) {
	const rounds, datagrams = 12, 300
	rng := rand.New(rand.NewPCG(6, 8200))
	s := newSite(t, generation(classify.Accept))
	// A random key may put two datagrams into one slot.
	if err := s.openMap(t, "limit-seed", 1).Put(uint32(0), uint64(0x5eed)); err != nil {
		t.Fatal(err)
	}
	tracked := 0
	for range rounds {
		policies := classifytest.Policies(rng)
		g := generation([]classify.Action{classify.Accept, classify.Drop}[rng.IntN(2)])
		for _, p := range policies {
			g.Ingress.Rules = append(g.Ingress.Rules, p.Rules...)
		}
		for i := range g.Ingress.Rules {
			g.Ingress.Rules[i].ID = uint32(i + 1)
		}
		g.Ingress.Fragments = classify.FragTrack
		list := classifytest.Packets(rng, []classify.Policy{g.Ingress}, datagrams)
		classifytest.On([]classify.Policy{g.Ingress}, s.uplink, s.uplink+1000)
		g.RuleSlots = uint32(len(g.Ingress.Rules) + 1)
		s.load(t, g)
		s.twin(t) // now: a first fragment is known for three seconds
		// Datagrams of former rounds are unknown to the model: identifications never come again.
		m := &remembering{g, map[datagram]bool{}, map[datagram]time.Time{}}
		type piece struct {
			p  classify.Packet
			id uint32
		}
		var pieces []piece
		base := rng.Uint32N(1 << 15)
		for n, p := range list {
			if p.NonFirst { // whose ports nobody knows
				continue
			}
			p.Ifindex, p.Fragment = uint32(s.uplink), true
			first, later := p, p
			first.NonFirst = false
			later.NonFirst, later.HasPorts, later.SrcPort, later.DstPort = true, false, 0, 0
			later.TCPFlags, later.ICMPType, later.ICMPCode = 0, 0, 0
			id := (base + uint32(n)) & 0xffff
			pieces = append(pieces, piece{later, id}, piece{first, id}, piece{later, id})
		}
		for i := range pieces { // disorder within a window
			j := min(i+rng.IntN(4), len(pieces)-1)
			pieces[i], pieces[j] = pieces[j], pieces[i]
		}
		if err := clearSlots(s.openMap(t, "fragments", 1)); err != nil {
			t.Fatal(err)
		}
		for _, one := range pieces {
			frame := numbered(frameOf(t, one.p), one.p, one.id)
			want, since := m.expect(one.p, one.id)
			got, said := run(t, s.live, s.uplink, frame), abi.Reason(s.explain(t, s.uplink, frame).Reason)
			if !since.IsZero() && time.Since(since) > rememberedFor {
				continue // held up; tracked sees to it that this is not the rule
			}
			if got != verdictOf(want) {
				t.Errorf("%+v, identification %d: verdict %d, want %s", one.p, one.id, got, want)
			}
			if said != want {
				t.Errorf("%+v, identification %d: %s, want %s", one.p, one.id, said, want)
			}
			if want == abi.ReasonFragmentTracked || want == abi.ReasonFragmentTrackedDrop {
				tracked++
			}
		}
		if t.Failed() {
			return
		}
	}
	if tracked < 400 {
		t.Errorf("only %d later fragments followed a first one", tracked)
	}
	t.Logf("%d later fragments followed a first one", tracked)
}

func clearSlots(m *ebpf.Map) error {
	var key uint32
	var word uint64
	entries := m.Iterate()
	for entries.Next(&key, &word) {
		if word != 0 {
			if err := m.Put(key, uint64(0)); err != nil {
				return err
			}
		}
	}
	return entries.Err()
}

// numbered gives a fragment its identification.
func numbered(frame []byte, p classify.Packet, id uint32) []byte {
	at := 14
	if p.VLAN != 0 {
		at += 4
	}
	if p.Src.Is6() {
		binary.BigEndian.PutUint32(frame[at+44:], id)
	} else {
		binary.BigEndian.PutUint16(frame[at+4:], uint16(id))
	}
	return frame
}
