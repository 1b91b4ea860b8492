package flowmodel

import (
	"net/netip"
	"time"

	"sluice/xdp/abi"
	"sluice/xdp/classify"
	"sluice/xdp/packet"
)

// visit is one packet at one hook.
type visit struct {
	*Model
	g       *Generation
	hook    Hook
	role    abi.Role
	from    string // at egress: where it came in; "": made here
	p       Packet
	came    Packet // as it was before it was translated back
	key     Key
	tracked bool
	flow    *Flow // that it belongs to, alive
	reply   bool  // its sender did not open the flow
	follows bool  // a later fragment of a datagram that was translated back
	related bool  // an ICMP error about a flow
	cached  bool  // the policies of this hook have judged the flow already
	once    bool  // no policy that was asked looks at more than the flow
	rules   [2]uint32
	judged  abi.Reason
}

// key of a packet at a hook; false where it has none.
func (m *Model) keyAt(h Hook, p Packet) (Key, bool) {
	if p.Part == LaterFragment || p.IsICMP() && !p.IsEcho() {
		return Key{}, false
	}
	from, to := p.Ends()
	scope := ""
	if m.generation().Interfaces[h.Interface].Role == abi.RoleWorkload && p.Src.Is6() &&
		(p.Src.IsLinkLocalUnicast() || p.Dst.IsLinkLocalUnicast()) {
		scope = h.Interface
	}
	return KeyOf(p.Protocol, from, to, scope), true
}

// find finds the packet's flow.
func (v *visit) find() {
	v.once = true
	v.key, v.tracked = v.keyAt(v.hook, v.p)
	v.reply = v.follows
	quoted := v.quotesFlow()
	v.related = quoted != nil && !quoted.Revoked()
	if !v.tracked {
		return
	}
	v.flow = v.Find(v.key)
	if v.flow != nil && v.flow.reopens(v.p) {
		v.flow = nil
	}
	if v.flow == nil {
		return
	}
	from, _ := v.p.Ends()
	v.reply = from != v.flow.Opener
	if v.reply {
		return
	}
	v.cached = v.flow.Epoch == v.Live+1 && v.flow.At == v.hook && v.p.Part == Whole && !v.flow.Revoked() && !v.flow.ask &&
		v.flow.In == v.entry()
	if v.cached {
		v.rules, v.judged = v.flow.Rules, v.flow.Judged
		for _, rule := range v.rules {
			if rule != 0 {
				v.Hits[rule]++
			}
		}
	}
}

// settle returns a reason where the flow decides: one that policy no longer permits.
func (v *visit) settle() abi.Reason {
	if v.flow == nil || !v.reply || v.review() {
		return abi.ReasonNone
	}
	if v.flow.Revoked() {
		v.touch(v.flow)
	}
	return abi.ReasonFlowRevoked
}

// review judges a flow's first direction for its reply, once in a generation, as the hooks on its way would. What a policy says
// that looks at more than the flow holds for this packet alone. It returns whether the reply may pass.
func (v *visit) review() bool {
	f := v.flow
	if f.Epoch == 0 || f.Epoch == v.Live+1 {
		return !f.Revoked()
	}
	turned := v.p.Reply()
	turned.Part = Whole
	if turned.Protocol == packet.TCP {
		turned.Flags = packet.ACK
	}
	switch v.permits(f, turned) {
	case never:
		f.Epoch, f.ask, f.Judged = v.Live+1, true, abi.ReasonFlowRevoked
	case always:
		f.Epoch, f.ask, f.Judged = v.Live+1, true, abi.ReasonNone
	case now:
		f.Epoch, f.ask, f.Judged = 0, true, abi.ReasonNone
	case unknown:
		return false
	}
	return !f.Revoked()
}

// verdict of a review: for the flow, or for one packet alone.
type verdict int

const (
	always  verdict = iota
	now             // accepted, but another packet may not be
	unknown         // dropped, but another packet may not be
	never
)

