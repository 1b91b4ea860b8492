/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/*
 * The short way through an ingress hook: a plain packet of a flow, whose direction this generation has judged at this hook, on to the
 * workload or the next hop that the packets before it went to. It does what the long way would, which wrote down how (note_way()),
 * and leaves to that all that may have changed.
 */

#include "forward.h"

/* Nothing that opens a flow or ends it at once, and nothing that the kernel or the long way has to see to. */
static __always_inline bool is_plain(const struct __sk_buff *skb, const struct packet *p)
{
	return p->flags == PACKET_PORTS && p->ttl > 1 && !(p->tcp_flags & (TCP_SYN | TCP_RST)) &&
	       !has_options(p) && skb->pkt_type == PACKET_HOST && !explain && !watched(WATCH_CAPTURE);
}

/*
 * Where the packets of a flow go on, or 0. The flow was not revoked, and the generation has judged its first direction too: else a
 * reply has that judged again first. What is read may be of another flow by now, as everywhere (maps.h): its way is not taken.
 */
static __always_inline __u32 way_on(const struct view *v, const struct flow *flow, const struct flow_way *way,
				    bool reply, __u64 seal)
{
	__u32 zero = 0;
	struct generation_settings *s = bpf_map_lookup_elem(&settings, &zero);

	if (!s || flow->epoch != s->epoch || way->epoch != s->epoch)
		return 0;
	if (flow->judged == REASON_FLOW_REVOKED || (flow->flags & (FLOW_NAT | FLOW_RST)))
		return 0;
	/* Else the long way is to note where the flow comes in by now. */
	if (!reply && (flow->at != v->at || flow->in != v->in || (flow->flags & FLOW_ASK)))
		return 0;
	return way_leads(v, way, seal);
}

/* A frame as far as a hop changes it, with IPv4. */
struct frame_head {
	__u8 macs[12];
	__u16 rest[5]; /* its type, and the IP header up to the TTL */
	struct ttl_to_check ttl;
};
_Static_assert(sizeof(struct frame_head) == ETH_HLEN + offsetof(struct iphdr, saddr), "as they lie");

/* Writes the MAC addresses, and what a router changes. Returns false on a failed write, which leaves TTL and hop limit. */
static __always_inline bool readdress(struct __sk_buff *skb, const struct packet *p, const struct hop *hop)
{
	const struct frame_head *was = (void *)(long)skb->data;
	struct frame_head head;

	if (p->family == 6)
		return !bpf_skb_store_bytes(skb, 0, hop->macs, sizeof(hop->macs), 0) && decrement_ttl(skb, p);
	if ((void *)(was + 1) > (void *)(long)skb->data_end)
		return false;
	head = *was;
	__builtin_memcpy(head.macs, hop->macs, sizeof(head.macs));
	decremented(&head.ttl);
	return !bpf_skb_store_bytes(skb, 0, &head, sizeof(head), 0);
}

/* Into the namespace behind an interface. False, and nothing has happened: the long way is to see to it. */
static __always_inline bool go_to_peer(struct __sk_buff *skb, struct view *v, const struct heading *h,
				       int *fate)
{
	__u32 ifindex = h->to & ~FLOW_TO_PEER, mtu = 0;

	if (!h->current) {
		if (bpf_check_mtu(skb, ifindex, &mtu, 0, 0) < 0)
			return false;
		keep_hop(h, mtu);
	}
	if (segment_len(skb, &v->p) > h->hop->mtu || !decrement_ttl(skb, &v->p))
		return false;
	skb->mark &= ~MARK_OURS;
	*fate = leave(v, REASON_DELIVERED, bpf_redirect_peer(ifindex, 0));
	return true;
}

/* To the next hop by the kernel's tables, of which is kept what they say. False, as above. */
static __always_inline bool ask_next_hop(struct __sk_buff *skb, struct view *v, const struct heading *h,
					 int *fate)
{
	struct bpf_fib_lookup fib = {};
	struct interface out = {};

	if (find_route(skb, &v->p, &fib) != REASON_NONE || fib.ifindex != h->to || !decrement_ttl(skb, &v->p))
		return false;
	find_interface(h->to, &out);
	keep_next_hop(h, out.slot, &fib);
	skb->mark |= MARK_JUDGED;
	*fate = leave(v, REASON_FORWARDED, redirect_to_next_hop(&fib));
	return true;
}

