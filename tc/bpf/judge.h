/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* The two directions of a tcx hook, for every role. role and l3 are constants of each program, so that a branch on
 * them costs nothing.
 */

#include "forward.h"

static __always_inline __u32 workload_policy(const struct interface *in, bool egress)
{
	return POLICY_WORKLOADS + 2 * (in->workload - 1) + egress;
}

/*
 * What every hook does first. Returns REASON_NONE to go on; else the packet leaves with that reason. A tagged frame is
 * judged at its VLAN interface; the tag stands beside the packet (skb->vlan_present), not in it.
 */
static __always_inline enum reason enter(struct __sk_buff *skb, struct view *v, const struct interface *in, bool l3)
{
	enum reason reason;

	v->slot = in ? in->slot : 0;
	reason = parse(skb, &v->p, l3);
	if (reason != REASON_NONE)
		return reason;
	if (!v->p.family) /* ARP and the link's own protocols among them */
		return REASON_LINK_CONTROL;
	if (is_link_control(&v->p))
		return REASON_LINK_CONTROL;
	if (!in)
		return REASON_INTERNAL;
	if (skb->vlan_present)
		return REASON_VLAN_CHILD;
	view_keys(v);
	classify(&v->p, &v->c);
	return REASON_NONE;
}

/* policy.ingress, where XDP does not judge it: the same order, but for what only XDP sees. */
static __always_inline enum reason judge_inbound(struct __sk_buff *skb, struct view *v, bool local)
{
	if (local) {
		judge(&v->p, &v->c, POLICY_FAILSAFE, &v->d);
		if (v->d.reason == REASON_RULE_ACCEPT)
			return REASON_FAILSAFE;
	}
	judge(&v->p, &v->c, POLICY_SYSTEM, &v->d);
	if (v->d.reason == REASON_RULE_ACCEPT)
		return REASON_SYSTEM;
	return judge_flow(skb, v, POLICY_INGRESS);
}

/* A workload may send only from its own addresses; link-local ones reach no further than the box. */
static __always_inline bool spoofed(struct __sk_buff *skb, const struct packet *p, bool local)
{
	struct workload *from = bpf_map_lookup_elem(&workloads, &p->src);

	if (from && from->ifindex == skb->ifindex)
		return false;
	return !(p->family == 6 && is_link_local6(&p->src) && local);
}

/* To a workload of this box, at the ingress hook of any role. */
static __always_inline int to_workload(struct __sk_buff *skb, struct view *v, const struct workload *to,
				       enum role role, bool l3)
{
	enum reason reason;

	if (!v->reply && !may_forward(role, ROLE_WORKLOAD))
		return leave_with(v, REASON_FORWARD_DENIED);
	if (role == ROLE_WORKLOAD) /* for the receiver it comes from outside, and may answer what it asked for */
		v->reply = replies_to(&flows_out, v);
	reason = judge_flow(skb, v, POLICY_WORKLOADS + 2 * to->index);
	if (drops(reason))
		return leave_with(v, reason);
	if (v->reply) {
		track_reply(&flows_out, v);
		if (role == ROLE_WORKLOAD)
			track_reply(&flows_in, v);
	} else {
		track(v, role == ROLE_WORKLOAD, true);
	}
	return deliver(skb, v, to, l3);
}

/*
 * Ingress. From a workload: its own address, its egress policy. From elsewhere: policy.ingress where XDP did not
 * judge it. Then into a workload, to the box, or onward.
 */
static __always_inline int ingress(struct __sk_buff *skb, enum role role, bool l3)
{
	__u32 ifindex = skb->ifindex;
	struct interface *in = bpf_map_lookup_elem(&interfaces, &ifindex);
	struct view v = {};
	enum reason reason = enter(skb, &v, in, l3);
	struct workload *to;
	bool local;

	if (reason != REASON_NONE || !in)
		return leave_with(&v, reason);
	local = bpf_map_lookup_elem(&self, &v.p.dst) || (v.p.family == 6 && is_link_local6(&v.p.dst));
	if (role == ROLE_WORKLOAD) {
		if (!in->workload)
			return leave_with(&v, REASON_WORKLOAD_UNKNOWN);
		if (spoofed(skb, &v.p, local))
			return leave_with(&v, REASON_WORKLOAD_SPOOFED);
		v.reply = replies_to(&flows_in, &v);
		reason = judge_flow(skb, &v, workload_policy(in, true));
	} else {
		v.reply = replies_to(&flows_out, &v);
		if (in->flags & INTERFACE_JUDGE)
			reason = judge_inbound(skb, &v, local);
	}
	if (drops(reason))
		return leave_with(&v, reason);
	if (is_multicast(&v.p))
		return leave_with(&v, REASON_MULTICAST);

	to = bpf_map_lookup_elem(&workloads, &v.p.dst);
	if (to)
		return to_workload(skb, &v, to, role, l3);
	if (local) {
		if (v.reply)
			track_reply(role == ROLE_WORKLOAD ? (void *)&flows_in : (void *)&flows_out, &v);
		else
			track(&v, role == ROLE_WORKLOAD, role != ROLE_WORKLOAD);
		return leave_with(&v, REASON_LOCAL);
	}
	if (role == ROLE_WORKLOAD)
		return forward(skb, &v, role);
	return leave_with(&v, REASON_STACK_FORWARD); /* the egress hook of the next interface judges it */
}

