package flowmodel

import (
	"math/rand/v2"
	"net/netip"
	"time"

	"sluice/xdp/packet"
)

// Endpoint is somebody who sends and receives. Interface is where it is: "" is the box itself.
type Endpoint struct {
	Interface string
	Addr      netip.Addr
}

// Cast is who takes part, few, so that tuples meet.
type Cast struct {
	Endpoints []Endpoint
	Routers   []Endpoint // who complains about others' packets
	Clients   []uint16   // ports
	Servers   []uint16
}

// Generator makes sequences. The same rng state gives the same sequence.
type Generator struct {
	Rng   *rand.Rand
	World *World
	Cast  Cast
	talks []*talk
	last  []Step
}

// talk is a conversation that goes its plausible way, for as long as nobody disturbs it.
type talk struct {
	client, server Endpoint
	protocol       uint8
	cport, sport   uint16
	at             int // of the script
	cseq, sseq     uint32
	id             uint16 // of its fragments
}

// Sequence is n steps long.
func (g *Generator) Sequence(n int) []Step {
	g.talks, g.last = nil, nil
	for range 1 + g.Rng.IntN(4) {
		g.talks = append(g.talks, g.talk())
	}
	var steps []Step
	for len(steps) < n {
		steps = append(steps, g.step()...)
	}
	return steps[:n]
}

func (g *Generator) chance(percent int) bool { return g.Rng.IntN(100) < percent }

func pick[T any](g *Generator, from ...T) T { return from[g.Rng.IntN(len(from))] }

// talk begins one, mostly near another: the same tuple, turned round, or with one end changed.
func (g *Generator) talk() *talk {
	t := &talk{protocol: pick[uint8](g, packet.TCP, packet.TCP, packet.TCP, packet.UDP, packet.UDP, packet.ICMP, packet.SCTP, packet.GRE, packet.UDPLite)}
	t.client = pick(g, g.Cast.Endpoints...)
	for t.server = t.client; t.server.Interface == t.client.Interface || t.server.Addr.Is4() != t.client.Addr.Is4(); {
		t.client, t.server = pick(g, g.Cast.Endpoints...), pick(g, g.Cast.Endpoints...)
	}
	t.cport, t.sport = pick(g, g.Cast.Clients...), pick(g, g.Cast.Servers...)
	if len(g.talks) > 0 && g.chance(60) {
		other := *pick(g, g.talks...)
		switch g.Rng.IntN(3) {
		case 0:
			other.client, other.server, other.cport, other.sport = other.server, other.client, other.sport, other.cport
		case 1:
			if t.client.Addr.Is4() == other.server.Addr.Is4() && t.client.Interface != other.server.Interface {
				other.client = t.client
			}
		case 2:
			other.cport = t.cport
		}
		other.at = 0
		t = &other
	}
	if t.protocol == packet.ICMP && t.client.Addr.Is6() {
		t.protocol = packet.ICMPv6
	}
	t.cseq, t.sseq, t.id = uint32(1000+100*g.Rng.IntN(3)), uint32(5000+100*g.Rng.IntN(3)), uint16(1+g.Rng.IntN(3))
	return t
}

var passes = [...]time.Duration{2300 * time.Millisecond, 9 * time.Second, 25 * time.Second, 45 * time.Second, 70 * time.Second,
	100 * time.Second, 190 * time.Second, 620 * time.Second, 7500 * time.Second}

func (g *Generator) step() []Step {
	switch n := g.Rng.IntN(100); {
	case n < 5 && len(g.World.Generations) > 1:
		return []Step{{Switch: 1 + g.Rng.IntN(len(g.World.Generations))}}
	case n < 12:
		return []Step{{Pass: pick(g, passes[:]...)}}
	case n < 14:
		return []Step{{Sweep: true}}
	case n < 17:
		g.talks = append(g.talks, g.talk())
	case n < 27:
		return []Step{g.complaint(pick(g, g.talks...))}
	case n < 33:
		return g.fragments(pick(g, g.talks...))
	case n < 36 && len(g.last) > 0:
		return []Step{pick(g, g.last...)} // once more: late, or out of order
	case n < 37:
		return []Step{g.stray()}
	}
	s := g.packet(pick(g, g.talks...))
	g.last = append(g.last, s)
	return []Step{s}
}

