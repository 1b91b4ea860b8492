package daemon

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"sluice/control/api"
	"sluice/control/compile"
	"sluice/control/config"
	"sluice/tc"
	"sluice/xdp"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
	"sluice/xdp/packet"
)

// Explain runs the twins of the live programs on a packet, hook by hook for as long as it passes, and says which rules
// were passed over and where the one that acted stands.
func (d *Daemon) Explain(ctx context.Context, r api.ExplainRequest) (api.Explanation, error) {
	line, err := spelled(r.Packet)
	if err != nil {
		return api.Explanation{}, refused(err)
	}
	spec, err := packet.Parse(line)
	if err != nil {
		return api.Explanation{}, refused(err)
	}
	frame, err := spec.Frame()
	if err != nil {
		return api.Explanation{}, refused(err)
	}
	e := &explainer{d: d, places: compile.RulePlaces(d.liveConfig()), seen: spec.Seen(), out: api.Explanation{Packet: spec.String(), Hooks: []api.HookAnswer{}}}
	want := d.liveDesired()
	guarded := slices.ContainsFunc(want.XDP.Interfaces, func(i xdp.Interface) bool { return i.Name == r.Interface })
	hooked := slices.ContainsFunc(want.TC.Interfaces, func(i tc.Interface) bool { return i.Name == r.Interface })
	if !guarded && !hooked {
		return api.Explanation{}, refused(fmt.Errorf("no program of Sluice's is on %q; `sluice show interfaces` lists those that have one",
			r.Interface))
	}
	if !r.Egress {
		e.out.Note = notFrom(want, r.Interface, e.seen.Src)
	}
	if guarded && !r.Egress {
		if passed, err := e.xdp(ctx, r.Interface, frame); err != nil || !passed {
			return e.out, refused(err)
		}
	}
	if hooked {
		err = e.tc(ctx, r.Interface, r.Egress, frame)
	}
	return e.out, refused(err)
}

type explainer struct {
	d      *Daemon
	places map[string]config.Pos // of rules, by policy/name
	seen   classify.Packet
	out    api.Explanation
}

func (e *explainer) xdp(ctx context.Context, name string, frame []byte) (passed bool, err error) {
	x, err := e.d.xdp.Explain(ctx, name, frame)
	if err != nil {
		return false, err
	}
	answer := api.HookAnswer{
		Hook: "xdp", Interface: name, Verdict: x.Verdict.String(), Reason: x.Reason.String(), Text: x.Reason.Text(),
	}
	e.seen.Ifindex = x.Ifindex
	e.banned(&answer, x.Reason)
	e.filtered(&answer, x.Reason, x.Rule, x.Filters, x.More)
	e.decided(&answer, x.Reason, x.Rule, x.Policy, e.d.liveDesired().XDP.Generation.Policies())
	e.out.Hooks = append(e.out.Hooks, answer)
	return x.Verdict == abi.FatePass, nil // else nothing comes to tc
}

func (e *explainer) tc(ctx context.Context, name string, egress bool, frame []byte) error {
	x, err := e.d.tc.Explain(ctx, name, egress, frame)
	if err != nil {
		return err
	}
	hook := "tcx-ingress"
	if egress {
		hook = "tcx-egress"
	}
	e.tcAnswer(hook, name, x)
	if x.Reason == abi.ReasonNoRoute {
		e.lost(e.blackhole())
	}
	if egress || x.Verdict == abi.FateDrop || x.Destination.IsValid() {
		return nil
	}
	to := x.RedirectTo
	if e.role(to) == tc.RoleTunnel {
		if x, err = e.d.tc.ExplainRedirected(ctx, to, name, frame); err == nil {
			e.tcAnswer("tcx-egress", to, x)
		}
		return err
	}
	if to == "" { // the kernel's to forward: its route says which hook the packet meets next
		if to, err = e.leavesBy(ctx, name); err != nil || !judgesForwarded(e.role(to)) {
			return err
		}
		if x, err = e.d.tc.ExplainForwarded(ctx, to, name, frame); err != nil {
			return err
		}
		e.tcAnswer("tcx-egress", to, x)
	}
	if sends(e.role(name)) && e.role(to) == tc.RoleUplink && !x.Source.IsValid() && x.Verdict != abi.FateDrop && e.hides(name) {
		if p := e.d.liveDesired().Announced(e.seen.Src); p.IsValid() {
			e.out.Hooks[len(e.out.Hooks)-1].SourceKept = "BGP announces " + p.String()
		}
	}
	return nil
}

// sends says whether sources that come in by a role are translated at an uplink, where their snat says so.
func sends(r tc.Role) bool { return r == tc.RoleWorkload || r == tc.RoleDownstream }

