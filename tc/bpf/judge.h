/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* The two directions of a tcx hook, for every role. role and l3 are constants of each program, so that a branch on
 * them costs nothing.
 */

#include "forward.h"
#include "listen.h"
#include "pace.h"

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
	return p->family == 6 && !is_multicast(p) && !is_link_local6(&p->dst) &&
	       !bpf_map_lookup_elem(&self, &p->dst);
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

/* What every hook does first. Returns REASON_NONE to go on; else the packet leaves with that reason. */
static __always_inline enum reason enter(struct __sk_buff *skb, struct view *v, const struct interface *on,
					 bool at_ingress)
{
	enum reason reason;
	bool from_workload;

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
	if (!on)
		return REASON_INTERNAL;
	from_workload = at_ingress && on->role == ROLE_WORKLOAD;
	if ((from_workload || (at_ingress && on->role == ROLE_DOWNSTREAM)) && (on->flags & INTERFACE_PACED))
		skb->mark |= MARK_PACED; /* it may leave by a redirect or through the stack */
	v->slot = on->slot;
	v->l3 = is_l3(on);
	if (is_vlan_child(skb))
		return REASON_VLAN_CHILD;
	if (at_ingress &&
	    skb->pkt_type == PACKET_OTHERHOST) /* a bridge would forward these: so not at egress */
		return REASON_OTHER_HOST;
	reason = parse(skb, &v->p, v->l3);
	if (reason != REASON_NONE)
		return reason;
	reason = link_control(&v->p);
	v->off_link = reason != REASON_NONE && at_ingress && is_off_link(&v->p);
	if (reason != REASON_NONE && !v->off_link)
		return from_workload && plays_router(&v->p) ? REASON_WORKLOAD_ROUTER : reason;
	return REASON_NONE;
}

/*
 * What judging needs to know of the packet's flow, once. Not all that a hook sees is judged, so this costs only where it is.
 * Returns REASON_NONE to go on, or why the packet is dropped.
 */
static __always_inline enum reason prepare(struct __sk_buff *skb, struct view *v, const struct interface *on,
					   bool at_ingress)
{
	bool workload = on->role == ROLE_WORKLOAD;

	view_keys(v, workload ? skb->ifindex : 0);
	meet(v);
	if (v->doubt)
		rejudge(v, skb->ifindex, at_ingress);
	v->related =
		(v->p.flags & PACKET_ICMP_ERROR) && quotes_tracked_flow(skb, &v->p, workload && at_ingress);
	return v->revoked ? REASON_FLOW_REVOKED : REASON_NONE;
}

/*
 * policy.ingress, where XDP does not judge it: the same order, but for what only XDP sees. Or what a LAN may send: the failsafe and
 * what follows from the file rank above that too; bans are about the outside.
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
	if (policy == POLICY_INGRESS && bans_stage(&v->p) != REASON_NONE)
		return REASON_BANNED;
	return judge_flow(skb, v, policy, SENDER);
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
	return bpf_map_lookup_elem(&self, &p->src) || bpf_map_lookup_elem(&workloads, &p->src);
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

/* Whether what a role's hosts open is a flow of the inside. */
static __always_inline bool is_inside(enum role role)
{
	return role == ROLE_WORKLOAD || role == ROLE_DOWNSTREAM;
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
	track(skb, v);
	return deliver(skb, v, to, l3);
}

/* To the box itself. */
static __always_inline int to_self(struct __sk_buff *skb, struct view *v, enum role role)
{
	opened_by(v, role, is_inside(role));
	track(skb, v);
	return leave_with(v, REASON_LOCAL);
}

/* From a workload: its own address, its egress policy. */
static __always_inline enum reason judge_workload(struct __sk_buff *skb, struct view *v,
						  const struct interface *in, bool local)
{
	if (!in->policies)
		return REASON_WORKLOAD_UNKNOWN;
	if (!v->known && spoofed(skb, &v->p, local))
		return REASON_WORKLOAD_SPOOFED;
	return judge_flow(skb, v, policy_of(in, true), SENDER);
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

	if (!v->known && is_martian(&v->p))
		return REASON_MARTIAN_SOURCE;
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
	__u32 ifindex = skb->ifindex;
	struct interface *in = bpf_map_lookup_elem(&interfaces, &ifindex);
	enum reason reason = enter(skb, v, in, true);
	struct workload *to;
	bool local;

	if (reason != REASON_NONE || !in)
		return leave_with(v, reason);
	if (role == ROLE_UPLINK && bpf_map_lookup_elem(&self, &v->p.dst)) {
		reason = v->p.flags & PACKET_ICMP_ERROR ? snat_receive_error(skb, v) : snat_receive(skb, v);
		if (reason != REASON_NONE)
			return leave_with(v, reason);
	}
	reason = prepare(skb, v, in, true);
	if (reason != REASON_NONE)
		return leave_with(v, reason);
	if (v->translated && (v->p.flags & PACKET_NON_FIRST)) /* as its first fragment was */
		v->reply = true;
	local = bpf_map_lookup_elem(&self, &v->p.dst) || (v->p.family == 6 && is_link_local6(&v->p.dst));
	reason = role == ROLE_WORKLOAD ? judge_workload(skb, v, in, local)
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
	return leave_with(v, REASON_STACK_FORWARD); /* the egress hook of the next interface judges it */
}

