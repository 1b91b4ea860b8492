/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* Moving packets on: into a workload's namespace, or to the next hop that the routing table names. */

#include <linux/if_ether.h>

#include "hop.h"
#include "listen.h"
#include "policy.h"
#include "snat.h"

#ifndef AF_INET
#define AF_INET	 2
#define AF_INET6 10
#endif

/* TTL, protocol and checksum stand beside each other in an IPv4 header. */
struct ttl_to_check {
	__u8 ttl;
	__u8 protocol;
	__be16 check;
};

/* IPv4's checksum makes up for the change (RFC 1141), also in what the NIC summed up. */
static __always_inline void decremented(struct ttl_to_check *now)
{
	__u32 sum = now->check + bpf_htons(0x0100);

	now->ttl--;
	now->check = sum + (sum >= 0xffff);
}

/* Decrements TTL or hop limit in place. The caller has seen that it is at least 2. Returns false on a failed write. */
static __always_inline bool decrement_ttl(struct __sk_buff *skb, const struct packet *p)
{
	__u32 at = p->l3 & 0xff; /* behind at most two VLAN tags; the mask is for the verifier */

	if (p->family == 4) {
		struct ttl_to_check now;

		at += offsetof(struct iphdr, ttl);
		if (bpf_skb_load_bytes(skb, at, &now, sizeof(now)))
			return false;
		decremented(&now);
		return !bpf_skb_store_bytes(skb, at, &now, sizeof(now), 0);
	}
	__u8 hop_limit = p->ttl - 1;

	/* No header checksum hides the change from one that the NIC took over the whole packet (CHECKSUM_COMPLETE). */
	return !bpf_skb_store_bytes(skb, at + offsetof(struct ipv6hdr, hop_limit), &hop_limit, 1,
				    BPF_F_RECOMPUTE_CSUM);
}

/* The length of the largest packet that this skb becomes, as routes count it: without the link's header. */
static __always_inline __u32 segment_len(struct __sk_buff *skb, const struct packet *p)
{
	__u32 header = 8; /* UDP */
	__u8 offset;

	if (!skb->gso_size) /* with the padding, which only the kernel takes off */
		return p->len - p->l3;
	if (p->protocol == IPPROTO_TCP && !bpf_skb_load_bytes(skb, p->l4 + 12, &offset, 1))
		header = (offset >> 4) * 4;
	if (p->family == 6 && p->l3_len > sizeof(struct ipv6hdr) + 0xffff)
		header -= 8; /* the jumbogram's, which no segment has */
	return p->l4 - p->l3 + header + skb->gso_size;
}

/*
 * Whether every packet that this skb becomes fits an interface. The kernel's own look at segments takes a jumbogram's header
 * for a part of them.
 */
static __always_inline bool fits(struct __sk_buff *skb, const struct packet *p, __u32 ifindex, __u32 *mtu)
{
	*mtu = 0;
	return bpf_check_mtu(skb, ifindex, mtu, 0, 0) >= 0 && segment_len(skb, p) <= *mtu;
}

/*
 * Options are written on the way (record route, timestamp), or choose it: a router refuses those (RFC 7126 section 4.3).
 * Later fragments, whose transport header is nowhere, have no more than a copy.
 */
static __always_inline bool has_options(const struct packet *p)
{
	return p->family == 4 && p->l4 > p->l3 + sizeof(struct iphdr);
}

/* Left to the kernel, after our judgement: the workload's egress hook need not judge again. */
static __always_inline int leave_judged(struct __sk_buff *skb, struct view *v, enum reason reason)
{
	skb->mark |= MARK_DELIVER;
	return leave_with(v, reason);
}

/*
 * Into the workload's namespace. The MAC addresses stay as they came: the frame was for this host, so the workload's
 * stack takes it whatever its destination MAC is. The mark must not go along: it means nothing in there.
 */