/* Whether management: let the packet in that this one answers: its tuple turned round, asked of the failsafe. */
static __always_inline bool answers_failsafe(struct view *v)
{
	struct packet turned = v->p;
	struct classes c;
	struct decision d;

	turned.src = v->p.dst;
	turned.dst = v->p.src;
	turned.sport = v->p.dport;
	turned.dport = v->p.sport;
	if (!bpf_map_lookup_elem(&self, &turned.dst))
		return false;
	classify(&turned, &c);
	judge(&turned, &c, POLICY_FAILSAFE, &d);
	return d.reason == REASON_RULE_ACCEPT;
}

/* policy.egress, for what the node itself originates. */
static __always_inline enum reason judge_outbound(struct __sk_buff *skb, struct view *v)
{
	enum reason reason;

	judge(&v->p, &v->c, POLICY_SYSTEM, &v->d);
	if (v->d.reason == REASON_RULE_ACCEPT)
		return REASON_SYSTEM;
	reason = judge_flow(skb, v, POLICY_EGRESS);
	if (drops(reason) && answers_failsafe(v))
		return REASON_FAILSAFE;
	return reason;
}

/* What the node itself sends: by policy.egress, or toward a workload by the workload's ingress policy. */
static __always_inline int egress_local(struct __sk_buff *skb, struct view *v, const struct interface *out,
					enum role role)
{
	bool to_workload = role == ROLE_WORKLOAD;
	void *asked = to_workload ? (void *)&flows_out : (void *)&flows_in; /* where the flow it may answer stands */
	enum reason reason;

	v->reply = replies_to(asked, v);
	if (to_workload)
		reason = judge_flow(skb, v, workload_policy(out, false));
	else
		reason = judge_outbound(skb, v);
	if (drops(reason))
		return leave_with(v, reason);
	if (v->reply)
		track_reply(asked, v);
	else
		track(v, !to_workload, to_workload);
	return leave_with(v, reason);
}

/* What the kernel forwards: by the matrix, toward a workload by its ingress policy as well. */
static __always_inline int egress_forwarded(struct __sk_buff *skb, struct view *v, const struct interface *out,
					    enum role role, __u32 from_index)
{
	struct interface *from = bpf_map_lookup_elem(&interfaces, &from_index);
	__u32 from_role = from ? from->role : ROLE_NONE;
	bool answers_out = replies_to(&flows_out, v);
	bool answers_in = role != ROLE_WORKLOAD && replies_to(&flows_in, v);
	enum reason reason = REASON_FORWARDED;

	v->reply = answers_out || answers_in;
	if (!v->reply && !may_forward(from_role, role))
		return leave_with(v, REASON_FORWARD_DENIED);
	if (role == ROLE_WORKLOAD)
		reason = judge_flow(skb, v, workload_policy(out, false));
	if (drops(reason))
		return leave_with(v, reason);
	if (answers_out)
		track_reply(&flows_out, v);
	else if (answers_in)
		track_reply(&flows_in, v);
	else if (role == ROLE_WORKLOAD || from_role == ROLE_UPLINK)
		track(v, false, true);
	else
		track(v, true, false);
	return leave_with(v, reason);
}

/* Egress. What our ingress judged already passes; the guard of the strict tunnels sees that too. */
static __always_inline int egress(struct __sk_buff *skb, enum role role, bool l3)
{
	__u32 ifindex = skb->ifindex, from_index = skb->ingress_ifindex;
	struct interface *out = bpf_map_lookup_elem(&interfaces, &ifindex);
	struct view v = {};
	enum reason reason = enter(skb, &v, out, l3);

	if (reason != REASON_NONE || !out)
		return leave_with(&v, reason);
	if (role == ROLE_UPLINK && !(skb->mark & MARK_UNDERLAY) && is_strict(&v.p))
		return leave_with(&v, REASON_STRICT_TUNNEL);
	if (skb->mark & MARK_JUDGED)
		return leave_with(&v, REASON_JUDGED);
	if (role == ROLE_WORKLOAD && !out->workload)
		return leave_with(&v, REASON_WORKLOAD_UNKNOWN);
	if (from_index)
		return egress_forwarded(skb, &v, out, role, from_index);
	return egress_local(skb, &v, out, role);
}
