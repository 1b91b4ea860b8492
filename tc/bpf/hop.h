/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/*
 * What the kernel said of where a direction of a flow goes, kept for the packets behind within the same tick of the clock (1 to 10 ms,
 * CONFIG_HZ): to ask it again costs more than all else on the short way. So a change of a route, a neighbor or an MTU is seen a tick
 * late at most, and each tick's first packet goes by the neighbor table, which probes neighbors that are in use.
 */

#include "track.h"

#define HOPS 256 /* a power of two */

struct hop {
	__u64 seal;	/* way_seal() of the direction, and */
	__u64 since_ns; /* flow.since_ns: whose it is */
	__u64 tick;	/* jiffies64 when the kernel was asked */
	__u32 to;	/* where it leads, as flow_way has it */
	__u32 mtu;	/* of the route or the interface */
	__u8 macs[12];	/* of the next hop, and of the interface, as a frame has them */
	__u32 slot;	/* of the interface's reason counters */
	__u8 pad[16];
};
_Static_assert(sizeof(struct hop) == 64, "a cache line");

/* One place for each hash: who shares it asks the kernel more often. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, HOPS);
	__type(key, __u32);
	__type(value, struct hop);
} hops SEC(".maps");

/* A direction of a flow, and its hop. */
struct heading {
	__u64 seal;
	__u64 since_ns;
	__u32 to;
	bool current; /* the hop is its own, of this tick */
	struct hop *hop;
};

/* Finds the place of a hop. Before the flow is known whose it is to be: so both come from memory at the same time. */
static __always_inline bool find_hop(struct heading *h, __u64 seal)
{
	__u32 index = seal % HOPS;
	struct hop *hop = bpf_map_lookup_elem(&hops, &index);

	if (!hop)
		return false;
	h->seal = seal;
	h->hop = hop;
	h->current = hop->tick == bpf_jiffies64() & hop->seal == seal;
	return true;
}

/* Says whose it is to be, and where that goes. */
static __always_inline void head_for(struct heading *h, const struct flow *flow, __u32 to)
{
	h->since_ns = flow->since_ns;
	h->to = to;
	h->current = h->current && h->hop->since_ns == h->since_ns && h->hop->to == to;
}

/* Into a namespace, or as the first half of where to a next hop. */
static __always_inline void keep_hop(const struct heading *h, __u32 mtu)
{
	struct hop *hop = h->hop;

	hop->seal = h->seal;
	hop->since_ns = h->since_ns;
	hop->to = h->to;
	hop->mtu = mtu;
	hop->tick = bpf_jiffies64();
}

/* To a next hop, which the kernel has named. */
static __always_inline void keep_next_hop(const struct heading *h, __u32 slot,
					  const struct bpf_fib_lookup *fib)
{
	struct hop *hop = h->hop;

	keep_hop(h, fib->mtu_result);
	hop->slot = slot;
	__builtin_memcpy(hop->macs, fib->dmac, sizeof(fib->dmac));
	__builtin_memcpy(hop->macs + sizeof(fib->dmac), fib->smac, sizeof(fib->smac));
}

/* The hop of a packet on the long way, whose flow was tracked, for those behind it. False where its way was not noted. */
static __always_inline bool hop_behind(const struct view *v, struct heading *h)
{
	if (explain || !v->to || !find_hop(h, way_seal(v)))
		return false;
	head_for(h, &v->flow, v->to);
	return true;
}
