/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/*
 * SNAT at an uplink. What leaves: snat_bind(), then track(), then snat_send(). What comes in: snat_receive(), before its flow is
 * looked for. Replies to flows that the outside opened are left as they are.
 */

#include "nat.h"

/* Fragments of a datagram have one fate: RFC 791 gives up after 15 s, RFC 8200 section 4.5 after 60, Linux after 30. */
#define SNAT_FRAGMENT_NS (30 * SECOND)

/* The key of the wire. */
static __always_inline bool snat_fragment_key(struct __sk_buff *skb, const struct view *v,
					      struct snat_fragment_key *key)
{
	key->src = v->p.src;
	key->dst = v->translated ? v->wire_dst : v->p.dst;
	key->id = fragment_id(skb, &v->p);
	return key->id;
}

/*
 * For the later fragments of a first one, which has passed: what their address becomes; zero: it stays. Global: few packets are
 * fragments.
 */
__noinline int snat_remember(struct __sk_buff *skb, const struct view *v, const union addr *to)
{
	struct snat_fragment_key key;
	struct snat_fragment value = {.ns = bpf_ktime_get_ns()};

	if (!v || !to || explain || !snat_fragment_key(skb, v, &key))
		return 0;
	value.to = *to;
	bpf_map_update_elem(&snat_fragments, &key, &value, BPF_ANY);
	return 0;
}

/* A later fragment: what its first one said, or false. */
__noinline int snat_recall(struct __sk_buff *skb, const struct view *v, union addr *to)
{
	struct snat_fragment_key key;
	struct snat_fragment *first;

	if (!v || !to || !snat_fragment_key(skb, v, &key))
		return false;
	first = bpf_map_lookup_elem(&snat_fragments, &key);
	if (!first || (__s64)(bpf_ktime_get_ns() - first->ns) > (__s64)SNAT_FRAGMENT_NS)
		return false;
	*to = first->to;
	return true;
}

static __always_inline bool is_first_fragment(const struct packet *p)
{
	return (p->flags & (PACKET_FRAGMENT | PACKET_NON_FIRST)) == PACKET_FRAGMENT;
}

/*
 * An ICMP error that leaves, about a packet to a flow of ours: its quote, and its source where that must not be seen, become what
 * the sender of that packet knows. The node's own errors (flags 0) are such, too.
 */
__noinline int snat_send_error(struct __sk_buff *skb, struct view *v, __u32 flags)
{
	struct quote q = {};
	struct flow_key key;
	struct flow *flow;
	bool inner, wanted;
	__u8 end;

	if (!v)
		return REASON_INTERNAL;
	wanted = nat_wanted(&v->p, flags);
	end = quoted_key(skb, &v->p, &key);
	if (end == FLOW_UNQUOTED)
		return wanted ? REASON_SNAT_UNTRACKED : REASON_NONE;
	/* A workload is no router: by the node's address and port it could say what it likes about the flows of others. */
	if (bpf_map_lookup_elem(&workloads, &v->p.src) &&
	    !same_addr(end ? &key.addr[0] : &key.addr[1], &v->p.src))
		return REASON_SNAT_UNTRACKED;
	flow = flow_find(&flows, &key);
	if (!flow)
		flow = flow_find(&fresh_out, &key);
	if (!flow)
		flow = flow_find(&fresh_in, &key);
	if (!flow)
		return wanted ? REASON_SNAT_UNTRACKED : REASON_NONE;
	if ((flow->opener & 1) == end) /* who is told opened it, and knows us by our own address */
		return REASON_NONE;
	if (!(flow->flags & FLOW_NAT) || !is_self(&flow->nat_addr))
		return wanted ? REASON_SNAT_UNTRACKED : REASON_NONE;
	q.from = end ? key.addr[0] : key.addr[1];
	q.port_from = end ? key.port[0] : key.port[1];
	q.to = flow->nat_addr;
	q.port_to = flow->nat_port;
	q.protocol = key.protocol;
	inner = same_addr(&q.from, &v->p.src);
	if (!set_quoted(skb, &v->p, &q) || ((wanted || inner) && !set_address(skb, &v->p, true, &q.to)))
		return REASON_SNAT_FAILED;
	return REASON_NONE;
}