/* To the next hop. False, as above. */
static __always_inline bool go_to_next_hop(struct __sk_buff *skb, struct view *v, const struct heading *h,
					   int *fate)
{
	if (!h->current || v->p.l3 != ETH_HLEN) /* the kernel redirects no frame with tags in it */
		return ask_next_hop(skb, v, h, fate);
	if (segment_len(skb, &v->p) > h->hop->mtu || !readdress(skb, &v->p, h->hop))
		return false;
	skb->mark |= MARK_JUDGED;
	if (!has_strict && !(skb->mark & MARK_PACED)) { /* all that the egress hook would ask */
		skb->mark |= MARK_PASSED;
		count_reason(h->hop->slot, REASON_JUDGED, v->p.len);
	}
	*fate = leave(v, REASON_FORWARDED, bpf_redirect(h->to, 0));
	return true;
}

/* The entry of the packet's flow, alive or not, in any table. by_inside: who sends here opens flows of the inside. */
static __always_inline struct flow *find_any(struct view *v, bool by_inside)
{
	struct flow *flow = bpf_map_lookup_elem(&flows, &v->key);

	v->found = IN_FLOWS;
	if (flow)
		return flow;
	v->found = by_inside ? IN_FRESH_OUT : IN_FRESH_IN;
	flow = by_inside ? bpf_map_lookup_elem(&fresh_out, &v->key) : bpf_map_lookup_elem(&fresh_in, &v->key);
	if (flow)
		return flow;
	v->found = by_inside ? IN_FRESH_IN : IN_FRESH_OUT;
	flow = by_inside ? bpf_map_lookup_elem(&fresh_in, &v->key) : bpf_map_lookup_elem(&fresh_out, &v->key);
	v->missed = !flow;
	return flow;
}

/* Takes the short way, if there is one. inside: whose hook it is. Sets what the hook returns. */
static __always_inline bool take_way(struct __sk_buff *skb, struct view *v, bool inside, int *fate)
{
	const struct flow_way *way;
	struct heading h;
	enum reason reason;
	__u32 sender, receiver;
	struct flow *flow;
	bool reply;
	__u64 now = 0;

	if (!is_plain(skb, &v->p) || !find_hop(&h, way_seal(v)))
		return false;
	flow = find_any(v, inside);
	if (!flow)
		return false;
	reply = (flow->opener & 1) != v->end;
	way = reply ? &flow->back : &flow->there;
	head_for(&h, flow, way_on(v, flow, way, reply, h.seal));
	if (!h.to)
		return false;
	if (!h.current) /* else a packet of this tick was seen to be of a flow that lives, and its time noted */
		now = bpf_ktime_get_coarse_ns();
	if (now && flow_expired(v->key.protocol, flow, now))
		return false;
	if (v->on.flags & INTERFACE_JUDGE) {
		reason = overlay_stages(skb, v);
		if (reason != REASON_NONE) {
			*fate = leave_with(v, reason);
			return true;
		}
	}
	sender = way->rule[0];
	receiver = way->rule[1];
	if (!(h.to & FLOW_TO_PEER ? go_to_peer(skb, v, &h, fate) : go_to_next_hop(skb, v, &h, fate)))
		return false;
	if (sender)
		count_rule(sender, v->p.len);
	if (receiver)
		count_rule(receiver, v->p.len);
	v->reply = reply;
	if (!now && v->found == IN_FLOWS && !(v->p.tcp_flags & TCP_FIN))
		count_flow(flow, reply, v->p.len);
	else if (flow->since_ns ==
		 h.since_ns) /* else it is another's by now, whose state this packet says nothing of */
		move_on(skb, v, flow, now ? now : bpf_ktime_get_coarse_ns());
	return true;
}
