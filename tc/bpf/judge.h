/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* The two directions of a tcx hook, for every role. role and l3 are constants of each program, so that a branch on
 * them costs nothing.
 */

#include "pace.h"
#include "tunnel.h"
#include "way.h"

/* Whether what a role's hosts open is a flow of the inside. */
static __always_inline bool is_inside(enum role role)
{
	return role == ROLE_WORKLOAD || role == ROLE_DOWNSTREAM;
}

/*
 * Whether the frame belongs to a VLAN interface, where it is judged. The tag stands beside the packet, not in it. The
 * kernel takes a tag that says only a priority (VID 0, 802.1Q section 6.9) for none, and so must we.
 */
static __always_inline bool is_vlan_child(const struct __sk_buff *skb)
{
	return skb->vlan_present && (skb->vlan_tci & 0xfff);
}

/*
 * Link control is for this link. What claims to be and goes elsewhere is judged as any packet: the kernel would forward
 * it, and a workload could send what it likes to anyone.
 */
static __always_inline bool is_off_link(const struct packet *p)
{
	return p->family == 6 && !is_multicast(p) && !is_link_local6(&p->dst) && !is_self(&p->dst);
}

/*
 * Whether a workload plays the router: the box would take routes and prefixes from its advertisement, and traffic that
 * is not the workload's (RFC 4861 sections 6.2 and 8).
 */
static __always_inline bool plays_router(const struct packet *p)
{
	return p->family == 6 && p->protocol == IPPROTO_ICMPV6 &&
	       (p->icmp_type == 134 || p->icmp_type == 137);
}

/*
 * Whether what leaves by an uplink was judged where it came in, and nothing is to be asked of it here: not even its headers, which were
 * read there. What the kernel makes itself may bear the mark of what it is about. Who watches is told what pacing drops.
 */
static __always_inline bool was_judged(const struct __sk_buff *skb, enum role role)
{
	return role == ROLE_UPLINK && (skb->mark & MARK_JUDGED) && skb->ingress_ifindex && !has_strict &&
	       !explain && !watched(WATCH_CAPTURE) && !watched(WATCH_DROPS);
}

/* What every hook does first. Returns REASON_NONE to go on; else the packet leaves with that reason. */
static __always_inline enum reason enter(struct __sk_buff *skb, struct view *v, enum role role,
					 bool at_ingress)
{
	const struct interface *on = &v->on;
	enum reason reason;

	v->p.len = skb->len;
	v->p.segments = skb->gso_segs;
	if (!v->p.segments && skb->gso_size) /* from a VM: nobody has counted yet */
		v->p.segments = (skb->len + skb->gso_size - 1) / skb->gso_size;
	v->at = skb->ifindex;
	v->in = at_ingress ? skb->ifindex : skb->ingress_ifindex;
	v->p.ifindex = skb->ifindex;
	v->hook = at_ingress ? HOOK_TC_INGRESS : HOOK_TC_EGRESS;
	if (at_ingress && (skb->mark & MARK_OURS)) /* stale: from a former way through this box */
		skb->mark &= ~MARK_OURS;
	if (!find_interface(skb->ifindex, &v->on))
		return REASON_INTERNAL;
	if (at_ingress && is_inside(role) && (on->flags & INTERFACE_PACED))
		skb->mark |= MARK_PACED; /* it may leave by a redirect or through the stack */
	v->slot = on->slot;
	v->l3 = is_l3(on) && !(role == ROLE_TUNNEL && at_ingress && has_link_header(skb));
	if (is_vlan_child(skb))
		return REASON_VLAN_CHILD;
	if (at_ingress &&
	    skb->pkt_type == PACKET_OTHERHOST) /* a bridge would forward these: so not at egress */
		return REASON_OTHER_HOST;
	if (!at_ingress && was_judged(skb, role))
		return REASON_JUDGED;
	reason = parse(skb, &v->p, v->l3);
	if (reason != REASON_NONE)
		return reason;
	reason = link_control(&v->p);
	v->off_link = reason != REASON_NONE && at_ingress && is_off_link(&v->p);
	if (reason != REASON_NONE && !v->off_link)
		return at_ingress && role == ROLE_WORKLOAD && plays_router(&v->p) ? REASON_WORKLOAD_ROUTER
										  : reason;
	return REASON_NONE;
}

