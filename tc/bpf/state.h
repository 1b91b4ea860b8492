/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* What a packet that passes makes of its flow: counters, times, the state of TCP, proof. */

#include <linux/errno.h>

#include "packet.h"

#define FLOW_NO_PROTOCOL 255 /* reserved (IANA): the key of what is not tracked */

static __always_inline void *table_of(__u8 where)
{
	switch (where) {
	case IN_FRESH_OUT:
		return &fresh_out;
	case IN_FRESH_IN:
		return &fresh_in;
	default:
		return &flows;
	}
}

/* Tells who looks on what became of a flow. Global: out of the way of what nobody looks at. */
__noinline int report_flow(const struct view *v, const struct flow *flow, __u8 change)
{
	__u32 watcher = WATCH_FLOWS;
	struct watch_budget *budget = bpf_map_lookup_elem(&watch_budgets, &watcher);
	struct flow_event *e;
	__u64 now = bpf_ktime_get_boot_ns();

	if (!v || !flow || !budget || !watch_allows(&watches[WATCH_FLOWS], budget, now))
		return 0;
	e = bpf_ringbuf_reserve(&flow_events, sizeof(*e), 0);
	if (!e) {
		budget->lost++;
		return 0;
	}
	__builtin_memset(e, 0, sizeof(*e));
	e->time_ns = now;
	e->key = v->key;
	e->flow = *flow;
	e->change = change;
	bpf_ringbuf_submit(e, 0);
	return 0;
}

static __always_inline void tell(const struct view *v, const struct flow *flow, enum flow_change change)
{
	if (watched(WATCH_FLOWS))
		report_flow(v, flow, change);
}

/*
 * What the other end has sent at most, beyond the headers of its packets. TCP Fast Open (RFC 7413) lets a server send before its
 * SYN-ACK is acknowledged; else this is little more than nothing, and who cannot see the SYN-ACK has to guess 32 bits.
 */
static __always_inline __u32 sent_by_other(const struct flow *flow)
{
	const struct flow_side *other = &flow->answered;
	__u64 headers = other->packets * (ETH_HLEN + sizeof(struct iphdr) + 20);

	return other->bytes > headers ? other->bytes - headers : 0;
}

/* Whether the opener of a TCP flow shows that it saw the answer. Where the SYN-ACK was not seen, speaking after it must do. */
static __always_inline bool proves(struct __sk_buff *skb, const struct view *v, const struct flow *flow)
{
	__be32 ack;

	if (!(v->p.tcp_flags & TCP_ACK))
		return false;
	if (!(flow->flags & FLOW_SEQ))
		return true;
	return !bpf_skb_load_bytes(skb, v->p.l4 + 8, &ack, sizeof(ack)) &&
	       bpf_ntohl(ack) - flow->seq <= sent_by_other(flow);
}

/* A SYN of the other end, with the ACK or, where both opened at once, without. Only until the opener has proven itself. */
static __always_inline void note_answer(struct __sk_buff *skb, const struct view *v, struct flow *flow)
{
	__be32 seq;

	if (!(v->p.tcp_flags & TCP_SYN) || bpf_skb_load_bytes(skb, v->p.l4 + 4, &seq, sizeof(seq)))
		return;
	flow->seq = bpf_ntohl(seq) + 1;
	flow->flags |= FLOW_SEQ;
}

static __always_inline __u8 closing_state(const struct flow *flow, __u8 state)
{
	switch (flow->flags & (FLOW_FIN_OPENER | FLOW_FIN_OTHER)) {
	case 0:
		return state;
	case FLOW_FIN_OPENER | FLOW_FIN_OTHER:
		return FLOW_CLOSED;
	default:
		return FLOW_CLOSING;
	}
}

/*
 * The state of a TCP flow after a packet. A RST is believed for ten seconds: whoever knows the addresses can send one, so what
 * goes on behind it revives the flow (RFC 5961); but not what crosses with it, which late says: a flow that ended would be taken for one
 * that lives. And an unproven one that was refused has not been answered.
 */
static __always_inline __u8 next_state_tcp(struct __sk_buff *skb, const struct view *v, struct flow *flow,
					   bool late)
{
	__u8 sent = v->p.tcp_flags, state = flow->state;

	if (sent & TCP_RST) {
		flow->flags |= FLOW_RST;
		return FLOW_CLOSED;
	}
	if (flow->flags & FLOW_RST) {
		if ((sent & TCP_SYN) || !late)
			return FLOW_CLOSED;
		flow->flags &= ~FLOW_RST;
		state = v->found == IN_FLOWS ? FLOW_ESTABLISHED : FLOW_NEW;
	}
	if (v->reply && state < FLOW_ESTABLISHED) {
		note_answer(skb, v, flow);
		state = FLOW_REPLIED;
	} else if (!v->reply && state == FLOW_REPLIED && proves(skb, v, flow)) {
		state = FLOW_ESTABLISHED;
	}
	if (sent & TCP_FIN)
		flow->flags |= v->reply ? FLOW_FIN_OTHER : FLOW_FIN_OPENER;
	return closing_state(flow, state);
}