/* Whether the address that a flow is translated to is the box's still. This generation's judgement of the flow has asked already. */
static __always_inline bool nat_is_ours(const struct view *v)
{
	return v->known || is_self(&v->flow.nat_addr);
}

/* A later fragment that leaves. */
static __always_inline int snat_bind_fragment(struct __sk_buff *skb, struct view *v, bool wanted)
{
	if (!snat_recall(skb, v, &v->flow.nat_addr))
		return wanted ? REASON_SNAT_FRAGMENT : REASON_NONE;
	if (v->flow.nat_addr.half[0] | v->flow.nat_addr.half[1])
		v->nat = NAT_FRAGMENT;
	return REASON_NONE;
}

/*
 * What leaves by an uplink and is no ICMP error, before it is tracked. flags: those of the interface by which it came in, 0 for what the node itself
 * sends. address: index into snat_addresses + 1. A flow keeps its translation as long as it lives and the address is the box's, whatever the
 * file says since, and by whichever uplink. Returns enum reason.
 */
__noinline int snat_bind(struct __sk_buff *skb, struct view *v, __u32 flags, __u32 address)
{
	union addr none = {};
	bool wanted;

	if (!v)
		return REASON_INTERNAL;
	wanted = nat_wanted(&v->p, flags);
	if (v->p.flags & PACKET_NON_FIRST)
		return snat_bind_fragment(skb, v, wanted);
	if (v->key.protocol == FLOW_NO_PROTOCOL)
		return wanted ? REASON_SNAT_UNTRACKED : REASON_NONE;
	if (v->found && v->flow.opener != v->end) {
		if (wanted && is_first_fragment(&v->p))
			snat_remember(skb, v, &none);
		return REASON_NONE;
	}
	if (v->found && (v->flow.flags & FLOW_NAT) && nat_is_ours(v) && nat_holds(v)) {
		v->nat = NAT_KNOWN;
		return REASON_NONE;
	}
	if (v->found && (wanted || (v->flow.flags & FLOW_NAT)))
		begin_anew(v);
	return wanted ? nat_new(v, address) : REASON_NONE;
}

/* Writes what snat_bind() found into the packet, whose flow is tracked now. Returns enum reason. */
__noinline int snat_send(struct __sk_buff *skb, struct view *v)
{
	if (!v)
		return REASON_INTERNAL;
	if (explain || !v->nat)
		return REASON_NONE;
	if (v->nat == NAT_NEW) {
		if (!nat_settled(v))
			return REASON_SNAT_UNTRACKED;
		nat_queue(v);
	}
	if (is_first_fragment(&v->p))
		snat_remember(skb, v, &v->flow.nat_addr);
	if (!set_address(skb, &v->p, true, &v->flow.nat_addr))
		return REASON_SNAT_FAILED;
	if (v->nat != NAT_FRAGMENT && !set_port(skb, &v->p, true, v->p.sport, v->flow.nat_port))
		return REASON_SNAT_FAILED;
	return REASON_NONE;
}

/* Gives what came in another destination. */
static __always_inline int snat_deliver(struct __sk_buff *skb, struct view *v, const union addr *to,
					__be16 port)
{
	if (!set_address(skb, &v->p, false, to) || !set_port(skb, &v->p, false, v->p.dport, port))
		return REASON_SNAT_FAILED;
	v->wire_dst = v->p.dst;
	v->wire_port = v->p.dport;
	v->p.dst = *to;
	v->p.dport = port;
	v->translated = true;
	return REASON_NONE;
}

/* An ICMP error that comes in about a packet of a translated flow: it goes to who sent that. */
__noinline int snat_receive_error(struct __sk_buff *skb, struct view *v)
{
	struct quote q = {.source = true};
	struct translation *t;
	struct flow_key wire;
	struct flow *flow;
	__u8 end;

	if (!v)
		return REASON_INTERNAL;
	end = quoted_key(skb, &v->p, &wire);
	if (end == FLOW_UNQUOTED)
		return REASON_NONE;
	t = bpf_map_lookup_elem(&translations, &wire);
	flow = translated_flow(t);
	if (!t || !flow || !same_addr(end ? &wire.addr[1] : &wire.addr[0], &t->addr) ||
	    !same_addr(&t->addr, &v->p.dst))
		return REASON_NONE;
	q.from = t->addr;
	q.port_from = t->port;
	q.to = flow->opener & 1 ? t->inner.addr[1] : t->inner.addr[0];
	q.port_to = flow->opener & 1 ? t->inner.port[1] : t->inner.port[0];
	q.protocol = wire.protocol;
	if (!set_quoted(skb, &v->p, &q))
		return REASON_SNAT_FAILED;
	return snat_deliver(skb, v, &q.to, v->p.dport);
}