static __always_inline int deliver(struct __sk_buff *skb, struct view *v, const struct workload *to, bool l3)
{
	struct heading h;
	__u32 mtu;

	if (to->flags & INTERFACE_STACK)
		return leave_judged(skb, v, REASON_STACK_PATH);
	if (v->p.ttl <= 1)
		return leave_judged(skb, v, REASON_STACK_TTL);
	if (has_options(&v->p))
		return leave_judged(skb, v, REASON_STACK_OPTIONS);
	if (!fits(skb, &v->p, to->ifindex, &mtu))
		return leave_judged(skb, v, REASON_STACK_MTU);
	if (l3)
		return leave_judged(skb, v, REASON_STACK_L3);
	if (!decrement_ttl(skb, &v->p))
		return leave_judged(skb, v, REASON_STACK_FRAGMENTED);
	if (hop_behind(v, &h))
		keep_hop(&h, mtu);
	v->ifindex = to->ifindex;
	skb->mark &= ~MARK_OURS;
	return leave(v, REASON_DELIVERED, bpf_redirect_peer(to->ifindex, 0));
}

static __always_inline void fib_question(struct __sk_buff *skb, const struct packet *p,
					 struct bpf_fib_lookup *fib)
{
	fib->ifindex = skb->ifindex;
	fib->l4_protocol = p->protocol;
	fib->sport = p->sport;
	fib->dport = p->dport;
	fib->tot_len = segment_len(
		skb, p); /* compared with the route's MTU, what path MTU discovery learned included */
	if (p->family == 4) {
		fib->family = AF_INET;
		fib->ipv4_src = p->src.word[3];
		fib->ipv4_dst = p->dst.word[3];
	} else {
		fib->family = AF_INET6;
		__builtin_memcpy(fib->ipv6_src, &p->src, sizeof(fib->ipv6_src));
		__builtin_memcpy(fib->ipv6_dst, &p->dst, sizeof(fib->ipv6_dst));
	}
}

static __always_inline long redirect_to_next_hop(const struct bpf_fib_lookup *fib)
{
	struct bpf_redir_neigh hop = {.nh_family = fib->family};

	__builtin_memcpy(hop.ipv6_nh, fib->ipv6_dst,
			 sizeof(hop.ipv6_nh)); /* a union with ipv4_nh, as is ipv4_dst */
	return bpf_redirect_neigh(fib->ifindex, &hop, sizeof(hop), 0);
}

/*
 * Asks the routing table. Returns REASON_NONE with the next hop in fib, or why the packet leaves. A next hop whose neighbor
 * is not known is in fib as well: the kernel finds it, and tells the sender when there is none, which a redirect does not.
 */
static __always_inline enum reason find_route(struct __sk_buff *skb, const struct packet *p,
					      struct bpf_fib_lookup *fib)
{
	fib_question(skb, p, fib);
	switch (bpf_fib_lookup(skb, fib, sizeof(*fib), 0)) {
	case BPF_FIB_LKUP_RET_SUCCESS:
		return REASON_NONE;
	case BPF_FIB_LKUP_RET_NO_NEIGH:
		return REASON_STACK_NEIGHBOUR;
	case BPF_FIB_LKUP_RET_BLACKHOLE:
		return REASON_NO_ROUTE;
	case BPF_FIB_LKUP_RET_FRAG_NEEDED:
		return REASON_STACK_MTU;
	default:
		return REASON_STACK_NO_ROUTE;
	}
}

/* Whether the kernel's own copy of the matrix, its routing rules, would stop the packet: then it is counted here. */
static __always_inline bool prohibited(struct __sk_buff *skb, const struct packet *p)
{
	struct bpf_fib_lookup fib = {};

	fib_question(skb, p, &fib);
	return bpf_fib_lookup(skb, &fib, sizeof(fib), BPF_FIB_LOOKUP_SKIP_NEIGH) == BPF_FIB_LKUP_RET_PROHIBIT;
}

/*
 * Tracks what leaves, with its source translated where that leaves by an uplink. from: where it came in, or NULL. Returns
 * REASON_NONE, or why it is dropped.
 */
