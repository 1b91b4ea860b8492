/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* Counting by reason: all that a root needs, which has none of a generation's tables. */

#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"
#include "reason.h"

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, INTERFACE_SLOTS *REASON_SLOTS);
	__type(key, __u32);
	__type(value, struct counter);
} reasons SEC(".maps"); /* one for XDP, one for tc: pins xdp-reasons, tc-reasons */

/*
 * XDP shares one pinned map of these among roots and generations: it changes when an interface comes or goes, and
 * rules do not. tc fills one per generation, because roles and workloads belong to its rules.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32); /* ifindex */
	__type(value, struct interface);
} interfaces SEC(".maps");

/* 1 in the explain twin: state maps are read only, nothing is counted. Set by Go before loading. */
volatile const __u8 explain = 0;

static __always_inline void count(struct counter *c, __u64 bytes)
{
	c->packets++; /* per CPU, and programs are not preempted by each other on one CPU at this hook */
	c->bytes += bytes;
}

static __always_inline void count_reason(__u32 slot, enum reason reason, __u64 bytes)
{
	__u32 index = slot * REASON_SLOTS + reason;
	struct counter *c;

	if (explain)
		return;
	c = bpf_map_lookup_elem(&reasons, &index);
	if (c)
		count(c, bytes);
}
