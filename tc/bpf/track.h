/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* Flows as tcx writes them, and what they excuse: replies, and ICMP errors about them. */

#include "packet.h"

/*
 * Fills in the keys. An untracked packet gets keys that are never in a table: protocol 255 is reserved (IANA).
 * Link-local addresses mean something else on every link, and a workload may send from any: workload is the index of
 * its interface, or 0, and keeps its flows apart from those of the uplinks' links.
 */
static __always_inline void view_keys(struct view *v, __u32 workload)
{
	flow_key(&v->p, &v->key);
	if (!flow_tracked(&v->p))
		v->key.protocol = 255;
	if (workload && v->p.family == 6 && (is_link_local6(&v->p.src) || is_link_local6(&v->p.dst))) {
		v->key.scope[0] = workload;
		v->key.scope[1] = workload >> 8;
		v->key.scope[2] = workload >> 16;
	}
}

/*
 * Notes a packet of the flow in its table; a missing entry is made only where create says so. One that has timed out
 * begins anew, or it would inherit the long idle time of its former life. The time is written at most once a second,
 * so that CPUs do not fight for the line.
 */
static __always_inline void flow_touch(void *table, const struct flow_key *key, const struct packet *p,
				       __u32 flags, bool create)
{
	struct flow *flow, fresh = {};
	__u64 now;

	if (explain || key->protocol == 255)
		return;
	now = bpf_ktime_get_ns();
	if (key->protocol == IPPROTO_TCP && (p->tcp_flags & (TCP_FIN | TCP_RST)))
		flags |= FLOW_CLOSING;
	flow = bpf_map_lookup_elem(table, key);
	if (flow) {
		bool reused = key->protocol == IPPROTO_TCP && (p->tcp_flags & TCP_SYN) &&
			      (flow->flags & FLOW_CLOSING);

		if (reused || now - flow->last_ns > flow_timeout(key, flow->flags))
			flow->flags = 0;
		if ((flow->flags | flags) != flow->flags)
			flow->flags |= flags;
		if (now - flow->last_ns > SECOND)
			flow->last_ns = now;
		return;
	}
	if (!create)
		return;
	fresh.last_ns = now;
	fresh.flags = flags;
	bpf_map_update_elem(table, key, &fresh, BPF_ANY);
}

/* The packet passed: remember it. out and in say which tables its first direction belongs to. */
static __always_inline void track(const struct view *v, bool out, bool in)
{
	if (out)
		flow_touch(&flows_out, &v->key, &v->p, 0, true);
	if (in)
		flow_touch(&flows_in, &v->key, &v->p, 0, true);
}

/*
 * Whether a table holds the flow that the packet replies to; the entry is refreshed when the reply is let through. The key
 * is turned in place and back: a second one would not fit on the stack.
 */
static __always_inline bool replies_to(void *table, struct view *v)
{
	bool found;

	if (v->key.protocol == 255)
		return false;
	flow_turn(&v->key);
	found = flow_find(table, &v->key);
	flow_turn(&v->key);
	return found;
}

static __always_inline void track_reply(void *table, struct view *v)
{
	flow_turn(&v->key);
	flow_touch(table, &v->key, &v->p, FLOW_REPLIED, false);
	flow_turn(&v->key);
}

/*
 * Whether an ICMP error quotes a packet of a tracked flow, of either direction. It goes to who sent that packet;
 * anything else is forged. A workload is no router (host): what it complains about was sent to itself, or it could say
 * what it likes to any party of any flow. Global: verified once.
 */
__noinline int quotes_tracked_flow(struct __sk_buff *skb, const struct packet *p, bool host)
{
	struct flow_key key, reversed;
	struct cursor c;

	if (!p || !(p->flags & PACKET_ICMP_ERROR) || p->l4 > MAX_L4_OFFSET)
		return 0;
	cursor_of(&c, skb);
	c.pos += (p->l4 & MAX_L4_OFFSET) + sizeof(struct icmp_header);
	if (c.pos > c.end || !flow_quoted(&c, p, &key))
		return 0;
	if (key.src.half[0] != p->dst.half[0] || key.src.half[1] != p->dst.half[1])
		return 0;
	if (host && (key.dst.half[0] != p->src.half[0] || key.dst.half[1] != p->src.half[1]))
		return 0;
	flow_reverse(&key, &reversed);
	return flow_find(&flows_out, &key) || flow_find(&flows_out, &reversed) ||
	       flow_find(&flows_in, &key) || flow_find(&flows_in, &reversed);
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

/* What a policy, or a stage before it, has said of a packet: with fragments: track later fragments follow the first. */
static __always_inline enum reason judged(struct __sk_buff *skb, struct view *v, __u32 policy,
					  enum reason reason)
{
	return v->p.flags & PACKET_FRAGMENT ? follow_fragment(skb, &v->p, policy, reason) : reason;
}

/* Judges by one policy; where its default would drop, tracked flows excuse. Leaves the decision in v->d. */
static __always_inline enum reason judge_flow(struct __sk_buff *skb, struct view *v, __u32 policy)
{
	judge_limited(&v->p, &v->c, policy, &v->d);
	if (v->d.sample | v->d.shadow)
		log_rules(&v->p, &v->d, v->hook, v->at, !reason_accepts(v->d.reason));
	if (v->d.reason == REASON_DEFAULT_DROP || v->d.reason == REASON_FRAGMENT_DEFAULT_DROP) {
		if (v->reply)
			return judged(skb, v, v->d.policy, REASON_ESTABLISHED);
		if (v->related)
			return REASON_ICMP_ERROR;
	}
	v->d.reason =
		judged(skb, v, v->d.policy, v->d.reason); /* not policy: it would not fit on the stack */
	count_default(&v->p, &v->d);
	return v->d.reason;
}

static __always_inline bool drops(enum reason reason)
{
	return fate_of(reason) == TCX_DROP;
}