static __always_inline enum reason track_out(struct __sk_buff *skb, struct view *v,
					     const struct interface *from, const struct interface *out)
{
	__u32 flags = from ? from->flags & INTERFACE_SNAT : 0;
	enum reason reason;

	if (out->role != ROLE_UPLINK ||
	    !(flags | (v->flow.flags & FLOW_NAT) | (v->p.flags & (PACKET_FRAGMENT | PACKET_ICMP_ERROR)))) {
		track(skb, v);
		return REASON_NONE;
	}
	if (v->p.flags & PACKET_ICMP_ERROR) /* it has no flow of its own */
		return snat_send_error(skb, v, flags);
	reason = snat_bind(skb, v, flags, flags && from->snat ? from->snat : out->snat);
	if (reason != REASON_NONE)
		return reason;
	if (v->nat == NAT_NEW && snat_reserved(v))
		return REASON_SNAT_EXHAUSTED;
	track(skb, v);
	return snat_send(skb, v);
}

/*
 * By the routing table to the next hop. What this cannot do is the kernel's, and then the egress hook's to judge: so
 * the mark, which excuses from that, is set only on what is redirected. A flow is tracked only once the matrix has let
 * it pass, or its replies would slip by.
 */
static __always_inline int forward(struct __sk_buff *skb, struct view *v, const struct interface *in,
				   enum role from)
{
	struct bpf_fib_lookup fib = {};
	struct interface out = {};
	struct heading h;
	enum reason reason;
	__u32 ifindex;

	reason = find_route(skb, &v->p, &fib);
	if (reason != REASON_NONE && reason != REASON_STACK_NEIGHBOUR)
		return leave_with(v, reason);
	ifindex = fib.ifindex;
	find_interface(ifindex, &out);
	if (!permitted(skb, v, from, out.role))
		return leave_with(v, REASON_FORWARD_DENIED);
	if (out.role == ROLE_NONE)
		return leave_with(v, REASON_STACK_UNMANAGED);
	if (out.role ==
	    ROLE_WORKLOAD) /* by a route, not by its address: its own policy is judged at its egress hook */
		return leave_with(v, REASON_STACK_FORWARD);
	if (v->p.ttl <= 1)
		return leave_with(v, REASON_STACK_TTL);
	if (has_options(&v->p))
		return leave_with(v, REASON_STACK_OPTIONS);
	if (reason != REASON_NONE && !(out.flags & INTERFACE_L3)) /* which has no neighbors */
		return leave_with(v, reason);
	if (out.policies) { /* a LAN's; only here, for what is left to the kernel meets the egress hook */
		/* A flow that is known may have turned here from another LAN, or from where nobody is asked. */
		if (v->flow.there.epoch != v->epoch || way_leads(v, &v->flow.there, way_seal(v)) != ifindex)
			v->known = false;
		reason = judge_flow(skb, v, policy_of(&out, false), RECEIVER);
		if (drops(reason))
			return refuse(v, reason);
	} else {
		v->flow.rule[RECEIVER] = 0; /* of a LAN that it has turned from */
	}
	if (!decrement_ttl(skb, &v->p))
		return leave_with(v, REASON_STACK_FRAGMENTED);
	skb->mark |= MARK_JUDGED;
	v->ifindex = ifindex;
	opened_by(v, from, true);
	if (!(out.flags & INTERFACE_L3))
		v->to = ifindex;
	reason = track_out(skb, v, in, &out);
	if (reason != REASON_NONE)
		return leave_with(v, reason);
	learn_listener(skb, &v->p);
	if (hop_behind(v, &h))
		keep_next_hop(&h, out.slot, &fib);
	if (out.flags & INTERFACE_L3)
		return leave(v, REASON_FORWARDED, bpf_redirect(ifindex, 0));
	return leave(v, REASON_FORWARDED, redirect_to_next_hop(&fib));
}
