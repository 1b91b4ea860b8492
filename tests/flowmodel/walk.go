package flowmodel

import (
	"net/netip"

	"sluice/xdp/abi"
	"sluice/xdp/classify"
)

// Run takes a packet through a hook. from is, at egress, the interface that it came in by. observed is what the program did,
// where it has a choice; nil: the model chooses.
func (m *Model) Run(h Hook, from string, p Packet, mark uint32, observed *Observed) Outcome {
	g := m.generation()
	v := &visit{Model: m, g: g, hook: h, role: g.Interfaces[h.Interface].Role, from: from, p: p, came: p}
	var o Outcome
	if h.Egress {
		o = v.egress(mark&^abi.MarkPassed, observed)
	} else {
		o = v.ingress(mark&^abi.MarkOurs, observed)
	}
	return o
}

// leaves is the outcome without a redirect: the packet as it is now, or dropped.
func (v *visit) leaves(reason abi.Reason, mark uint32) Outcome {
	return Outcome{Reason: reason, Mark: mark, Left: v.p}
}

func drops(reason abi.Reason) bool { return reason.Fate() == abi.FateDrop }

func (v *visit) ingress(mark uint32, observed *Observed) Outcome {
	if v.role == abi.RoleUplink && v.g.Self[v.p.Dst] {
		v.translateBack()
	}
	v.find()
	local := v.g.local(v.p.Dst)
	if r := v.admit(local); drops(r) {
		return v.leaves(r, mark)
	}
	reason := v.settle()
	if drops(reason) {
		return v.leaves(reason, mark)
	}
	if v.role == abi.RoleWorkload {
		reason = v.ask(v.g.behind(v.hook.Interface).Egress, false)
	} else {
		reason = v.judgeOutside(local)
	}
	if drops(reason) {
		return v.leaves(reason, mark)
	}
	if to := v.g.workload(v.p.Dst); to != nil {
		return v.toWorkload(to, mark)
	}
	if local {
		v.trackHere()
		return v.leaves(abi.ReasonLocal, mark)
	}
	if v.role == abi.RoleWorkload {
		return v.forward(mark, observed)
	}
	v.received()
	return v.leaves(abi.ReasonStackForward, mark)
}

// admit says whether a source may be one.
func (v *visit) admit(local bool) abi.Reason {
	owner := v.g.workload(v.p.Src)
	linkLocal := v.p.Src.Is6() && v.p.Src.IsLinkLocalUnicast()
	switch {
	case v.role == abi.RoleWorkload && v.g.behind(v.hook.Interface) == nil:
		return abi.ReasonWorkloadUnknown
	case v.role == abi.RoleWorkload && (owner == nil || owner.Interface != v.hook.Interface) && !(linkLocal && local):
		return abi.ReasonWorkloadSpoofed
	case v.role != abi.RoleWorkload && !linkLocal && (owner != nil || v.g.Self[v.p.Src]):
		return abi.ReasonMartianSource
	}
	return abi.ReasonNone
}

// judgeOutside is policy.ingress, where XDP does not judge it. It is about what is on the wire.
func (v *visit) judgeOutside(local bool) abi.Reason {
	if !v.g.Interfaces[v.hook.Interface].Judge {
		return abi.ReasonNone
	}
	if v.cached {
		return v.judged
	}
	if v.p.Dst != v.came.Dst {
		inner := v.p
		v.p, local = v.came, true
		defer func() { v.p = inner }()
	}
	if local && !drops(v.ask(v.g.Failsafe, false)) && v.judged != abi.ReasonNone {
		v.judged = abi.ReasonFailsafe
		return v.judged
	}
	if v.ask(v.g.System, false); v.judged != abi.ReasonNone {
		v.judged = abi.ReasonSystem
		return v.judged
	}
	if v.related {
		return abi.ReasonICMPError
	}
	return v.ask(v.g.Ingress, false)
}

// inside says whether what comes in here is opened by the inside, and in whose name.
func (v *visit) inside() (bool, string) {
	if v.role == abi.RoleWorkload || v.role == abi.RoleDownstream {
		return true, v.hook.Interface
	}
	return false, ""
}

// trackHere tracks at an ingress hook.
func (v *visit) trackHere() {
	inside, owner := v.inside()
	v.track(inside, owner)
}

func (v *visit) toWorkload(to *Workload, mark uint32) Outcome {
	if v.role != abi.RoleWorkload && isUnroutable(v.p.Src) {
		return v.leaves(abi.ReasonUnroutable, mark)
	}
	if !v.permitted(v.role, abi.RoleWorkload) {
		return v.leaves(abi.ReasonForwardDenied, mark)
	}
	if reason := v.ask(to.Ingress, true); drops(reason) {
		return v.leaves(reason, mark)
	}
	v.trackHere()
	v.received()
	if v.p.TTL <= 1 {
		return v.leaves(abi.ReasonStackTTL, mark|abi.MarkDeliver)
	}
	v.p.TTL--
	o := v.leaves(abi.ReasonDelivered, mark)
	o.To = to.Interface
	return o
}

func isUnroutable(src netip.Addr) bool {
	if src.Is4() {
		first := src.As4()[0]
		return first == 0 || first == 127 || first >= 224
	}
	return src.IsMulticast() || src.IsLinkLocalUnicast() || src.IsUnspecified() || src.IsLoopback()
}

// permitted says whether the matrix lets a packet pass, or its flow excuses it: a later fragment, as its first one was.
func (v *visit) permitted(from, to abi.Role) bool {
	if v.g.mayForward(from, to) {
		return true
	}
	d := datagramOf(&v.p)
	excused := v.reply || v.related
	switch v.p.Part {
	case LaterFragment:
		return v.excused[d]
	case FirstFragment:
		v.excused[d] = v.excused[d] || excused
	}
	return excused
}

