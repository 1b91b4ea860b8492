// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/* limit() by itself: packets and, where a test says so, the time come from an array. */

#include <linux/types.h>

static __u64 test_clock(void);
#define limit_clock() test_clock()

#include "../../../xdp/bpf/stages.h"
#include "sluice/limit.h"

enum lane { LANE_NOTHING, LANE_LIMIT, LANE_LRU };

volatile const __u32 lane = LANE_LIMIT;
volatile const __u32 arrival_mask = 0;
__u32 next_arrival;

struct arrival {
	__u64 now; /* ns; 0: the kernel's clock */
	union addr src;
	__u32 len;
	__u32 limiter;
	__u16 segments;
	__u16 l4;
	__u8 family;
	__u8 protocol;
	__u8 accepted; /* what came of it */
	__u8 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct arrival);
} arrivals SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} accepted SEC(".maps");

/* The rival: an LRU of buckets, as large as the table of sources. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, LIMIT_SETS *LIMIT_WAYS);
	__type(key, union addr);
	__type(value, __u64);
} lru SEC(".maps");

static __u64 clock_ns;

static __u64 test_clock(void)
{
	return clock_ns ? clock_ns : bpf_ktime_get_ns();
}

static __always_inline int limited_by_lru(const struct packet *p, __u32 index)
{
	struct limiter *l = bpf_map_lookup_elem(&limiters, &index);
	__u64 now = bpf_ktime_get_ns() << LIMIT_TICK_BITS, cost, *tat;

	if (!l)
		return REASON_INTERNAL;
	cost = limit_cost(l, p);
	tat = bpf_map_lookup_elem(&lru, &p->src);
	if (tat)
		return limit_take(l, tat, false, now, cost) ? REASON_LIMIT_ACCEPT : REASON_LIMIT_DROP;
	now += cost;
	bpf_map_update_elem(&lru, &p->src, &now, BPF_ANY);
	return REASON_LIMIT_ACCEPT;
}

SEC("xdp")
int arrive(struct xdp_md *ctx)
{
	__u32 index = next_arrival++ & arrival_mask, zero = 0;
	struct arrival *a = bpf_map_lookup_elem(&arrivals, &index);
	struct packet p = {};
	int reason = REASON_LIMIT_ACCEPT;
	__u64 *n;

	(void)ctx;
	if (!a)
		return XDP_ABORTED;
	p.src = a->src;
	p.len = a->len;
	p.segments = a->segments;
	p.l4 = a->l4;
	p.family = a->family;
	p.protocol = a->protocol;
	clock_ns = a->now;
	if (lane == LANE_LIMIT)
		reason = limit(&p, a->limiter);
	else if (lane == LANE_LRU)
		reason = limited_by_lru(&p, a->limiter);
	a->accepted = reason == REASON_LIMIT_ACCEPT;
	n = bpf_map_lookup_elem(&accepted, &zero);
	if (n)
		*n += reason == REASON_LIMIT_ACCEPT;
	return reason == REASON_LIMIT_ACCEPT ? XDP_PASS : XDP_DROP;
}

char _license[] SEC("license") = "Dual BSD/GPL";