// asked is what one policy says.
func asked(policy classify.Policy, p Packet) verdict {
	switch ok, one := accepted(classify.Judge(policy, p.seen())), perPacket(policy); {
	case ok && one:
		return now
	case ok:
		return always
	case one:
		return unknown
	}
	return never
}

// permits asks the policies on the way of a flow's first direction about a packet of it: those of where it came in, then those of
// where it goes; and the matrix.
func (v *visit) permits(f *Flow, p Packet) verdict {
	g := v.g
	receiver := g.workload(p.Dst)
	if f.In == "" { // the node's own
		if receiver != nil && v.hook.Egress {
			return always
		}
		if receiver != nil {
			return asked(receiver.Ingress, p)
		}
		if asked(g.System, p) <= now || v.answersFailsafe(p) {
			return always
		}
		return asked(g.Egress, p)
	}
	worst := always
	from := g.Interfaces[f.In].Role
	switch from {
	case abi.RoleWorkload:
		w := g.behind(f.In)
		if w == nil {
			return never
		}
		worst = asked(w.Egress, p)
	case abi.RoleUplink, abi.RoleTunnel:
		if !(g.local(p.Dst) && asked(g.Failsafe, p) <= now) && asked(g.System, p) > now {
			worst = asked(g.Ingress, p)
		}
	}
	if worst > now || v.hook.Egress { // who is to receive it, and so answers, was asked where the answer came in
		return worst
	}
	last := always
	if to, ok := v.goes(p.Dst); ok && !g.mayForward(from, to) {
		last = never
	} else if receiver != nil {
		last = asked(receiver.Ingress, p)
	}
	if worst == now && last == never {
		return unknown // the first one may have thought so of this packet alone
	}
	return max(worst, last)
}

// goes is the role of where a destination that is not the box's own is.
func (v *visit) goes(to netip.Addr) (abi.Role, bool) {
	if v.g.workload(to) != nil {
		return abi.RoleWorkload, true
	}
	if v.g.local(to) {
		return abi.RoleNone, false
	}
	by, ok := v.World.route(to)
	return v.g.Interfaces[by].Role, ok
}

func accepted(d classify.Decision) bool {
	return d.Action != classify.Drop && d.Action != classify.Continue
}

// ask judges by one policy. Where its default drops, flows excuse.
func (v *visit) ask(policy classify.Policy, receiver bool) abi.Reason {
	if v.cached {
		return v.judged
	}
	d := classify.Judge(policy, v.p.seen())
	reason := reasonOf(d)
	if reason == abi.ReasonDefaultDrop || reason == abi.ReasonFragmentDefaultDrop {
		if v.reply {
			return abi.ReasonEstablished
		}
		if v.related {
			return abi.ReasonICMPError
		}
	}
	rule := v.count(policy, d)
	if perPacket(policy) {
		v.once = false
	}
	if d.Action == classify.Continue {
		return abi.ReasonNone
	}
	if receiver {
		v.rules[1] = rule
	} else {
		v.rules[0] = rule
	}
	if reason.Fate() == abi.FateDrop && v.flow != nil && !v.reply && v.flow.In == v.entry() && v.p.Part == Whole && !perPacket(policy) {
		v.flow.Judged, v.flow.Epoch = abi.ReasonFlowRevoked, v.Live+1
		v.touch(v.flow)
	}
	v.judged = reason
	return reason
}

// count adds to the counters of the rule, or default, that decided, and returns its id.
func (v *visit) count(policy classify.Policy, d classify.Decision) uint32 {
	for _, id := range d.Shadows {
		v.Hits[id]++
	}
	id := d.Rule
	if d.Reason == classify.ByDefault || d.Reason == classify.ByFragment {
		id = policy.DefaultID
	}
	if id != 0 {
		v.Hits[id]++
	}
	return id
}

