/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/*
 * Samples of packets for who looks on: of dropped ones for `sluice monitor --drops`, and of those that a rule logs. While
 * nobody does, a drop costs one look at a variable. While somebody does, each CPU writes at most a burst per window: a
 * flood stays as cheap as it was, and what was not written is counted.
 */

#include "count.h"
#include "parse.h"

/* A map of one element, pinned as the others: a program that looks at a variable asks nothing and branches nowhere. */
struct watch watches[WATCH_MAX] SEC(".data.watches"); /* by enum watcher */

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, WATCH_MAX);
	__type(key, __u32); /* enum watcher */
	__type(value, struct watch_budget);
} watch_budgets SEC(".maps");

/* Two rings, so that a flood of drops takes no room from what rules log. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, EVENT_RING_SIZE);
} drop_events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, EVENT_RING_SIZE);
} log_events SEC(".maps");

/* Where a packet is: the interface's index, enum hook above it, and what only one watcher needs above that. */
#define WHERE(hook, ifindex, more) ((__u64)(more) << 40 | (__u64)(hook) << 32 | (ifindex))
#define WHERE_IFINDEX(where)	   ((__u32)(where))
#define WHERE_HOOK(where)	   ((__u8)((where) >> 32))
#define WHERE_MORE(where)	   ((__u8)((where) >> 40))

/* Whether somebody may look on: the lease is compared only where there is one. */
static __always_inline bool watched(enum watcher watcher)
{
	return !explain && __builtin_expect(watches[watcher].until_ns, 0);
}

/*
 * Takes one packet off this CPU's budget. A lease that has ended is taken away, so that the packets after this one do not
 * even ask; should that meet a renewal, the next one mends it.
 */
static __always_inline bool watch_allows(struct watch *w, struct watch_budget *budget, __u64 now)
{
	__u64 window = now / WATCH_WINDOW_NS;

	if (now >= w->until_ns) {
		w->until_ns = 0;
		return false;
	}
	budget->wanted++;
	if (budget->window != window) {
		budget->window = window;
		budget->used = 0;
	}
	if (budget->used >= w->burst) {
		budget->suppressed++;
		return false;
	}
	budget->used++;
	return true;
}

static __always_inline void describe(struct packet_event *e, const struct packet *p)
{
	e->len = p->len;
	e->vlan = p->vlan;
	e->family = p->family;
	e->src = p->src;
	e->dst = p->dst;
	e->protocol = p->protocol;
	e->tcp_flags = p->tcp_flags;
	e->icmp_type = p->icmp_type;
	if (p->flags & PACKET_PORTS) {
		e->flags |= EVENT_PORTS;
		e->sport = p->sport;
		e->dport = p->dport;
	}
	if (p->flags & PACKET_NON_FIRST)
		e->flags |= EVENT_FRAGMENT;
}

/* where: with enum event_fate. A packet without a reason is one that a rule logs. Global: it is off the way of what passes. */
__noinline int sample_packet(const struct packet *p, __u64 where, __u32 reason, __u32 rule)
{
	bool log = reason == REASON_NONE;
	__u32 watcher = log ? WATCH_LOGS : WATCH_DROPS;
	struct watch_budget *budget;
	struct packet_event *e;
	__u64 now;

	if (!p)
		return 0;
	budget = bpf_map_lookup_elem(&watch_budgets, &watcher);
	now = bpf_ktime_get_boot_ns();
	if (!budget || !watch_allows(log ? &watches[WATCH_LOGS] : &watches[WATCH_DROPS], budget, now))
		return 0;
	e = log ? bpf_ringbuf_reserve(&log_events, sizeof(*e), 0)
		: bpf_ringbuf_reserve(&drop_events, sizeof(*e), 0);
	if (!e) {
		budget->lost++;
		return 0;
	}
	__builtin_memset(e, 0, sizeof(*e)); /* the ring holds what was there before */
	e->time_ns = now;
	e->ifindex = WHERE_IFINDEX(where);
	e->hook = WHERE_HOOK(where);
	e->fate = WHERE_MORE(where);
	e->reason = reason;
	e->rule = rule;
	describe(e, p);
	bpf_ringbuf_submit(e, 0);
	return 0;
}

/* Where somebody watches drops. */
static __always_inline void report_drop(const struct packet *p, enum hook hook, __u32 ifindex,
					enum reason reason, __u32 rule)
{
	sample_packet(p, WHERE(hook, ifindex, EVENT_DROPPED), reason, rule);
}

/* One in sample packets of a rule that logs, by chance: rules have no counter of their own. sample is not 0. */
static __always_inline void report_log(const struct packet *p, enum hook hook, __u32 ifindex, __u32 rule,
				       __u32 sample, enum event_fate fate)
{
	if (!watched(WATCH_LOGS))
		return;
	if (sample > 1 && bpf_get_prandom_u32() % sample)
		return;
	sample_packet(p, WHERE(hook, ifindex, fate), REASON_NONE, rule);
}
