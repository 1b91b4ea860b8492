/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/*
 * bandwidth.egress, where packets leave the box: earliest departure times, which fq on the uplink keeps. Where there is no fq,
 * what would have to wait too long is dropped (policing).
 *
 * A source has one time, when its rate has room again, and one for each flow: when the flow has had its share of what it
 * sent, with as many shares as flows are active. A packet leaves at the earlier of the two. So a flow within its share
 * does not wait behind one that is not, and a lone flow has all of the rate. What is let in is charged to both whenever it
 * leaves, and what is beyond its share is not let in for long: the rate holds in the long run, though the estimate of who
 * is active be wrong. Then flows may only for a moment be faster together.
 */

#include "packet.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);   /* ifindex that the packet came in by */
	__type(value, __u64); /* bits per second */
} rates SEC(".maps");

/* State, one element for each of rates. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_PACERS);
	__type(key, __u32);
	__type(value, struct pacer);
} pacers SEC(".maps");

#define PACE_TICKS(ns) ((__u64)(ns) << PACE_TICK_BITS)

/* Signed, so that it holds when times wrap. */
static __always_inline __u64 pace_ahead(__u64 time, __u64 now)
{
	__s64 ahead = time - now;

	return ahead <= 0 ? 0 : ahead;
}

/* Takes the next piece of a time, and returns when it begins. Each CPU gets one of its own. */
static __always_inline __u64 pace_take(__u64 *next, __u64 now, __u64 cost)
{
	__u64 at = *(volatile __u64 *)next;

	if (!pace_ahead(at, now) && __sync_val_compare_and_swap(next, at, now + cost) == at)
		return now;
	return __sync_fetch_and_add(
		next, cost); /* it lies ahead, if only since another CPU took the piece at now */
}

/*
 * The place of a flow: its own, an idle one, or where all four are taken one that it shares. Two CPUs may give one place to
 * two flows, which share it then.
 */
static __always_inline __u32 pace_place(struct pacer *p, __u32 hash, __u64 now)
{
	__u32 first = (hash % PACE_SETS) * PACE_WAYS, idle = PACE_FLOWS;

	for (__u32 i = 0; i < PACE_WAYS; i++) {
		struct pacer_flow *f = &p->flow[first + i];

		if (f->tag == hash)
			return first + i;
		if (idle == PACE_FLOWS && !pace_ahead(f->next, now))
			idle = first + i;
	}
	if (idle == PACE_FLOWS)
		return first + (hash >> 30);
	p->flow[idle % PACE_FLOWS].tag = hash;
	return idle;
}

static __always_inline __u64 count_bits(__u64 bits)
{
	bits -= bits >> 1 & 0x5555555555555555ull;
	bits = (bits & 0x3333333333333333ull) + (bits >> 2 & 0x3333333333333333ull);
	bits = (bits + (bits >> 4)) & 0x0f0f0f0f0f0f0f0full;
	return bits * 0x0101010101010101ull >> 56;
}

/*
 * How many flows share the rate, with the one at place. Each packet looks at one other flow, whether it is idle by now. Too many
 * for a while only means that packets leave in the order of their arrival.
 */
static __always_inline __u64 pace_shares(struct pacer *p, __u32 place, __u64 now)
{
	__u64 mine = 1ull << (place % PACE_FLOWS), other;
	__u32 turn = p->turn++ % PACE_FLOWS; /* CPUs may take the same turn */

	other = 1ull << turn;
	if ((p->active & other & ~mine) && !pace_ahead(p->flow[turn].next, now))
		__sync_fetch_and_and(&p->active, ~other);
	if (!(p->active & mine))
		__sync_fetch_and_or(&p->active, mine);
	return count_bits(p->active | mine);
}

/* Later than what the sender's own TCP asks for (its pacing, which survives the way out of the namespace). */
static __always_inline void pace_depart(struct __sk_buff *skb, __u64 at_ns)
{
	if (skb->tstamp_type == BPF_SKB_TSTAMP_DELIVERY_MONO && skb->tstamp > at_ns)
		return;
	bpf_skb_set_tstamp(skb, at_ns, BPF_SKB_TSTAMP_DELIVERY_MONO);
}

/*
 * Gives a packet its time, or drops it: REASON_NONE or why. One that was paced is not paced again below a VLAN interface. The
 * length is that of all segments with a header each, as qdiscs count it.
 */
__noinline int pace(struct __sk_buff *skb)
{
	__u32 from = skb->ingress_ifindex, ifindex = skb->ifindex, place;
	__u64 *rate = bpf_map_lookup_elem(&rates, &from);
	struct interface out;
	struct pacer *p = bpf_map_lookup_elem(&pacers, &from);
	__u64 now_ns, now, cost, share, total, limit, start, at;
	bool fq, held, crowded;

	skb->mark &= ~MARK_PACED;
	if (!rate || !*rate || !p ||
	    !find_interface(ifindex, &out)) /* it came in under another generation, which paced it */
		return REASON_NONE;
	fq = out.role == ROLE_UPLINK && (out.flags & INTERFACE_FQ);
	held = fq && skb->sk;
	limit = PACE_TICKS(fq ? PACE_BURST_NS : PACE_POLICED_NS);
	now_ns = bpf_ktime_get_ns();
	now = PACE_TICKS(now_ns);
	cost = PACE_TICKS((__u64)skb->wire_len * 8 * SECOND) / *rate;
	place = pace_place(p, bpf_get_hash_recalc(skb), now) % PACE_FLOWS;
	share = pace_ahead(p->flow[place].next, now);
	total = pace_ahead(p->next, now);
	crowded = total > PACE_TICKS(PACE_BURST_NS / 2);
	if (held ? share > PACE_TICKS(PACE_HORIZON_NS) && total > PACE_TICKS(PACE_HORIZON_NS)
		 : crowded && share > limit) {
		__sync_fetch_and_add(&p->dropped, 1);
		return REASON_PACED_DROP;
	}
	if (crowded && share > limit / 2 && bpf_skb_ecn_set_ce(skb))
		__sync_fetch_and_add(&p->marked, 1);
	/*
	 * What was beyond its share while nobody wanted the rest is not held against it for long. Flows that pause are not
	 * counted now and then, and the others are too fast: so shares are an eighth smaller until the rate has room again.
	 */
	if (share > total + 2 * limit) {
		start = p->flow[place].next;
	} else {
		__u64 part = cost * pace_shares(p, place, now);

		start = pace_take(&p->flow[place].next, now, crowded ? part + part / 8 : part);
	}
	at = pace_take(&p->next, now, cost);
	if (pace_ahead(at, start))
		at = start;
	if (fq)
		pace_depart(skb, now_ns + (pace_ahead(at, now) >> PACE_TICK_BITS));
	return REASON_NONE;
}

/* Last at egress of uplinks and tunnels; fq is on uplinks alone. */
static __always_inline int pace_what_passes(struct __sk_buff *skb, struct view *v, enum role role, int fate)
{
	enum reason reason;

	if ((role != ROLE_UPLINK && role != ROLE_TUNNEL) || explain || fate != TCX_NEXT ||
	    !(skb->mark & MARK_PACED))
		return fate;
	reason = pace(skb);
	return reason == REASON_NONE ? fate : leave_with(v, reason);
}