// role is that of an interface that has hooks of ours.
func (e *explainer) role(name string) tc.Role {
	for _, i := range e.d.liveDesired().TC.Interfaces {
		if i.Name == name {
			return i.Role
		}
	}
	return tc.RoleNone
}

// hides says whether what comes in by an interface has snat: auto.
func (e *explainer) hides(name string) bool {
	cfg := e.d.liveConfig()
	return slices.ContainsFunc(cfg.Workloads, func(w config.Workload) bool { return w.Interface == name && w.SNAT.Auto }) ||
		slices.ContainsFunc(cfg.Interfaces, func(i config.Interface) bool { return i.Name == name && i.SNAT.Auto })
}

// tcAnswer adds what a tcx hook says.
func (e *explainer) tcAnswer(hook, name string, x tc.Explanation) {
	answer := api.HookAnswer{
		Hook: hook, Interface: name, Verdict: x.Verdict.String(), Reason: x.Reason.String(), Text: x.Reason.Text(),
		RedirectTo: x.RedirectTo, MSS: x.MSS,
	}
	if x.RedirectTo != "" {
		answer.Verdict = "redirect"
	}
	if x.Source.IsValid() {
		answer.Source = translatedText(x.Source)
	}
	if x.Destination.IsValid() {
		answer.Destination = translatedText(x.Destination)
		if x.Policy >= int(abi.PolicyWorkloads) { // policy.ingress judged what was on the wire
			e.seen.Dst, e.seen.DstPort = x.Destination.Addr(), x.Destination.Port()
		}
	}
	e.seen.Ifindex = x.Ifindex
	e.banned(&answer, x.Reason)
	e.filtered(&answer, x.Reason, x.Rule, x.Filters, x.More)
	e.decided(&answer, x.Reason, x.Rule, x.Policy, e.d.liveDesired().TC.Generation.Policies())
	e.out.Hooks = append(e.out.Hooks, answer)
}

// translatedText is an address, with its port where that is known.
func translatedText(to netip.AddrPort) string {
	if to.Port() == 0 {
		return to.Addr().String()
	}
	return to.String()
}

// banned names the ban that the program met: the list tells what the kernel's table does not, who and why.
func (e *explainer) banned(a *api.HookAnswer, reason abi.Reason) {
	if reason == abi.ReasonBanned {
		a.Ban = e.d.banOf(e.seen.Src)
	}
}

// filtered names the filters that held for the packet, by their slots, and the one among them that gave the reason, if one did.
func (e *explainer) filtered(a *api.HookAnswer, reason abi.Reason, slot uint32, held []uint32, more bool) {
	a.Filter, a.MoreFilters = e.d.filterOf(reason, slot), more
	for _, slot := range held {
		if f := e.d.filterAt(slot); f != nil { // nil: it has just gone
			a.Filters = append(a.Filters, *f)
		}
	}
}

// decided fills in the policy's part of an answer, and asks the reference model whether it agrees. index is that of the
// policy that was asked last; what came after it may have had the last word.
func (e *explainer) decided(a *api.HookAnswer, reason abi.Reason, rule uint32, index int, policies []classify.Policy) {
	if index < 0 || index >= len(policies) {
		return
	}
	p := policies[index]
	model := classify.Judge(p, e.seen)
	if model.Rule != rule {
		e.out.Bug = fmt.Sprintf("policy %s: the live program says %s by rule %d, the reference model rule %d", p.Name, reason, rule, model.Rule)
	}
	if !byPolicy(reason) || rule == 0 && p.Default == classify.Continue {
		return
	}
	a.Policy = p.Name
	for _, r := range p.Rules {
		if r.ID == rule && rule != 0 {
			a.Rule = p.Name + "/" + r.Name
			pos := e.places[a.Rule]
			a.File, a.Line = pos.File, pos.Line
		}
	}
	for _, over := range classify.PassedOver(p, e.seen) {
		name := p.Name + "/" + over.Rule
		a.PassedOver = append(a.PassedOver, api.PassedOver{Rule: name, Line: e.places[name].Line, Why: over.Why})
	}
}

// byPolicy says whether a reason is a policy's own, or one of a packet that its policy let through. A reply to a tracked
// flow and a later fragment of what passed do so though the policy would drop them, and what is dropped for another
// reason was accepted before.
func byPolicy(r abi.Reason) bool {
	switch r {
	case abi.ReasonRuleDrop, abi.ReasonDefaultDrop, abi.ReasonFragmentDefaultDrop, abi.ReasonFragmentDrop, abi.ReasonLimitDrop:
		return true
	case abi.ReasonEstablished, abi.ReasonICMPError, abi.ReasonFragmentTracked:
		return false
	default:
		return r.Fate() != abi.FateDrop
	}
}