/* A workload may send only from its own addresses; link-local ones reach no further than the link. */
static __always_inline bool spoofed(const struct __sk_buff *skb, const struct packet *p, bool local)
{
	struct workload *from = bpf_map_lookup_elem(&workloads, &p->src);

	if (from && from->ifindex == skb->ifindex)
		return false;
	return !(p->family == 6 && is_link_local6(&p->src) && (local || is_multicast(p)));
}

/*
 * Whether a packet from elsewhere claims to come from the box or from a workload: it would pass for their replies, make
 * flows in their name, and match the system rules of the other direction. The kernel knows only the box's own IPv4
 * addresses for martian, and what goes into a workload never meets that part of it. A router of the uplink may well
 * have the link-local address that we have elsewhere.
 */
static __always_inline bool is_martian(const struct packet *p)
{
	if (p->family == 6 && is_link_local6(&p->src))
		return false;
	return is_self(&p->src) || bpf_map_lookup_elem(&workloads, &p->src);
}

/*
 * Whether a packet that came in may have its source. Asked before anything is made of it: an answer in the name of another would have that
 * one's flow judged by the policies of where it came in.
 */
static __always_inline enum reason admit(const struct __sk_buff *skb, const struct view *v,
					 const struct interface *in, bool local)
{
	if (in->role == ROLE_WORKLOAD && !in->policies)
		return REASON_WORKLOAD_UNKNOWN;
	if (v->known)
		return REASON_NONE;
	if (in->role == ROLE_WORKLOAD)
		return spoofed(skb, &v->p, local) ? REASON_WORKLOAD_SPOOFED : REASON_NONE;
	return is_martian(&v->p) ? REASON_MARTIAN_SOURCE : REASON_NONE;
}

/*
 * What judging needs to know of the packet's flow, once. Not all that a hook sees is judged, so this costs only where it is.
 * Returns REASON_NONE to go on, or why the packet is dropped.
 */
static __always_inline enum reason prepare(struct __sk_buff *skb, struct view *v, const struct interface *on,
					   bool at_ingress, bool local)
{
	bool workload = on->role == ROLE_WORKLOAD;
	enum reason reason = REASON_NONE;
	struct flow *flow;

	meet(v);
	if (at_ingress)
		reason = admit(skb, v, on, local);
	if (reason != REASON_NONE)
		return reason;
	if (v->doubt)
		rejudge(v, skb->ifindex, at_ingress);
	flow = v->revoked ? find_flow(v) : NULL;
	if (flow && flow->judged == REASON_FLOW_REVOKED)
		touch(flow, bpf_ktime_get_ns()); /* or who goes on sending would have a new flow of it */
	v->related =
		(v->p.flags & PACKET_ICMP_ERROR) && quotes_tracked_flow(skb, &v->p, workload && at_ingress);
	return v->revoked ? REASON_FLOW_REVOKED : REASON_NONE;
}

/*
 * policy.ingress, where XDP does not judge it: the same order, but for what only XDP sees. Or what a LAN may send: the failsafe and
 * what follows from the file rank above that too; bans and FlowSpec are about the outside.
 */
static __always_inline enum reason judge_inbound(struct __sk_buff *skb, struct view *v, __u32 policy,
						 bool local)
{
	enum reason reason = REASON_NONE;

	if (v->known && (v->flow.judged == REASON_FAILSAFE || v->flow.judged == REASON_SYSTEM))
		return remembered(v, SENDER);
	if (!v->known && local)
		reason = judge_system(skb, v, policy, POLICY_FAILSAFE, REASON_FAILSAFE);
	if (!v->known && reason == REASON_NONE)
		reason = judge_system(skb, v, policy, POLICY_SYSTEM, REASON_SYSTEM);
	if (reason != REASON_NONE)
		return reason;
	if (v->related)
		return REASON_ICMP_ERROR;
	if (policy == POLICY_INGRESS)
		reason = overlay_stages(skb, v);
	return reason == REASON_NONE ? judge_flow(skb, v, policy, SENDER) : reason;
}

