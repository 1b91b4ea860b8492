/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* Moving packets on: into a workload's namespace, or to the next hop that the routing table names. */

#include <linux/if_ether.h>

#include "track.h"

#ifndef AF_INET
#define AF_INET 2
#define AF_INET6 10
#endif

/* Decrements TTL or hop limit in place. The caller has seen that it is at least 2. Returns false on a failed write. */
static __always_inline bool decrement_ttl(struct __sk_buff *skb, const struct packet *p)
{
	__u32 at = p->l3 & 0xff; /* behind at most two VLAN tags; the mask is for the verifier */

	if (p->family == 4) {
		__be16 old, new; /* TTL and protocol, one word of the checksum (RFC 1624) */

		at += offsetof(struct iphdr, ttl);
		if (bpf_skb_load_bytes(skb, at, &old, sizeof(old)))
			return false;
		new = old - bpf_htons(0x0100);
		bpf_l3_csum_replace(skb, (p->l3 & 0xff) + offsetof(struct iphdr, check), old, new, sizeof(new));
		return !bpf_skb_store_bytes(skb, at, &new, sizeof(new), 0);
	}
	__u8 hop_limit = p->ttl - 1;

	return !bpf_skb_store_bytes(skb, at + offsetof(struct ipv6hdr, hop_limit), &hop_limit, 1, 0);
}

/* Whether every packet that this skb will become fits. A GSO skb is judged by its segments. */
static __always_inline bool fits(const struct __sk_buff *skb, const struct packet *p, __u16 mtu)
{
	if (!mtu)
		return true;
	if (skb->gso_size)
		return skb->gso_size + (p->l4 - p->l3) + 60 <= mtu || p->l3_len <= mtu;
	return p->l3_len <= mtu;
}

/*
 * Into the workload's namespace. The MAC addresses stay as they came: redirect_peer scrubs the skb and marks it as
 * for this host, so that the workload's stack takes it whatever its destination MAC is.
 */
static __always_inline int deliver(struct __sk_buff *skb, struct view *v, const struct workload *to, bool l3)
{
	skb->mark |= MARK_JUDGED; /* for the ways that lead through the kernel, and its egress hook */
	if (v->p.ttl <= 1)
		return leave_with(v, REASON_STACK_TTL);
	if (!fits(skb, &v->p, to->mtu))
		return leave_with(v, REASON_STACK_MTU);
	if (l3)
		return leave_with(v, REASON_STACK_L3);
	if (!decrement_ttl(skb, &v->p))
		return leave_with(v, REASON_STACK_FRAGMENTED);
	v->ifindex = to->ifindex;
	return leave(v, REASON_DELIVERED, bpf_redirect_peer(to->ifindex, 0));
}

static __always_inline void fib_question(struct __sk_buff *skb, const struct packet *p, struct bpf_fib_lookup *fib)
{
	fib->ifindex = skb->ifindex;
	fib->l4_protocol = p->protocol;
	fib->sport = p->sport;
	fib->dport = p->dport;
	fib->tot_len = skb->gso_size ? 0 : p->l3_len;
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

	__builtin_memcpy(hop.ipv6_nh, fib->ipv6_dst, sizeof(hop.ipv6_nh)); /* a union with ipv4_nh, as is ipv4_dst */
	return bpf_redirect_neigh(fib->ifindex, &hop, sizeof(hop), 0);
}

/*
 * By the routing table to the next hop; what it cannot do is the kernel's, and then the egress hook's to judge. The
 * mark excuses what is redirected. A flow is tracked only once the matrix has let it pass, or its replies would slip by.
 */
static __always_inline int forward(struct __sk_buff *skb, struct view *v, enum role from)
{
	struct bpf_fib_lookup fib = {};
	struct interface *out;
	__u32 ifindex;

	fib_question(skb, &v->p, &fib);
	switch (bpf_fib_lookup(skb, &fib, sizeof(fib), BPF_FIB_LOOKUP_SKIP_NEIGH)) {
	case BPF_FIB_LKUP_RET_SUCCESS:
	case BPF_FIB_LKUP_RET_NO_NEIGH:
		break;
	case BPF_FIB_LKUP_RET_BLACKHOLE:
		return leave_with(v, REASON_NO_ROUTE);
	case BPF_FIB_LKUP_RET_FRAG_NEEDED:
		return leave_with(v, REASON_STACK_MTU);
	default:
		return leave_with(v, REASON_STACK_NO_ROUTE);
	}
	ifindex = fib.ifindex;
	out = bpf_map_lookup_elem(&interfaces, &ifindex);
	if (!v->reply && !may_forward(from, out ? out->role : ROLE_NONE))
		return leave_with(v, REASON_FORWARD_DENIED);
	if (!out)
		return leave_with(v, REASON_STACK_UNMANAGED);
	if (v->p.ttl <= 1)
		return leave_with(v, REASON_STACK_TTL);
	if (!decrement_ttl(skb, &v->p))
		return leave_with(v, REASON_STACK_FRAGMENTED);
	skb->mark |= MARK_JUDGED;
	v->ifindex = ifindex;
	if (v->reply)
		track_reply(&flows_in, v);
	else
		track(v, true, false);
	if (out->flags & INTERFACE_L3)
		return leave(v, REASON_FORWARDED, bpf_redirect(ifindex, 0));
	return leave(v, REASON_FORWARDED, redirect_to_next_hop(&fib));
}
