package flowmodel

import (
	"fmt"
	"net/netip"

	"sluice/xdp/abi"
	"sluice/xdp/classify"
	"sluice/xdp/packet"
)

// translateBack is the way in at an uplink: what was sent to a translated source goes to who it was translated for.
func (v *visit) translateBack() {
	if v.p.IsError() {
		q := *v.p.Quote
		k, ok := v.keyAt(v.hook, q)
		if w := v.wire(k); ok && w != nil {
			from, _ := q.Ends()
			if f := v.Flows[w.Inner]; from == f.NAT && v.p.Dst == q.Src {
				q = q.withSource(w.End)
				v.p.Quote, v.p.Dst = &q, w.End.Addr()
			}
		}
		return
	}
	part := datagramOf(&v.p)
	if v.p.Part == LaterFragment {
		if f, ok := v.part(part); ok && f.to.IsValid() {
			v.p.Dst, v.follows = f.to, true
		}
		return
	}
	k, ok := v.keyAt(v.hook, v.p)
	if !ok {
		return
	}
	w := v.wire(k)
	_, to := v.p.Ends()
	if w == nil || v.Flows[w.Inner].NAT != to || v.Flows[w.Inner].reopens(v.p) {
		return // a new session of the outside's is not what the translation was made for
	}
	v.p = v.p.withDestination(w.End)
}

// received lets the later fragments of what was translated back and has passed follow it.
func (v *visit) received() {
	if v.p.Part == FirstFragment && v.p.Dst != v.came.Dst {
		v.parts[datagramOf(&v.came)] = fate{v.p.Dst, v.Now}
	}
}

// outward tracks a packet on its way out by an uplink, and gives it the source that it needs. iface is where it came in.
func (v *visit) outward(o *Outcome, iface, uplink string, observed *Observed) {
	track := func() {
		if v.hook.Egress {
			v.trackForwarded()
		} else {
			v.track(true, iface)
		}
	}
	needs := v.g.translates(iface, v.p.Src)
	part := datagramOf(&v.p)
	switch {
	case v.flow != nil && !v.reply && v.holds(v.flow): // as long as the flow lives
		track()
		v.rewriteSource(part)
	case v.reply: // the outside opened it, and knows the source as it is
		track()
		v.leavesAsItIs(part, needs)
	case v.p.IsError():
		if f := v.quotesFlow(); f == nil && needs || v.lies() {
			v.drop(o, abi.ReasonSnatUntracked)
		} else if f != nil && needs && !v.g.Self[f.NAT.Addr()] && v.isOpener(f) {
			v.drop(o, abi.ReasonSnatUntracked) // the inside opened it before it was to be translated, or to an address that is gone
		} else {
			v.quoteOutward()
		}
	case v.p.Part == LaterFragment:
		v.laterOutward(o, part, needs)
	case !needs:
		if v.flow != nil && v.flow.NAT.IsValid() { // what translated it is gone
			v.anew()
		}
		track()
		v.leavesAsItIs(part, needs)
	case !v.tracked || v.flow == nil && v.p.Has(packet.RST) || v.p.IsEcho() && !v.p.isEchoRequest():
		v.drop(o, abi.ReasonSnatUntracked)
	default:
		v.begin(o, iface, uplink, observed, track, part)
	}
}

// holds says whether a flow has its translation, and the box the address still.
func (v *visit) holds(f *Flow) bool {
	return f.NAT.IsValid() && (v.cached || v.g.Self[f.NAT.Addr()]) && v.wire(wireKey(f)) != nil
}

// lies says whether an error of a workload is about what was not sent to it: a workload is no router.
func (v *visit) lies() bool {
	q := v.p.Quote
	_, ok := v.keyAt(v.hook, *q)
	return ok && q.Src == v.p.Dst && v.g.workload(v.p.Src) != nil && q.Dst != v.p.Src
}

// anew has the packet begin another flow.
func (v *visit) anew() {
	v.once = v.once && (!v.cached || v.flow.Epoch != 0)
	v.flow, v.cached = nil, false
}

// isOpener says whether the packet that an error quotes went to who opened the flow.
func (v *visit) isOpener(f *Flow) bool { return f.Opener.Addr() == v.p.Quote.Dst }

func (v *visit) drop(o *Outcome, reason abi.Reason) { o.Reason, o.To = reason, "" }

func (v *visit) leavesAsItIs(part datagram, needs bool) {
	if needs && v.p.Part == FirstFragment {
		v.parts[part] = fate{at: v.Now}
	}
}

func (v *visit) rewriteSource(part datagram) {
	if v.p.Part == FirstFragment {
		v.parts[part] = fate{v.flow.NAT.Addr(), v.Now}
	}
	v.p = v.p.withSource(v.flow.NAT)
}

