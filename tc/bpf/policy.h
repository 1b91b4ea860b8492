/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/*
 * Asking policies at tcx: once per generation and flow where what they say holds for the flow, else about every packet of its
 * first direction. What has revoked a flow is final until the first direction, or another generation, permits it again.
 */

#include "track.h"

/* Whose policy is asked: flow.rule has one of each. */
enum party { SENDER = 0, RECEIVER = 1 };

/* Of a workload or a LAN that has some. */
static __always_inline __u32 policy_of(const struct interface *in, bool egress)
{
	return POLICY_WORKLOADS + 2 * (in->policies - 1) + egress;
}

/* Whether what passed before excuses the packet from the matrix and from a default. */
static __always_inline bool excused(const struct view *v)
{
	return v->reply || v->related;
}

/* Whether the matrix lets the packet pass, or its flow excuses it. */
static __always_inline bool permitted(struct __sk_buff *skb, const struct view *v, __u32 from, __u32 to)
{
	if (may_forward(from, to))
		return true;
	return v->p.flags & PACKET_FRAGMENT ? excuse_fragment(skb, &v->p, excused(v)) : excused(v);
}

static __always_inline bool drops(enum reason reason)
{
	return fate_of(reason) == TCX_DROP;
}

/* What a policy, or a stage before it, has said of a packet: with fragments: track later fragments follow the first. */
static __always_inline enum reason judged(struct __sk_buff *skb, struct view *v, __u32 policy,
					  enum reason reason)
{
	return v->p.flags & PACKET_FRAGMENT ? follow_fragment(skb, &v->p, policy, reason) : reason;
}

/* Leaves what a policy decides in v->d, without its limit. Classes are found for the first one that is asked. */
static __always_inline void ask_policy(struct view *v, __u32 index)
{
	struct policy *policy;

	if (!v->classified)
		classify(&v->p, &v->c);
	v->classified = true;
	judge(&v->p, &v->c, index, &v->d);
	policy = bpf_map_lookup_elem(&policies, &index);
	v->last_asked = policy ? policy->per_packet : 0;
	v->per_packet |= v->last_asked;
}

/* The stable id of the rule, or of the default, that decided. */
static __always_inline __u32 decided_by(const struct decision *d)
{
	__u32 index = d->policy;
	struct policy *policy;

	if (d->rule)
		return d->rule;
	policy = bpf_map_lookup_elem(&policies, &index);
	return policy ? policy->default_id : 0;
}

/*
 * Notes what let the first direction in. What ranks above the operator's rules stays what it is, for bans are not asked about it;
 * a default counts by an id of its own.
 */
static __always_inline enum reason note(struct view *v, enum party party, enum reason reason)
{
	v->flow.rule[party] = decided_by(&v->d);
	if (v->flow.judged != REASON_SYSTEM && v->flow.judged != REASON_FAILSAFE)
		v->flow.judged = reason;
	return reason;
}

/* Of a flow that is known: as asking would, counters included. */
static __always_inline enum reason remembered(struct view *v, enum party party)
{
	__u32 rule = v->flow.rule[party];

	if (rule)
		count_rule(rule, v->p.len);
	v->d.rule = rule;
	v->d.reason = v->flow.judged;
	return v->flow.judged;
}

/* Judges by one policy; where its default would drop, tracked flows excuse. Leaves the decision in v->d. */
static __always_inline enum reason judge_flow(struct __sk_buff *skb, struct view *v, __u32 policy,
					      enum party party)
{
	if (v->known)
		return remembered(v, party);
	ask_policy(v, policy);
	if (v->d.reason == REASON_LIMIT_ACCEPT)
		v->d.reason = limit(&v->p, v->d.argument);
	if (v->d.sample | v->d.shadow)
		log_rules(&v->p, &v->d, v->hook, v->at, !reason_accepts(v->d.reason));
	if (v->d.reason == REASON_DEFAULT_DROP || v->d.reason == REASON_FRAGMENT_DEFAULT_DROP) {
		if (v->reply)
			return judged(skb, v, policy, REASON_ESTABLISHED);
		if (v->related)
			return REASON_ICMP_ERROR;
	}
	v->d.reason = judged(skb, v, policy, v->d.reason);
	count_default(&v->p, &v->d);
	return note(v, party, v->d.reason);
}