// way is the hooks between two ends.
func way(from, to Endpoint) []Hop {
	var hops []Hop
	if from.Interface != "" {
		hops = append(hops, Hop{Hook: Hook{Interface: from.Interface}})
	}
	if to.Interface != "" {
		hops = append(hops, Hop{Hook: Hook{Interface: to.Interface, Egress: true}, From: from.Interface})
	}
	return hops
}

// base is a packet of one side of a talk.
func (t *talk) base(fromClient bool) Packet {
	p := Packet{Protocol: t.protocol, Src: t.client.Addr, Dst: t.server.Addr, Sport: t.cport, Dport: t.sport, TTL: 64}
	if p.IsICMP() {
		p.Sport, p.Dport, p.ID, p.Type = 0, 0, t.cport, echoRequest4
		if p.Src.Is6() {
			p.Type = echoRequest6
		}
	}
	if !p.HasPorts() {
		p.Sport, p.Dport = 0, 0
	}
	if !fromClient {
		p = p.Reply()
	}
	return p
}

func (t *talk) ends(fromClient bool) (from, to Endpoint) {
	if fromClient {
		return t.client, t.server
	}
	return t.server, t.client
}

func (g *Generator) send(t *talk, fromClient bool, p Packet) Step {
	from, to := t.ends(fromClient)
	s := Step{Hops: way(from, to), Packet: p, AsSeen: g.chance(90)}
	if p.Protocol == packet.UDP && p.Src.Is4() && g.chance(10) {
		s.Packet.NoSum = true
	}
	if g.chance(2) {
		s.Packet.TTL = uint8(1 + g.Rng.IntN(2))
	}
	if g.chance(3) && len(s.Hops) == 2 { // what the kernel brings to the egress hook, though nothing passed the other
		s.Hops = s.Hops[1:]
	}
	s.Packet.Payload = pick(g, 0, 0, 1, 7, 100)
	return s
}

// packet is the talk's next one, or a hostile one.
func (g *Generator) packet(t *talk) Step {
	if t.protocol != packet.TCP {
		fromClient := t.at == 0 || g.chance(50)
		t.at++
		return g.send(t, fromClient, t.base(fromClient))
	}
	if g.chance(30) {
		return g.hostile(t)
	}
	p, fromClient := t.script()
	if g.chance(12) { // lost on the way: the other end never saw it, or we do not
		p, fromClient = t.script()
	}
	return g.send(t, fromClient, p)
}

// script is a session from SYN to the last ACK, then another.
func (t *talk) script() (Packet, bool) {
	const S, A, F = packet.SYN, packet.ACK, packet.FIN
	acts := [...]struct {
		fromClient bool
		flags      uint8
	}{{true, S}, {false, S | A}, {true, A}, {true, A}, {false, A}, {false, A}, {true, A}, {true, F | A}, {false, A}, {false, F | A}, {true, A}}
	if t.at == len(acts) {
		t.at = 0
		t.cseq, t.sseq = t.cseq+10000, t.sseq+10000
	}
	act := acts[t.at]
	p := t.base(act.fromClient)
	p.Flags = act.flags
	own, other := t.cseq, t.sseq
	if !act.fromClient {
		own, other = other, own
	}
	p.Seq = own
	if act.flags != S {
		p.Seq, p.Ack = own+1, other+1
	}
	if act.flags == S|A {
		p.Seq = own
	}
	t.at++
	return p, act.fromClient
}