// laterOutward follows the first fragment.
func (v *visit) laterOutward(o *Outcome, part datagram, needs bool) {
	f, ok := v.part(part)
	if !ok && !needs {
		return
	}
	if !ok {
		v.drop(o, abi.ReasonSnatFragment)
		return
	}
	if f.to.IsValid() {
		v.p.Src = f.to
	}
}

// begin gives a flow its translation.
func (v *visit) begin(o *Outcome, iface, uplink string, observed *Observed, track func(), part datagram) {
	address := v.g.source(iface, uplink, v.p.Src)
	if !address.IsValid() {
		v.drop(o, abi.ReasonSnatNoAddress)
		return
	}
	if v.p.Has(packet.RST) {
		v.drop(o, abi.ReasonSnatUntracked)
		return
	}
	if v.flow != nil { // it began before it was to be translated: now it is another
		v.anew()
	}
	from, _ := v.p.Ends()
	port, fault := v.choose(v.candidates(from), address, observed)
	o.Fault = fault
	if port < 0 {
		v.drop(o, abi.ReasonSnatExhausted)
		return
	}
	track()
	f := v.flow
	f.NAT = netip.AddrPortFrom(address, uint16(port))
	v.Wires[wireKey(f)] = &Wire{Inner: f.Key, Birth: f.Birth, End: f.Opener, Made: v.Now}
	v.rewriteSource(part)
}

// candidates are the ports that a source may get: any of the range, or where the protocol knows none its own.
func (v *visit) candidates(from netip.AddrPort) []uint16 {
	asker := v.p.IsEcho() && v.p.isEchoRequest()
	if v.p.Protocol != packet.TCP && v.p.Protocol != packet.UDP && v.p.Protocol != packet.UDPLite && !asker {
		return []uint16{from.Port()}
	}
	var all []uint16
	for port := int(v.g.FirstPort); port <= int(v.g.LastPort); port++ {
		all = append(all, uint16(port))
	}
	return all
}

// choose returns a port that is free, as observed where that is one; -1: there is none, or the program found none and may be
// right. One that the box listens on is nobody's: who draws it is dropped.
func (v *visit) choose(candidates []uint16, address netip.Addr, observed *Observed) (port int, fault string) {
	_, to := v.p.Ends()
	free, doubtful, blocked := -1, -1, false
	for _, c := range candidates {
		k := KeyOf(v.p.Protocol, netip.AddrPortFrom(address, c), to, "")
		if v.wire(k) != nil {
			continue
		}
		f := v.Find(k)
		mine := f != nil && (f.Inside || f.proven)
		switch {
		case v.reserved(address, c):
			mine, blocked = true, true
		case mine: // the node's own, or one that the outside opened and proved
		case f != nil, v.Wires[k] != nil && v.Now-v.Wires[k].Made < 2*grace:
			doubtful = int(c)
		default:
			free = int(c)
		}
		if observed != nil && !drops(observed.Reason) && observed.Source.Port() == c {
			if mine {
				fault = fmt.Sprintf("port %d is the box's own, or in use by %v", c, f)
			}
			return int(c), fault
		}
	}
	switch {
	case observed != nil && !drops(observed.Reason):
		return max(free, doubtful, 0), fmt.Sprintf("source %s is not to be had: of the ports %v it is outside or taken", observed.Source, candidates)
	case free >= 0 && (!blocked || observed == nil || observed.Reason != abi.ReasonSnatExhausted):
		return free, ""
	case doubtful >= 0 && (observed == nil || observed.Reason != abi.ReasonSnatExhausted):
		return doubtful, ""
	}
	return -1, ""
}

// reserved says whether the box is to hear what the other end sends to an address and port, by system rules or management:.
func (v *visit) reserved(address netip.Addr, port uint16) bool {
	sent := v.p.withSource(netip.AddrPortFrom(address, port))
	back := sent.Reply()
	back.Part, back.Flags, back.TTL = Whole, v.p.Flags, 255
	return accepted(classify.Judge(v.g.System, back.seen())) || accepted(classify.Judge(v.g.Failsafe, back.seen()))
}

// quoteOutward has an ICMP error speak of a translated flow as the outside knows it.
func (v *visit) quoteOutward() {
	if !v.p.IsError() {
		return
	}
	q := *v.p.Quote
	k, ok := v.keyAt(v.hook, q)
	f := v.Find(k)
	_, to := q.Ends()
	if !ok || f == nil || !v.g.Self[f.NAT.Addr()] || to != f.Opener || q.Src != v.p.Dst {
		return
	}
	if v.p.Src == q.Dst || v.from != "" && v.g.translates(v.from, v.p.Src) {
		v.p.Src = f.NAT.Addr()
	}
	q = q.withDestination(f.NAT)
	v.p.Quote = &q
}

// clashes says whether the box's own packet has the addresses and ports of a translated flow.
func (v *visit) clashes() bool {
	return v.role == abi.RoleUplink && v.tracked && v.wire(v.key) != nil
}