/*
 * Which rule let in, at its ingress hook, what a LAN or a workload sends through the kernel: for who wants to know. Nothing hangs on it, so that
 * policy is asked again, uncounted, of the packet as it came: once for each flow and generation. Global: few packets come here.
 */
__noinline int name_sender(struct view *v, __u32 policy)
{
	struct decision d;
	__u8 per_packet, flags;
	__u32 at;

	if (!v)
		return 0;
	d = v->d;
	per_packet = v->per_packet;
	flags = v->p.flags;
	at = v->p.ifindex;
	v->p.flags |= PACKET_TURNED;
	v->p.ifindex = v->in;
	v->p.ttl++; /* the kernel took one off */
	ask_policy(v, policy);
	if (reason_accepts(v->d.reason))
		v->flow.rule[SENDER] = decided_by(&v->d);
	v->p.ttl--;
	v->p.ifindex = at;
	v->p.flags = flags;
	v->per_packet = per_packet;
	v->d = d;
	return 0;
}

/* The box's own stages before a policy. REASON_NONE: the policy is to decide. */
static __always_inline enum reason judge_system(struct __sk_buff *skb, struct view *v, __u32 policy,
						__u32 index, enum reason reason)
{
	__u8 per_packet = v->per_packet;

	ask_policy(v, index);
	if (!reason_accepts(v->d.reason)) {
		v->per_packet =
			per_packet; /* BFD's rules look at the TTL: not every flow is to pay for that */
		return REASON_NONE;
	}
	return judged(skb, v, policy, note(v, SENDER, reason));
}

/*
 * The overlays, of a packet that comes in by a tunnel or by an uplink that XDP does not guard; the slot of a filter stands in the place of
 * a rule. Once for each packet, also where the short way gave up behind them. Not for rejudge(), below which FlowSpec's calls would go
 * beyond the stack: what XDP filters has its replies pass, too. Global, or workload_ingress would leave rejudge() too little of the stack.
 */
__noinline int overlay_stages(struct __sk_buff *skb, struct view *v)
{
	enum reason reason;
	__u32 filter = 0;

	if (!v)
		return REASON_INTERNAL;
	if (v->overlaid)
		return REASON_NONE;
	v->overlaid = true;
	reason = bans_stage(&v->p);
	if (reason != REASON_NONE)
		return reason;
	reason = flowspec_stage(skb, &v->p, v->hook, &filter);
	if (reason != REASON_NONE) {
		v->d.reason = reason;
		v->d.rule = filter;
	}
	return reason;
}

/* ---- revoking ---- */

/* From now on both directions are dropped. */
static __always_inline void revoke(const struct view *v, struct flow *flow)
{
	if (explain)
		return;
	set_time(flow, bpf_ktime_get_ns()); /* a tombstone has a timeout of its own */
	if (flow->judged != REASON_FLOW_REVOKED) {
		flow->judged = REASON_FLOW_REVOKED;
		tell(v, flow, FLOW_EVENT_REVOKED);
	}
	flow->epoch = v->epoch;
}

__noinline int revoke_found(struct view *v)
{
	struct flow *flow = v ? find_flow(v) : NULL;

	if (flow)
		revoke(v, flow);
	return 0;
}

/*
 * A packet of the first direction that a policy drops takes its flow along; but not where the policy looks at more than the
 * flow, or at a fragment. One that comes in elsewhere than the flow does met another policy: whoever forges it would cut
 * others off.
 */
static __always_inline int refuse(struct view *v, enum reason reason)
{
	if (v->found && !v->reply && v->flow.in == v->in &&
	    (reason == REASON_RULE_DROP || reason == REASON_DEFAULT_DROP) &&
	    !(v->last_asked & PER_PACKET_SEES) && !(v->p.flags & PACKET_FRAGMENT))
		revoke_found(v);
	return leave_with(v, reason);
}

/* Makes the packet one of the other direction, or that one again what it was. Rules do not count it. */
static __always_inline void turn(struct view *v)
{
	struct packet *p = &v->p;
	union addr src = p->src;
	__be16 sport = p->sport;

	p->src = p->dst;
	p->dst = src;
	p->sport = p->dport;
	p->dport = sport;
	p->flags ^= PACKET_TURNED;
	if (p->flags & PACKET_ECHO)
		p->icmp_type ^= p->family == 4 ? 8 : 1; /* request and reply: 8 and 0, 128 and 129 */
	v->classified = false;
}