/* Of other protocols: an answer proves what the inside opened. Sources from outside are never proven. */
static __always_inline __u8 next_state(const struct view *v, const struct flow *flow)
{
	if (!v->reply || flow->state != FLOW_NEW)
		return flow->state;
	return flow->flags & FLOW_INSIDE ? FLOW_ESTABLISHED : FLOW_REPLIED;
}

/* Before whatever is written behind it. */
static __always_inline void set_time(struct flow *flow, __u64 now)
{
	__sync_lock_test_and_set(&flow->last_ns, now);
}

static __always_inline void count_flow(struct flow *flow, bool reply, __u64 bytes)
{
	struct flow_side *side = reply ? &flow->answered : &flow->sent;

	__sync_fetch_and_add(&side->packets, 1);
	__sync_fetch_and_add(&side->bytes, bytes);
}

/* Whether the owner of a flow has as many proven ones as it may. */
static __always_inline bool is_crowded(__u32 owner)
{
	__u32 zero = 0, *has = bpf_map_lookup_elem(&flow_shares, &owner);
	struct generation_settings *s = bpf_map_lookup_elem(&settings, &zero);

	return has && s && *(volatile __u32 *)has >= s->share;
}

static __always_inline void count_share(__u32 owner)
{
	__u32 one = 1, *has = bpf_map_lookup_elem(&flow_shares, &owner);

	if (has)
		__sync_fetch_and_add(has, 1);
	else
		bpf_map_update_elem(&flow_shares, &owner, &one, BPF_NOEXIST);
}

/*
 * Moves a proven flow to where nothing pushes it out. Where that has no room, or its owner too many, it stays where it is and is
 * tried again when its time is written next. Packets that another CPU counts in between are lost to its counters.
 */
static __always_inline void promote(struct view *v, struct flow *flow)
{
	__u32 zero = 0, owner = flow->owner;
	struct flow_pressure *pressure = bpf_map_lookup_elem(&flow_pressure, &zero);
	long err;

	if (!pressure)
		return;
	if (is_crowded(owner)) {
		pressure->crowded++;
		return;
	}
	err = bpf_map_update_elem(&flows, &v->key, flow, BPF_NOEXIST);
	if (err && err != -EEXIST) {
		pressure->full++;
		return;
	}
	if (!err)
		count_share(owner);
	bpf_map_delete_elem(v->found == IN_FRESH_OUT ? (void *)&fresh_out : (void *)&fresh_in, &v->key);
}

/*
 * A packet of a flow has passed. Times are written at most once a second, so that CPUs do not fight for the line; and before flags
 * and state, which may shorten the timeout: whoever reads in between would take a flow for expired that was idle for long. Says
 * whether the time was written.
 */
static __always_inline bool advance(struct __sk_buff *skb, const struct view *v, struct flow *flow, __u64 now)
{
	__u8 was = flow->state, is;
	bool late = (__s64)(now - flow->last_ns) > (__s64)SECOND;

	if (late)
		set_time(flow, now);
	count_flow(flow, v->reply, v->p.len);
	is = v->key.protocol == IPPROTO_TCP ? next_state_tcp(skb, v, flow, late) : next_state(v, flow);
	if (is == was)
		return late;
	if (!late)
		set_time(flow, now);
	flow->state = is;
	if (is == FLOW_ESTABLISHED)
		tell(v, flow, FLOW_EVENT_PROVEN);
	else if (is == FLOW_CLOSED)
		tell(v, flow, FLOW_EVENT_CLOSED);
	return true;
}

/* Whether this packet leaves a proven flow. Where the answer was short its FIN comes before the acknowledgement that proves. */
static __always_inline bool is_proven(struct __sk_buff *skb, const struct view *v, const struct flow *flow)
{
	if (flow->state <= FLOW_ESTABLISHED)
		return flow->state == FLOW_ESTABLISHED;
	return (flow->flags & (FLOW_FIN_OTHER | FLOW_RST)) == FLOW_FIN_OTHER && !v->reply &&
	       proves(skb, v, flow);
}

/* The same, and what follows from proof. */
static __always_inline void move_on(struct __sk_buff *skb, struct view *v, struct flow *flow, __u64 now)
{
	if (advance(skb, v, flow, now) && v->found != IN_FLOWS && is_proven(skb, v, flow))
		promote(v, flow);
}
