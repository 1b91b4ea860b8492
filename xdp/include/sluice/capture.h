/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/*
 * Whole packets for `sluice capture`, as the hook leaves them. While nobody captures, a packet costs one look at a
 * variable; while somebody does, one that no filter wants costs the filter, and a flood of what is wanted the budget. The
 * frame goes through a buffer of the CPU, because a ring reserves constant sizes only. Programs of a hook do not
 * interrupt each other on a CPU.
 *
 * Besides what parse.h needs, a program defines tag_beside(ctx, e): it fills in the VLAN tag that stands beside the frame.
 */

#include "events.h"

_Static_assert(CAPTURE_REASON_WORDS * 64 == REASON_SLOTS, "a bit for each reason");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, CAPTURE_RING_SIZE);
} capture_events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct capture_filter);
} capture_filter SEC(".maps");

struct captured {
	struct capture_event e;
	__u8 bytes[CAPTURE_SNAPLEN];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct captured);
} capture_scratch SEC(".maps");

static __always_inline bool addr_within(const union addr *a, const struct capture_filter *f)
{
	return (a->half[0] & f->mask.half[0]) == f->host.half[0] &&
	       (a->half[1] & f->mask.half[1]) == f->host.half[1];
}

static __always_inline bool rule_wanted(const struct capture_filter *f, __u32 rule)
{
	if (!f->rules[0])
		return true;
#pragma unroll
	for (int i = 0; i < CAPTURE_RULES; i++) {
		if (f->rules[i] == rule)
			return rule;
	}
	return false;
}

static __always_inline bool filter_wants(const struct capture_filter *f, const struct packet *p, __u64 where,
					 __u32 reason, __u32 rule)
{
	if (!(f->reasons[reason / 64 % CAPTURE_REASON_WORDS] & 1ull << reason % 64))
		return false;
	if (!(f->hooks & 1 << WHERE_HOOK(where)) || (f->ifindex && f->ifindex != WHERE_IFINDEX(where)))
		return false;
	if (!rule_wanted(f, rule))
		return false;
	if (f->host_family &&
	    (f->host_family != p->family || !(addr_within(&p->src, f) || addr_within(&p->dst, f))))
		return false;
	if ((f->flags & CAPTURE_PROTOCOL) && (!p->family || f->protocol != p->protocol))
		return false;
	return !f->port || ((p->flags & PACKET_PORTS) && (f->port == p->sport || f->port == p->dport));
}

/* Returns how many bytes of the frame are wanted and allowed, 0 for none. Global, as what follows, to be off the path. */
__noinline int capture_wants(const struct packet *p, __u64 where, __u32 reason, __u32 rule)
{
	__u32 zero = 0, watcher = WATCH_CAPTURE;
	struct capture_filter *f;
	struct watch_budget *budget;

	if (!p)
		return 0;
	f = bpf_map_lookup_elem(&capture_filter, &zero);
	if (!f || !filter_wants(f, p, where, reason, rule))
		return 0;
	budget = bpf_map_lookup_elem(&watch_budgets, &watcher);
	if (!budget)
		return 0;
	if (f->sample > 1) {
		if (budget->passed_over + 1 < f->sample) {
			budget->passed_over++;
			return 0;
		}
		budget->passed_over = 0;
	}
	if (!watch_allows(&watches[WATCH_CAPTURE], budget, bpf_ktime_get_boot_ns()))
		return 0;
	return p->len < f->snaplen ? p->len : f->snaplen;
}

/* lengths: of the frame, and above it those bytes that are wanted. why: the rule, and above it the reason. */
__noinline int capture_write(PARSE_CTX *ctx, __u64 where, __u64 why, __u64 lengths)
{
	__u32 zero = 0, watcher = WATCH_CAPTURE;
	struct capture_filter *f = bpf_map_lookup_elem(&capture_filter, &zero);
	struct captured *c = bpf_map_lookup_elem(&capture_scratch, &zero);
	struct watch_budget *budget;
	__u64 wanted = lengths >> 32;

	if (!c || !f)
		return 0;
	c->e.time_ns = bpf_ktime_get_boot_ns();
	c->e.session = f->session;
	c->e.ifindex = WHERE_IFINDEX(where);
	c->e.hook = WHERE_HOOK(where);
	c->e.flags = WHERE_MORE(where);
	c->e.len = lengths;
	c->e.captured = wanted;
	c->e.reason = why >> 32;
	c->e.rule = why;
	c->e.vlan_proto = 0;
	c->e.vlan_tci = 0;
	tag_beside(ctx, &c->e);
	/* Or LLVM makes the compares one, on a register of its own, and the verifier learns nothing of this one. */
	asm volatile("" : "+r"(wanted));
	if (wanted > CAPTURE_SNAPLEN)
		return 0;
	asm volatile("" : "+r"(wanted));
	if (!wanted)
		return 0;
	if (load_bytes(ctx, 0, c->bytes, wanted) ||
	    bpf_ringbuf_output(&capture_events, c, sizeof(c->e) + wanted, 0)) {
		budget = bpf_map_lookup_elem(&watch_budgets, &watcher);
		if (budget)
			budget->lost++;
	}
	return 0;
}

/* Where somebody captures. more: CAPTURE_L3 or 0. */
static __always_inline void report_capture(PARSE_CTX *ctx, const struct packet *p, enum hook hook,
					   __u32 ifindex, __u32 more, enum reason reason, __u32 rule)
{
	__u64 where = WHERE(hook, ifindex, more);
	__u32 wanted;

	wanted = capture_wants(p, where, reason, rule);
	if (wanted)
		capture_write(ctx, where, (__u64)reason << 32 | rule, (__u64)wanted << 32 | p->len);
}