// hostile is a segment that anybody could have made.
func (g *Generator) hostile(t *talk) Step {
	const S, A, F, R = packet.SYN, packet.ACK, packet.FIN, packet.RST
	fromClient := g.chance(50)
	p := t.base(fromClient)
	p.Flags = pick[uint8](g, S, S, S|A, A, A, R, R|A, F, F|A, 0, S|F, S|R, packet.PSH|A, 0xff)
	own, other := t.cseq, t.sseq
	if !fromClient {
		own, other = other, own
	}
	p.Seq = own + pick[uint32](g, 0, 1, 1<<30)
	if p.Flags&A != 0 {
		p.Ack = other + pick[uint32](g, 0, 1, 1, 1<<30, 1<<31)
	}
	return g.send(t, fromClient, p)
}

// complaint is an ICMP error about one side of a talk, from the other end, a router or a liar.
func (g *Generator) complaint(t *talk) Step {
	aboutClient := g.chance(70)
	quoted := t.base(aboutClient)
	to, from := t.ends(aboutClient)
	if g.chance(15) {
		quoted = quoted.Reply()
	}
	if g.chance(15) {
		quoted.Dport++
	}
	if quoted.Protocol == packet.TCP {
		quoted.Flags, quoted.Seq = packet.ACK, 77
	}
	quoted.Payload = pick(g, 0, 30)
	if g.chance(40) {
		if r := pick(g, g.Cast.Routers...); r.Addr.Is4() == to.Addr.Is4() && r.Interface != to.Interface {
			from = r
		}
	}
	if g.chance(8) {
		for other := pick(g, g.Cast.Endpoints...); ; other = pick(g, g.Cast.Endpoints...) {
			if other.Addr.Is4() == from.Addr.Is4() && other.Interface != from.Interface {
				to = other
				break
			}
		}
	}
	p := Packet{Protocol: packet.ICMP, Src: from.Addr, Dst: to.Addr, Type: pick[uint8](g, unreachable4, exceeded4), Code: 1, TTL: 64, Quote: &quoted, Short: g.chance(50)}
	if p.Src.Is6() {
		p.Protocol, p.Type, p.Short = packet.ICMPv6, pick[uint8](g, unreachable6, tooBig6), false
	}
	return Step{Hops: way(from, to), Packet: p, AsSeen: g.chance(90)}
}

// fragments are a datagram's, in order or not, sometimes one alone.
func (g *Generator) fragments(t *talk) []Step {
	fromClient := g.chance(60)
	first := t.base(fromClient)
	if first.Protocol == packet.TCP {
		first.Flags, first.Seq = packet.ACK, 77
	}
	first.Part, first.Datagram = FirstFragment, t.id
	if first.Protocol != packet.UDP || g.chance(30) {
		t.id++
	}
	later := first
	later.Part, later.Sport, later.Dport = LaterFragment, 0, 0
	a, b := g.send(t, fromClient, first), g.send(t, fromClient, later)
	a.Packet.Payload, b.Packet.Payload, b.Packet.NoSum = 64, 0, false
	switch {
	case g.chance(10):
		return []Step{b, a}
	case g.chance(15):
		return []Step{b}
	}
	return []Step{a, b}
}

// stray is from an address that its sender has no right to, or a message of ICMP that is of no flow.
func (g *Generator) stray() Step {
	t := pick(g, g.talks...)
	p := t.base(true)
	from, to := t.ends(true)
	if g.chance(50) {
		p.Src = pick(g, g.Cast.Endpoints...).Addr
		if p.Src.Is4() != p.Dst.Is4() || p.Src == p.Dst {
			p.Src = from.Addr
		}
	} else {
		p = Packet{Protocol: packet.ICMP, Src: p.Src, Dst: p.Dst, Type: 13, TTL: 64} // a timestamp
		if p.Src.Is6() {
			p.Protocol, p.Type = packet.ICMPv6, 200
		}
	}
	return Step{Hops: way(from, to), Packet: p}
}
