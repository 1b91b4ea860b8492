/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/*
 * Samples of dropped packets for `sluice monitor --drops`. While nobody listens a drop costs one look into an array.
 * While somebody does, each CPU writes at most a burst per window: a flood of drops stays as cheap as it was, and what
 * was not written is counted.
 */

#include "count.h"
#include "parse.h"

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, DROP_RING_SIZE);
} drop_events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct drop_control);
} drop_control SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct drop_budget);
} drop_budget SEC(".maps");

/* Takes one sample off this CPU's budget. */
static __always_inline bool drop_allowed(struct drop_budget *budget, __u32 burst, __u64 now)
{
	__u64 window = now / DROP_WINDOW_NS;

	if (budget->window != window) {
		budget->window = window;
		budget->used = 0;
	}
	if (budget->used >= burst) {
		budget->suppressed++;
		return false;
	}
	budget->used++;
	return true;
}

/* where: the interface's index, and enum hook in the upper half. Global: it is off the way of what passes. */
__noinline int sample_drop(const struct packet *p, __u64 where, __u32 reason, __u32 rule)
{
	struct drop_control *control;
	struct drop_budget *budget;
	struct drop_event *e;
	__u32 zero = 0;
	__u64 now;

	if (!p)
		return 0;
	control = bpf_map_lookup_elem(&drop_control, &zero);
	budget = bpf_map_lookup_elem(&drop_budget, &zero);
	now = bpf_ktime_get_boot_ns();
	if (!control || !budget || now >= control->until_ns || !drop_allowed(budget, control->burst, now))
		return 0;
	e = bpf_ringbuf_reserve(&drop_events, sizeof(*e), 0);
	if (!e) {
		budget->lost++;
		return 0;
	}
	__builtin_memset(e, 0, sizeof(*e)); /* the ring holds what was there before */
	e->time_ns = now;
	e->ifindex = (__u32)where;
	e->hook = where >> 32;
	e->len = p->len;
	e->reason = reason;
	e->rule = rule;
	e->vlan = p->vlan;
	e->family = p->family;
	e->src = p->src;
	e->dst = p->dst;
	e->protocol = p->protocol;
	e->tcp_flags = p->tcp_flags;
	e->icmp_type = p->icmp_type;
	if (p->flags & PACKET_PORTS) {
		e->flags |= DROP_PORTS;
		e->sport = p->sport;
		e->dport = p->dport;
	}
	if (p->flags & PACKET_NON_FIRST)
		e->flags |= DROP_FRAGMENT;
	bpf_ringbuf_submit(e, 0);
	return 0;
}

static __always_inline void report_drop(const struct packet *p, enum hook hook, __u32 ifindex,
					enum reason reason, __u32 rule)
{
	struct drop_control *control;
	__u32 zero = 0;

	control = bpf_map_lookup_elem(&drop_control, &zero);
	if (control && control->until_ns)
		sample_drop(p, (__u64)hook << 32 | ifindex, reason, rule);
}