/* Whether a policy permits the turned packet. */
static __always_inline bool permits(struct view *v, __u32 policy)
{
	ask_policy(v, policy);
	return reason_accepts(v->d.reason) || v->d.reason == REASON_NONE;
}

static __always_inline bool permits_above(struct view *v, __u32 policy)
{
	ask_policy(v, policy);
	return reason_accepts(v->d.reason);
}

/* Whether management: let the packet in that this one answers: its tuple turned round, asked of the failsafe. */
static __always_inline bool answers_failsafe(struct view *v)
{
	struct decision d = v->d; /* which may be what drops the packet */
	bool answers;

	if (!is_self(&v->p.src))
		return false;
	turn(v);
	answers = permits_above(v, POLICY_FAILSAFE);
	turn(v);
	v->d = d;
	return answers;
}

/* What judged who opened the flow: its own egress policy, what is for the node's own packets, or what is for the outside. */
static __always_inline bool sender_permits(struct view *v, __u32 by, bool from_node)
{
	struct interface in;

	if (from_node)
		return bpf_map_lookup_elem(&workloads, &v->p.dst) || permits_above(v, POLICY_SYSTEM) ||
		       permits(v, POLICY_EGRESS) || answers_failsafe(v);
	if (!find_interface(by, &in)) /* whose it was has gone */
		return false;
	if (in.role == ROLE_WORKLOAD)
		return in.policies && permits(v, policy_of(&in, true));
	if (!in.policies && in.role != ROLE_UPLINK && !(in.flags & INTERFACE_JUDGE))
		return true;
	if (is_self(&v->p.dst) && permits_above(v, POLICY_FAILSAFE))
		return true;
	if (permits_above(v, POLICY_SYSTEM))
		return true;
	if (in.policies)
		return permits(v, policy_of(&in, true));
	return bans_stage(&v->p) == REASON_NONE && permits(v, POLICY_INGRESS);
}

/*
 * The matrix, and what judged who is to receive it. Where it leaves was seen only where a flow is tracked at egress, and routes need not
 * lead back the same way; else it is a workload, and the answer comes from there.
 */
static __always_inline bool receiver_permits(struct view *v, __u32 by, __u32 at, const struct interface *on)
{
	struct interface in = {}, to = *on;

	if (is_self(&v->p.dst))
		return true;
	if (v->flow.at & FLOW_AT_EGRESS)
		find_interface(at, &to);
	if (by) {
		find_interface(by, &in);
		if (!may_forward(in.role, to.role))
			return false;
	}
	if (!to.policies)
		return true;
	if (!by && to.role == ROLE_DOWNSTREAM && permits_above(v, POLICY_SYSTEM))
		return true;
	return permits(v, policy_of(&to, false));
}

/*
 * A reply to a flow that this generation has not judged: its first direction is judged again, by the policies that it met, as a
 * packet in the midst of it. What is remembered of its rules stays unused until a packet of its own comes. A policy that looks
 * at more than the flow may be wrong about such a packet: then this one is dropped, and the next packet of the first
 * direction settles it. Global: verified once.
 */
__noinline int rejudge(struct view *v, __u32 hook_ifindex, bool at_ingress)
{
	__u8 tcp_flags, flags;
	struct flow *flow;
	__u32 by, at;
	bool ok;

	if (!v)
		return 0;
	tcp_flags = v->p.tcp_flags;
	flags = v->p.flags;
	by = v->flow.in;
	at = v->flow.at & ~FLOW_AT_EGRESS;
	turn(v);
	v->p.tcp_flags = TCP_ACK;
	v->p.flags &= ~PACKET_FRAGMENT;
	v->p.ifindex = by ? by : at;
	ok = sender_permits(v, by, !by);
	if (ok && at_ingress) {
		v->p.ifindex = at;
		ok = receiver_permits(v, by, at, &v->on);
	}
	turn(v);
	v->p.flags = flags;
	v->p.tcp_flags = tcp_flags;
	v->p.ifindex = hook_ifindex;
	v->reply = ok;
	v->revoked = !ok;
	flow = find_flow(v);
	if (!flow || explain)
		return 0;
	if (ok) {
		flow->flags |= FLOW_ASK;
		flow->judged = REASON_NONE;
		flow->epoch = v->per_packet & PER_PACKET_SEES ? 0 : v->epoch;
	} else if (!(v->per_packet & PER_PACKET_SEES)) {
		revoke(v, flow);
	}
	return 0;
}
