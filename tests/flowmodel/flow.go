package flowmodel

import (
	"fmt"
	"net/netip"
	"time"

	"sluice/xdp/abi"
	"sluice/xdp/packet"
)

// Key is the same for both directions.
type Key struct {
	A, B     netip.AddrPort // A is the smaller
	Protocol uint8
	Scope    string // interface of the workload, of link-local addresses behind one
}

// KeyOf orders the ends.
func KeyOf(protocol uint8, a, b netip.AddrPort, scope string) Key {
	if b.Compare(a) < 0 {
		a, b = b, a
	}
	return Key{a, b, protocol, scope}
}

func (k Key) String() string {
	return fmt.Sprintf("%s %s - %s%s", packet.ProtocolName(k.Protocol), k.A, k.B, k.Scope)
}

// Table is where a flow is kept.
type Table string

// The tables. A proven flow is never evicted.
const (
	Proven   Table = "flows"
	FreshOut Table = "fresh_out" // opened by the node, a workload or a LAN
	FreshIn  Table = "fresh_in"
)

// State is enum flow_state.
type State uint8

// The states.
const (
	New State = iota
	Replied
	Established
	Closing
	Closed
)

func (s State) String() string {
	return [...]string{"new", "replied", "established", "closing", "closed"}[s]
}

// Flow is one flow. What packets did to it is kept as facts, and its state follows from them.
type Flow struct {
	Key     Key
	Table   Table
	Birth   int            // counts flows, so that it tells one from another of the same key
	Opener  netip.AddrPort // the end that sent the first packet
	Inside  bool           // who opened it
	Owner   string         // interface of the workload or LAN that opened it; "": the node, or the outside
	Last    time.Duration  // of the last packet, give or take a second
	Epoch   int            // generation that judged the first direction last, counted from 1; 0: each packet is judged
	At      Hook           // where
	In      string         // interface by which the first direction comes in; "": the node's own
	Rules   [2]uint32      // that let it in: of who sends, of who receives
	Judged  abi.Reason     // what the judgement gave, or abi.ReasonFlowRevoked
	NAT     netip.AddrPort // source of the first direction on the wire; invalid: as it is
	Packets [2]uint64      // 0: from the opener
	Bytes   [2]uint64

	lost     bool // its translation, to the box itself
	ask      bool // the generation accepts it, but which rule does is not known yet
	answered bool // both directions were seen
	proven   bool
	seq      uint32 // TCP: what the opener must acknowledge
	asked    bool   // whether seq is known
	answer   bool   // TCP: the answer was more than a reset
	fin      [2]bool
	reset    bool
}

// State is what the facts come to.
func (f *Flow) State() State {
	switch {
	case f.reset || f.fin[0] && f.fin[1]:
		return Closed
	case f.fin[0] || f.fin[1]:
		return Closing
	case f.proven:
		return Established
	case f.answered:
		return Replied
	}
	return New
}

// Revoked says that both directions are dropped.
func (f *Flow) Revoked() bool { return f.Judged == abi.ReasonFlowRevoked }

// Timeout is how long it lives after its last packet.
func (f *Flow) Timeout() time.Duration {
	state := f.State()
	switch {
	case f.Revoked():
		return 60 * time.Second
	case f.Key.Protocol == packet.TCP && f.reset:
		return 10 * time.Second
	case f.Key.Protocol == packet.TCP && state == Closed && f.Inside:
		return 30 * time.Second
	case f.Key.Protocol == packet.TCP && state == Closed:
		return 70 * time.Second
	case f.Key.Protocol == packet.TCP && state == Closing:
		return 120 * time.Second
	case f.Key.Protocol == packet.TCP && state == Established:
		return 7440 * time.Second
	case f.Key.Protocol == packet.TCP:
		return 60 * time.Second
	case f.Key.Protocol == packet.UDP && f.answered:
		return 180 * time.Second
	case f.Key.Protocol == packet.UDP:
		return 60 * time.Second
	case f.isEcho():
		return 30 * time.Second
	case f.answered:
		return 600 * time.Second
	}
	return 60 * time.Second
}

func (f *Flow) isEcho() bool {
	return f.Key.Protocol == packet.ICMP && f.Key.A.Addr().Is4() || f.Key.Protocol == packet.ICMPv6 && f.Key.A.Addr().Is6()
}

// see takes in what one more packet of the flow says, the first one included. late: the one before it was more than a second ago.
func (f *Flow) see(p Packet, fromOpener, late bool) {
	side := 1
	if fromOpener {
		side = 0
	}
	f.Packets[side]++
	f.Bytes[side] += uint64(14 + len(p.ip()))
	f.answered = f.answered || !fromOpener
	if f.Key.Protocol != packet.TCP {
		f.proven = f.Inside && f.answered // from outside the source may be forged
		return
	}
	if p.Has(packet.RST) {
		f.reset = true
		return
	}
	if f.reset && (p.Has(packet.SYN) || !late) { // it crossed with the reset
		return
	}
	if f.reset && !f.proven { // data that goes on: the reset was forged
		f.answered, f.answer = !fromOpener, false
	}
	f.reset = false
	switch {
	case f.proven || f.fin[0] || f.fin[1]: // see provenAtItsEnd
	case !fromOpener && p.Has(packet.SYN):
		f.seq, f.asked, f.answer = p.Seq+1, true, true
	case !fromOpener:
		f.answer = true // a reset alone shows nothing: a host without the connection sends it to anybody
	case !p.Has(packet.ACK) || !f.answered:
	case f.asked:
		f.proven = p.Ack-f.seq <= f.sent()
	default:
		f.proven = f.answer // its beginning was not seen
	}
	f.fin[side] = f.fin[side] || p.Has(packet.FIN)
}

// provenAtItsEnd says whether a packet of the opener acknowledges what the other end has said, its FIN included.
func (f *Flow) provenAtItsEnd(p Packet) bool {
	return f.Key.Protocol == packet.TCP && f.fin[1] && !f.reset && p.Has(packet.ACK) && (!f.asked || p.Ack-f.seq <= f.sent())
}

// sent is what the other end has sent beyond the least of headers: what of it was acknowledged may be all of that.
func (f *Flow) sent() uint32 {
	const headers = 14 + 20 + 20
	return uint32(max(int64(f.Bytes[1])-headers*int64(f.Packets[1]), 0))
}

// reopens says whether a packet begins a new flow on the ruins of this one.
func (f *Flow) reopens(p Packet) bool {
	return f.Key.Protocol == packet.TCP && f.State() == Closed && p.Flags&(packet.SYN|packet.ACK) == packet.SYN
}

// String is one readable line.
func (f *Flow) String() string {
	text := fmt.Sprintf("%s, %s by %s, %s", f.Key, f.State(), f.Opener, f.Table)
	if f.Inside {
		text += ", inside"
	}
	if f.Owner != "" {
		text += " (" + f.Owner + ")"
	}
	if f.NAT.IsValid() {
		text += ", as " + f.NAT.String()
	}
	return fmt.Sprintf("%s, judged %s at %s in generation %d by rules %v, packets %v, bytes %v",
		text, f.Judged, f.At, f.Epoch, f.Rules, f.Packets, f.Bytes)
}