/*
 * What no router forwards, by its source (RFC 1812 section 5.3.7, RFC 4291 section 2.5) or because its frame was for a
 * group. The kernel knows too, but what is redirected never meets it.
 */
static __always_inline bool is_unroutable(const struct __sk_buff *skb, const struct packet *p)
{
	const union addr *src = &p->src;

	if (skb->pkt_type != PACKET_HOST)
		return true;
	if (p->family == 4)
		return src->byte[12] == 0 || src->byte[12] == 127 || src->byte[12] >= 224;
	return src->byte[0] == 0xff || is_link_local6(src) ||
	       (!src->half[0] && !src->word[2] && bpf_ntohl(src->word[3]) <= 1); /* unspecified, loopback */
}

/* To a workload of this box, at the ingress hook of any role. */
static __always_inline int to_workload(struct __sk_buff *skb, struct view *v, const struct workload *to,
				       enum role role, bool l3)
{
	enum reason reason;

	if (role != ROLE_WORKLOAD && is_unroutable(skb, &v->p))
		return leave_with(v, REASON_UNROUTABLE);
	if (!permitted(skb, v, role, ROLE_WORKLOAD))
		return leave_with(v, REASON_FORWARD_DENIED);
	reason = judge_flow(skb, v, POLICY_WORKLOADS + 2 * to->index, RECEIVER);
	if (drops(reason))
		return refuse(v, reason);
	opened_by(v, role, is_inside(role));
	if (!l3 && !(to->flags & INTERFACE_STACK))
		v->to = to->ifindex | FLOW_TO_PEER;
	track(skb, v);
	snat_received(skb, v);
	return deliver(skb, v, to, l3);
}

/* To the box itself. */
static __always_inline int to_self(struct __sk_buff *skb, struct view *v, enum role role)
{
	opened_by(v, role, is_inside(role));
	track(skb, v);
	return leave_with(v, REASON_LOCAL);
}

/* The packet as it came, or again as it is: policy.ingress is about what is on the wire, wherever it is judged. */
static __always_inline void swap_wire(struct view *v)
{
	union addr dst = v->p.dst;
	__be16 port = v->p.dport;

	v->p.dst = v->wire_dst;
	v->p.dport = v->wire_port;
	v->wire_dst = dst;
	v->wire_port = port;
	v->classified = false;
}

/*
 * From elsewhere: policy.ingress where XDP did not judge it already, or the policy of the LAN. XDP passes what looks like link
 * control, wherever it goes.
 */
static __always_inline enum reason judge_outside(struct __sk_buff *skb, struct view *v,
						 const struct interface *in, enum role role, bool local)
{
	enum reason reason;

	if (role == ROLE_DOWNSTREAM)
		return in->policies ? judge_inbound(skb, v, policy_of(in, true), local) : REASON_NONE;
	if (!(in->flags & INTERFACE_JUDGE) && !(role == ROLE_UPLINK && v->off_link))
		return REASON_NONE;
	if (!v->translated)
		return judge_inbound(skb, v, POLICY_INGRESS, local);
	swap_wire(v);
	reason = judge_inbound(skb, v, POLICY_INGRESS, true);
	swap_wire(v);
	return reason;
}