func reasonOf(d classify.Decision) abi.Reason {
	drop := d.Action == classify.Drop
	pick := func(whenDrop, whenAccept abi.Reason) abi.Reason {
		if drop {
			return whenDrop
		}
		return whenAccept
	}
	switch {
	case d.Action == classify.Continue:
		return abi.ReasonNone
	case d.Reason == classify.ByRule:
		return pick(abi.ReasonRuleDrop, abi.ReasonRuleAccept)
	case d.Reason == classify.ByFragment:
		return pick(abi.ReasonFragmentDefaultDrop, abi.ReasonFragmentDefaultAccept)
	case d.Reason == classify.ByFragmentRule:
		return pick(abi.ReasonFragmentDrop, abi.ReasonFragmentAccept)
	}
	return pick(abi.ReasonDefaultDrop, abi.ReasonDefaultAccept)
}

// quotesFlow is the flow of which an ICMP error quotes a packet, of either direction. The error goes to who sent that; a workload
// complains of what was sent to itself alone.
func (v *visit) quotesFlow() *Flow {
	if !v.p.IsError() {
		return nil
	}
	k, ok := v.keyAt(v.hook, *v.p.Quote)
	if !ok || v.p.Quote.Src != v.p.Dst {
		return nil
	}
	if v.role == abi.RoleWorkload && !v.hook.Egress && v.p.Quote.Dst != v.p.Src {
		return nil
	}
	return v.Find(k)
}

// answersFailsafe says whether management: lets the packet in that this one answers.
func (v *visit) answersFailsafe(p Packet) bool {
	turned := p.Reply()
	turned.Flags = p.Flags
	return v.g.Self[turned.Dst] && accepted(classify.Judge(v.g.Failsafe, turned.seen()))
}

// track enters the packet's flow, or notes one more packet of it.
func (v *visit) track(inside bool, owner string) {
	if !v.tracked {
		return
	}
	from, _ := v.p.Ends()
	f, judges := v.flow, v.p.Part == Whole && v.flow != nil && v.moves(v.flow) // of a fragment policies may think otherwise
	if f == nil && v.p.Has(packet.RST) {
		return // it ends what nobody knows
	}
	if f == nil {
		f, judges = v.enter(from, inside, owner), true
	}
	if judges && !v.reply && !v.cached {
		f.Epoch, f.At, f.In, f.Rules, f.Judged = 0, v.hook, v.entry(), v.rules, v.judged
		if v.once {
			f.Epoch = v.Live + 1
		}
		f.ask = false
	}
	was, late := f.State(), v.Now-f.Last > time.Second
	f.see(v.p, !v.reply, late)
	if f.State() == was && !late {
		return
	}
	f.Last = v.Now
	atItsEnd := !v.reply && f.provenAtItsEnd(v.p)
	f.proven = f.proven || atItsEnd
	if atItsEnd || f.State() == Established {
		v.promote(f)
	}
}

// moves says whether a packet of the first direction speaks for its flow, wherever it came in: elsewhere another policy may have judged
// it, and somebody else may have sent it.
func (v *visit) moves(f *Flow) bool {
	to := v.entry()
	if f.In == to || to == "" || v.g.Interfaces[to].Role == abi.RoleWorkload {
		return true
	}
	return f.In != "" && v.g.Interfaces[f.In].Role == v.g.Interfaces[to].Role
}

// entry is where the packet came in: "" for the node's own.
func (v *visit) entry() string {
	if v.hook.Egress {
		return v.from
	}
	return v.hook.Interface
}

// enter makes a flow of its first packet, and what had its key is gone.
func (v *visit) enter(from netip.AddrPort, inside bool, owner string) *Flow {
	v.born++
	f := &Flow{Key: v.key, Birth: v.born, Opener: from, Inside: inside, Owner: owner, Last: v.Now, Table: FreshIn}
	if inside {
		f.Table = FreshOut
	}
	v.Flows[v.key] = f
	v.flow = f
	return f
}

// promote keeps a proven flow from being evicted, where there is room and its owner has not had its half.
func (m *Model) promote(f *Flow) {
	if f.Table == Proven || m.count(Proven) >= m.World.MaxFlows || m.Shares[f.Owner] >= m.World.MaxFlows/2 {
		return
	}
	f.Table = Proven
	m.Shares[f.Owner]++
}

func (m *Model) count(t Table) int {
	n := 0
	for _, f := range m.Flows {
		if f.Table == t {
			n++
		}
	}
	return n
}