/* A later fragment that comes in. One that comes before its first is taken for the box's own. */
static __always_inline int snat_receive_fragment(struct __sk_buff *skb, struct view *v)
{
	union addr to;

	if (!snat_recall(skb, v, &to))
		return REASON_NONE;
	return snat_deliver(skb, v, &to, v->p.dport);
}

/*
 * What comes in by an uplink for an address of the box and is no ICMP error: where it answers a translated flow it goes to who opened that, and v->p with
 * it. Returns enum reason.
 */
__noinline int snat_receive(struct __sk_buff *skb, struct view *v)
{
	struct translation *t;
	struct flow_key wire;
	struct flow *flow;
	union addr to;
	__be16 port;

	if (!v)
		return REASON_INTERNAL;
	if (v->p.flags & PACKET_NON_FIRST)
		return snat_receive_fragment(skb, v);
	if (!flow_tracked(&v->p))
		return REASON_NONE;
	flow_key(&v->p, &wire);
	t = bpf_map_lookup_elem(&translations, &wire);
	flow = translated_flow(t);
	if (!t || !flow || !same_addr(&t->addr, &v->p.dst))
		return REASON_NONE;
	if (flow->state == FLOW_CLOSED && (v->p.tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN)
		return REASON_NONE; /* it begins a flow of the outside's, to the box */
	to = flow->opener & 1 ? t->inner.addr[1] : t->inner.addr[0];
	port = flow->opener & 1 ? t->inner.port[1] : t->inner.port[0];
	return snat_deliver(skb, v, &to, port);
}

/* What came in for a translated flow has passed. */
static __always_inline void snat_received(struct __sk_buff *skb, const struct view *v)
{
	if (v->translated && is_first_fragment(&v->p))
		snat_remember(skb, v, &v->p.dst);
}

/*
 * Whether the box itself is to hear what comes to the address and port of a new translation: by what the file implies, or by
 * management:. A translation ranks before policy, so a workload that chose them well would have it instead. Global: verified once.
 */
__noinline int snat_reserved(struct view *v)
{
	struct packet *p;
	struct decision d;
	union addr src;
	__u8 flags, ttl, per_packet;
	__be16 sport;
	bool reserved;

	if (!v)
		return false;
	p = &v->p;
	d = v->d;
	src = p->src;
	sport = p->sport;
	flags = p->flags;
	ttl = p->ttl;
	per_packet = v->per_packet;
	p->src = v->flow.nat_addr;
	p->sport = v->flow.nat_port;
	p->flags &= ~PACKET_FRAGMENT;
	p->ttl = 255; /* of BFD (RFC 5881 section 5) */
	turn(v);
	reserved = permits_above(v, POLICY_SYSTEM) || permits_above(v, POLICY_FAILSAFE);
	turn(v);
	p->src = src;
	p->sport = sport;
	p->flags = flags;
	p->ttl = ttl;
	v->per_packet = per_packet;
	v->d = d;
	if (reserved && !explain) {
		nat_release(v);
		note_exhausted(v);
	}
	return reserved;
}

/*
 * Whether a flow of the box itself, which was entered just now, has the addresses and ports of a translated one. What ranks above
 * the operator's rules takes them: the translation goes, and the flow that had it begins anew with another.
 */
static __always_inline bool snat_clashes(const struct view *v, bool above)
{
	struct translation *t = bpf_map_lookup_elem(&translations, &v->key);

	if (!t || translation_stale(t, bpf_ktime_get_ns()))
		return false;
	if (explain)
		return !above;
	if (above && translation_claim(t, *(volatile __u64 *)&t->since_ns))
		return bpf_map_delete_elem(&translations, &v->key) < 0;
	bpf_map_delete_elem(&fresh_out, &v->key);
	return true;
}