/* Ingress: judged, then into a workload, to the box, or onward. */
static __always_inline int walk_ingress(struct __sk_buff *skb, struct view *v, enum role role)
{
	const struct interface *in = &v->on;
	enum reason reason = enter(skb, v, role, true);
	struct workload *to;
	bool local;
	int fate;

	if (reason != REASON_NONE)
		return leave_with(v, reason);
	view_keys(v, role == ROLE_WORKLOAD ? skb->ifindex : 0);
	if (take_way(skb, v, is_inside(role), &fate))
		return fate;
	begin_judging(v);
	local = is_self(&v->p.dst);
	if (role == ROLE_UPLINK && local) {
		reason = v->p.flags & PACKET_ICMP_ERROR ? snat_receive_error(skb, v) : snat_receive(skb, v);
		if (reason != REASON_NONE)
			return leave_with(v, reason);
	}
	if (v->translated) {
		view_keys(v, 0);
		local = is_self(&v->p.dst);
	}
	local |= v->p.family == 6 && is_link_local6(&v->p.dst);
	reason = prepare(skb, v, in, true, local);
	if (reason != REASON_NONE)
		return leave_with(v, reason);
	if (v->translated && (v->p.flags & PACKET_NON_FIRST)) /* as its first fragment was */
		v->reply = true;
	reason = role == ROLE_WORKLOAD ? judge_flow(skb, v, policy_of(in, true), SENDER)
				       : judge_outside(skb, v, in, role, local);
	if (drops(reason))
		return refuse(v, reason);
	if (is_multicast(&v->p))
		return leave_with(v, REASON_MULTICAST);

	if (!local && (in->flags & INTERFACE_STACK)) /* tracked at the egress hook by which it leaves */
		return leave_with(v, REASON_STACK_PATH);
	to = bpf_map_lookup_elem(&workloads, &v->p.dst);
	if (to)
		return to_workload(skb, v, to, role, in->flags & INTERFACE_L3);
	if (local)
		return to_self(skb, v, role);
	if (role == ROLE_WORKLOAD)
		return forward(skb, v, in, role);
	if (prohibited(skb, &v->p))
		return leave_with(v, REASON_FORWARD_DENIED);
	snat_received(skb, v);
	return leave_with(v, REASON_STACK_FORWARD); /* the egress hook of the next interface judges it */
}

static __always_inline int ingress(struct __sk_buff *skb, enum role role)
{
	struct view *v = new_view();

	return v ? finish(skb, v, clamp_what_passes(skb, v, role, walk_ingress(skb, v, role)))
		 : TCX_DROP; /* there is always one */
}

/* management: lets pass what a policy would drop, and so no rule of that has let it in. */
static __always_inline enum reason as_failsafe(struct view *v)
{
	v->flow.judged = REASON_FAILSAFE;
	v->flow.rule[SENDER] = 0;
	v->flow.rule[RECEIVER] = 0;
	return REASON_FAILSAFE;
}

/* policy.egress, for what the node itself originates. */
static __always_inline enum reason judge_outbound(struct __sk_buff *skb, struct view *v)
{
	enum reason reason;

	if (v->known)
		return remembered(v, SENDER);
	reason = judge_system(skb, v, POLICY_EGRESS, POLICY_SYSTEM, REASON_SYSTEM);
	if (reason != REASON_NONE)
		return reason;
	if (v->related)
		return REASON_ICMP_ERROR;
	reason = judge_flow(skb, v, POLICY_EGRESS, SENDER);
	return drops(reason) && answers_failsafe(v) ? as_failsafe(v) : reason;
}

/* The node's own toward a LAN, which policy.egress or what ranks above it let pass. */
static __always_inline enum reason judge_toward_lan(struct __sk_buff *skb, struct view *v,
						    const struct interface *out, enum reason reason)
{
	if (!out->policies || drops(reason) || reason == REASON_SYSTEM || reason == REASON_FAILSAFE ||
	    reason == REASON_ICMP_ERROR)
		return reason;
	reason = judge_flow(skb, v, policy_of(out, false), RECEIVER);
	return drops(reason) && answers_failsafe(v) ? as_failsafe(v) : reason;
}

/*
 * What the node itself sends: by policy.egress and toward a LAN by its ingress policy, or toward a workload by the workload's ingress policy. Its own ICMP
 * errors need no flow: what could not be forwarded was never tracked, and path MTU discovery depends on the answer.
 */
static __always_inline int egress_local(struct __sk_buff *skb, struct view *v, const struct interface *out,
					enum role role)
{
	bool first = !v->found;
	enum reason reason, snat;