// forward is the fast path from a workload.
func (v *visit) forward(mark uint32, observed *Observed) Outcome {
	to, ok := v.World.route(v.p.Dst)
	if !ok {
		return v.leaves(abi.ReasonStackNoRoute, mark)
	}
	out := v.g.Interfaces[to]
	if !v.permitted(v.role, out.Role) {
		return v.leaves(abi.ReasonForwardDenied, mark)
	}
	if v.p.TTL <= 1 {
		return v.leaves(abi.ReasonStackTTL, mark)
	}
	o := Outcome{Reason: abi.ReasonForwarded, To: to, Mark: mark | abi.MarkJudged}
	if out.Role == abi.RoleUplink {
		if v.outward(&o, v.hook.Interface, to, observed); o.Drops() {
			return o
		}
	} else {
		v.track(true, v.hook.Interface)
	}
	v.p.TTL--
	o.Left = v.p
	return o
}

func (v *visit) egress(mark uint32, observed *Observed) Outcome {
	// The kernel's own errors may bear the mark of what they are about, and what was judged for a workload was not for a router.
	judged := uint32(abi.MarkJudged)
	if v.role == abi.RoleWorkload {
		judged = abi.MarkDeliver
	}
	if mark&judged != 0 && (v.from != "" || !v.p.IsError()) {
		return v.leaves(abi.ReasonJudged, mark)
	}
	if v.role == abi.RoleWorkload && v.g.behind(v.hook.Interface) == nil {
		return v.leaves(abi.ReasonWorkloadUnknown, mark)
	}
	v.find()
	reason := v.settle()
	if v.from != "" {
		return v.egressForwarded(reason, mark, observed)
	}
	return v.egressLocal(reason, mark)
}

// egressLocal is what the node itself sends.
func (v *visit) egressLocal(reason abi.Reason, mark uint32) Outcome {
	v.related = v.p.IsError() // what could not be forwarded was never tracked
	if !drops(reason) {
		if v.role == abi.RoleWorkload {
			reason = v.ask(v.g.behind(v.hook.Interface).Ingress, true)
		} else {
			reason = v.judgeOutbound()
		}
	}
	if drops(reason) {
		return v.leaves(reason, mark)
	}
	if v.clashes() && reason != abi.ReasonSystem && reason != abi.ReasonFailsafe {
		return v.leaves(abi.ReasonSnatClash, mark)
	}
	if v.clashes() { // what the file asks for has its tuple, and the workload's flow begins anew
		v.Flows[v.Wires[v.key].Inner].lost = true
		delete(v.Wires, v.key)
	}
	v.track(true, "")
	if v.role == abi.RoleUplink {
		v.quoteOutward()
	}
	return v.leaves(reason, mark)
}

func (v *visit) judgeOutbound() abi.Reason {
	if v.cached {
		return v.judged
	}
	if v.ask(v.g.System, false); v.judged != abi.ReasonNone {
		v.judged = abi.ReasonSystem
		return v.judged
	}
	if v.related {
		return abi.ReasonICMPError
	}
	before := v.flow
	var was Flow
	if before != nil {
		was = *before
	}
	reason := v.ask(v.g.Egress, false)
	if drops(reason) && v.answersFailsafe(v.p) {
		if before != nil {
			*before = was // management: is never shut out, so nothing was revoked
		}
		v.judged, v.rules = abi.ReasonFailsafe, [2]uint32{}
		return v.judged
	}
	return reason
}

// egressForwarded is what the kernel forwards.
func (v *visit) egressForwarded(reason abi.Reason, mark uint32, observed *Observed) Outcome {
	owner := v.g.workload(v.p.Src)
	if owner != nil && owner.Interface != v.from {
		return v.leaves(abi.ReasonMartianSource, mark)
	}
	fromRole := v.g.Interfaces[v.from].Role
	if !drops(reason) && !v.permitted(fromRole, v.role) {
		return v.leaves(abi.ReasonForwardDenied, mark)
	}
	if drops(reason) {
		return v.leaves(reason, mark)
	}
	reason = abi.ReasonForwarded
	if v.role == abi.RoleWorkload {
		reason = v.ask(v.g.behind(v.hook.Interface).Ingress, true)
		if drops(reason) {
			return v.leaves(reason, mark)
		}
	}
	v.nameSender(fromRole)
	o := Outcome{Reason: reason, Mark: mark}
	if v.role == abi.RoleUplink {
		if v.outward(&o, v.from, v.hook.Interface, observed); o.Drops() {
			return o
		}
		if v.p.Src != v.came.Src && !v.p.IsError() {
			o.Mark |= abi.MarkJudged // another hook on its way would take it for the box's own
		}
	} else {
		v.trackForwarded()
	}
	o.Left = v.p
	return o
}

// nameSender notes the rule that let the packet in where it came in.
func (v *visit) nameSender(from abi.Role) {
	if from != abi.RoleWorkload || v.cached || v.reply || v.related {
		return
	}
	came := v.came
	came.TTL++ // the kernel took one off
	policy := v.g.behind(v.from).Egress
	if d := classify.Judge(policy, came.seen()); accepted(d) {
		v.rules[0] = d.Rule
		if d.Reason == classify.ByDefault || d.Reason == classify.ByFragment {
			v.rules[0] = policy.DefaultID
		}
	}
}

func (v *visit) trackForwarded() {
	switch fromRole := v.g.Interfaces[v.from].Role; fromRole {
	case abi.RoleWorkload, abi.RoleDownstream:
		v.track(true, v.from)
	default:
		v.track(false, "")
	}
}