static __always_inline int ingress(struct __sk_buff *skb, enum role role)
{
	struct view *v = new_view();

	return v ? finish(skb, v, walk_ingress(skb, v, role)) : TCX_DROP; /* there is always one */
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
	if (drops(reason) && answers_failsafe(v)) {
		v->flow.judged = REASON_FAILSAFE;
		return REASON_FAILSAFE;
	}
	return reason;
}

/* The node's own toward a LAN, which policy.egress or what ranks above it let pass. */
static __always_inline enum reason judge_toward_lan(struct __sk_buff *skb, struct view *v,
						    const struct interface *out, enum reason reason)
{
	if (!out->policies || drops(reason) || reason == REASON_SYSTEM || reason == REASON_FAILSAFE ||
	    reason == REASON_ICMP_ERROR)
		return reason;
	reason = judge_flow(skb, v, policy_of(out, false), RECEIVER);
	if (drops(reason) && answers_failsafe(v)) {
		v->flow.judged = REASON_FAILSAFE;
		return REASON_FAILSAFE;
	}
	return reason;
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
	if (role == ROLE_UPLINK && first && snat_clashes(v))
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
	struct interface *from = bpf_map_lookup_elem(&interfaces, &from_index);
	struct workload *owner = bpf_map_lookup_elem(&workloads, &v->p.src);
	__u32 from_role = from ? from->role : ROLE_NONE;
	enum reason reason = REASON_FORWARDED, snat;

	/* Interfaces that the file does not name have no ingress hook of ours. The box's own may be a masquerade. */
	if (owner && owner->ifindex != from_index)
		return leave_with(v, REASON_MARTIAN_SOURCE);
	if (!permitted(skb, v, from_role, role))
		return leave_with(v, REASON_FORWARD_DENIED);
	if (out->policies)
		reason = judge_flow(skb, v, policy_of(out, false), RECEIVER);
	if (drops(reason))
		return refuse(v, reason);
	/* What leaves a tunnel for an uplink is from inside there: XDP is to let the answers in. */
	opened_by(v, from_role, is_inside(from_role) || (role != ROLE_WORKLOAD && from_role != ROLE_UPLINK));
	snat = track_out(skb, v, from, out);
	if (snat != REASON_NONE)
		return leave_with(v, snat);
	if (v->nat) /* a VLAN's frame meets the hook of its parent, too, with a source that is nobody's */
		skb->mark |= MARK_JUDGED;
	return leave_with(v, reason);
}

/* Egress. What our ingress judged already passes; the guard of the strict tunnels sees that too. */
static __always_inline int walk_egress(struct __sk_buff *skb, struct view *v, enum role role)
{
	__u32 ifindex = skb->ifindex, from_index = skb->ingress_ifindex; /* 0: made here */
	struct interface *out = bpf_map_lookup_elem(&interfaces, &ifindex);
	enum reason reason = enter(skb, v, out, false);

	if (reason != REASON_NONE || !out)
		return leave_with(v, reason);
	if (role == ROLE_UPLINK && !(skb->mark & MARK_UNDERLAY) && is_strict(&v->p))
		return leave_with(v, REASON_STRICT_TUNNEL);
	/*
	 * With net.ipv4.fwmark_reflect the kernel's own errors bear the mark of what they are about. What was judged on its way into a
	 * workload, and left to the kernel, was not judged for here: it comes where the workload's route is away.
	 */
	if ((skb->mark & MARK_JUDGED) && (from_index || !(v->p.flags & PACKET_ICMP_ERROR)) &&
	    (role == ROLE_WORKLOAD || !bpf_map_lookup_elem(&workloads, &v->p.dst))) {
		learn_listener(skb, &v->p);
		return leave_with(v, REASON_JUDGED);
	}
	if (role == ROLE_WORKLOAD && !out->policies)
		return leave_with(v, REASON_WORKLOAD_UNKNOWN);
	reason = prepare(skb, v, out, false);
	if (reason != REASON_NONE)
		return leave_with(v, reason);
	if (from_index)
		return egress_forwarded(skb, v, out, role, from_index);
	return egress_local(skb, v, out, role);
}

static __always_inline int egress(struct __sk_buff *skb, enum role role)
{
	struct view *v = new_view();

	return v ? finish(skb, v, pace_what_passes(skb, v, role, walk_egress(skb, v, role))) : TCX_DROP;
}