	v->related = v->p.flags & PACKET_ICMP_ERROR;
	if (role == ROLE_WORKLOAD)
		reason = judge_flow(skb, v, policy_of(out, false), RECEIVER);
	else
		reason = judge_outbound(skb, v);
	if (role == ROLE_DOWNSTREAM)
		reason = judge_toward_lan(skb, v, out, reason);
	if (drops(reason))
		return refuse(v, reason);
	opened_by(v, ROLE_NONE, true);
	snat = track_out(skb, v, NULL, out);
	if (snat != REASON_NONE)
		return leave_with(v, snat);
	if (role == ROLE_UPLINK && first &&
	    snat_clashes(v, reason == REASON_SYSTEM || reason == REASON_FAILSAFE))
		return leave_with(v, REASON_SNAT_CLASH);
	learn_listener(skb, &v->p);
	return leave_with(v, reason);
}

/*
 * What the kernel forwards: by the matrix, toward a workload or a LAN by its ingress policy as well. From one it passed the
 * ingress hook, which judged its egress policy.
 */
static __always_inline int egress_forwarded(struct __sk_buff *skb, struct view *v,
					    const struct interface *out, enum role role, __u32 from_index)
{
	struct interface from = {};
	struct workload *owner = bpf_map_lookup_elem(&workloads, &v->p.src);
	enum reason reason = REASON_FORWARDED, snat;

	/* Interfaces that the file does not name have no ingress hook of ours, nor a role. The box's own may be a masquerade. */
	find_interface(from_index, &from);
	if (owner && owner->ifindex != from_index)
		return leave_with(v, REASON_MARTIAN_SOURCE);
	if (!permitted(skb, v, from.role, role))
		return leave_with(v, REASON_FORWARD_DENIED);
	if (out->policies)
		reason = judge_flow(skb, v, policy_of(out, false), RECEIVER);
	if (drops(reason))
		return refuse(v, reason);
	if (!v->known && !excused(v) && is_inside(from.role) && from.policies)
		name_sender(v, policy_of(&from, true));
	/* What leaves a tunnel for an uplink is from inside there: XDP is to let the answers in. */
	opened_by(v, from.role, is_inside(from.role) || (role != ROLE_WORKLOAD && from.role != ROLE_UPLINK));
	snat = track_out(skb, v, &from, out);
	if (snat != REASON_NONE)
		return leave_with(v, snat);
	if (v->nat) /* a VLAN's frame meets the hook of its parent, too, with a source that is nobody's */
		skb->mark |= MARK_JUDGED;
	return leave_with(v, reason);
}

/* Egress. What our ingress judged already passes; the guard of the strict tunnels sees that too. */
static __always_inline int walk_egress(struct __sk_buff *skb, struct view *v, enum role role)
{
	__u32 from_index = skb->ingress_ifindex; /* 0: made here */
	const struct interface *out = &v->on;
	enum reason reason = enter(skb, v, role, false);

	if (reason != REASON_NONE)
		return leave_with(v, reason);
	if (leaks(skb, v, role))
		return leave_with(v, REASON_STRICT_TUNNEL);
	/*
	 * With net.ipv4.fwmark_reflect the kernel's own errors bear the mark of what they are about. What was judged on its way into a
	 * workload, and left to the kernel, has a mark of its own: it comes elsewhere where the workload's route is away.
	 */
	if ((skb->mark & (role == ROLE_WORKLOAD ? MARK_DELIVER : MARK_JUDGED)) &&
	    (from_index || !(v->p.flags & PACKET_ICMP_ERROR)))
		return leave_with(v, REASON_JUDGED);
	if (role == ROLE_WORKLOAD && !out->policies)
		return leave_with(v, REASON_WORKLOAD_UNKNOWN);
	view_keys(v, role == ROLE_WORKLOAD ? skb->ifindex : 0);
	begin_judging(v);
	reason = prepare(skb, v, out, false, false);
	if (reason != REASON_NONE)
		return leave_with(v, reason);
	if (from_index)
		return egress_forwarded(skb, v, out, role, from_index);
	return egress_local(skb, v, out, role);
}

static __always_inline int egress(struct __sk_buff *skb, enum role role)
{
	struct view *v;
	int fate;

	if (!explain && take_pass(skb)) /* the root of a former version does not ask */
		return TCX_NEXT;
	v = new_view();
	if (!v)
		return TCX_DROP;
	fate = pace_what_passes(skb, v, role, walk_egress(skb, v, role));
	return finish(skb, v, clamp_what_passes(skb, v, role, fate));
}
