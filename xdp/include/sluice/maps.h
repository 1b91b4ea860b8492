/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/*
 * Maps of two kinds. State outlives generations: it is pinned, and the pin's name carries the layout version (Go:
 * xdp/pin). Tables belong to one generation: they are filled before the program is loaded into a slot and never
 * written after. Sizes of 1 are set by Go before loading.
 */

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"
#include "count.h"
#include "reason.h"

/* ---- state, shared by generations ---- */

/*
 * Counters of rules and defaults: rule_ids for each possible CPU, by stable id. No per-CPU array, which has a pointer for
 * each element, and to follow it is one more load that misses every cache.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* as many as there are ids in use, times the possible CPUs */
	__type(key, __u32);
	__type(value, struct rule_hit);
} rule_hits SEC(".maps");
volatile const __u32 rule_ids = 0; /* set by Go before loading */

/*
 * Flows that are proven: their opener has shown that it sees what is answered. Who forges sources never gets in here, and
 * nothing pushes a flow out. Elements are used again at once: what is read through a pointer may be another flow's.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct flow_key);
	__type(value, struct flow);
} flows SEC(".maps");

/* Flows that are not: of the inside and of the outside apart, so that a flood pushes out none but its like. */
#define FRESH_FLOWS(name)                            \
	struct {                                     \
		__uint(type, BPF_MAP_TYPE_LRU_HASH); \
		__uint(max_entries, 1);              \
		__type(key, struct flow_key);        \
		__type(value, struct flow);          \
	} name SEC(".maps")

FRESH_FLOWS(fresh_out); /* the node, a workload or a LAN opened them */
FRESH_FLOWS(fresh_in);	/* the outside did, and policy accepted it */

/* By the addresses and ports of the wire: the way back of translated flows. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct flow_key);
	__type(value, struct translation);
} translations SEC(".maps");

/* Translations whose flow was not proven when it was last looked at, the one first that waits longest. */
struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 1);
	__type(value, struct young_translation);
} young_translations SEC(".maps");

/* First fragments of what is translated. LRU: who sends many of them forgets others'. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, SNAT_FRAGMENTS);
	__type(key, struct snat_fragment_key);
	__type(value, struct snat_fragment);
} snat_fragments SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct snat_exhaustion);
} snat_exhausted SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flow_pressure);
} flow_pressure SEC(".maps");

/* How many proven flows an owner has: counted up here, and counted anew by the sweep. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_FLOW_OWNERS);
	__type(key, __u32); /* flow.owner */
	__type(value, __u32);
} flow_shares SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, EVENT_RING_SIZE);
} flow_events SEC(".maps");

/* ---- tables of a generation ---- */

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, union addr);
	__type(value, __u8);
} self SEC(".maps"); /* the box's own addresses */

/* Short lists of prefixes beside the classifier; a long one belongs into a prefix table. */
#define PREFIX_TRIE(name, key_type)                   \
	struct {                                      \
		__uint(type, BPF_MAP_TYPE_LPM_TRIE);  \
		__uint(map_flags, BPF_F_NO_PREALLOC); \
		__uint(max_entries, 1);               \
		__type(key, struct key_type);         \
		__type(value, __u32);                 \
	} name SEC(".maps")

/* The classifier's: arrays that Go fills through mmap, so each begins at a page. abi.h says what stands in them. */
#define CLASSIFIER_TABLE(name, value_type)         \
	struct {                                   \
		__uint(type, BPF_MAP_TYPE_ARRAY);  \
		__uint(map_flags, BPF_F_MMAPABLE); \
		__uint(max_entries, 1);            \
		__type(key, __u32);                \
		__type(value, value_type);         \
	} name SEC(".maps")

CLASSIFIER_TABLE(src4, __u64); /* prefix tables, by enum class_table */
CLASSIFIER_TABLE(dst4, __u64);
CLASSIFIER_TABLE(src6, __u64);
CLASSIFIER_TABLE(dst6, __u64);
CLASSIFIER_TABLE(src_up, __u64); /* of a class: its nearest ancestor with a wide bucket, or NO_CLASS */
CLASSIFIER_TABLE(dst_up, __u64);
CLASSIFIER_TABLE(buckets, struct bucket);   /* a power of two */
volatile const __u32 bucket_mask = 0;	    /* their number - 1; set by Go before loading */
CLASSIFIER_TABLE(leaves, __u64);	    /* leaves and lists */
CLASSIFIER_TABLE(rules, struct rule);	    /* the rule space */
CLASSIFIER_TABLE(verdicts, struct verdict); /* by entry */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32); /* enum policy_index */
	__type(value, struct policy);
} policies SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct generation_settings);
} settings SEC(".maps");

/* What the explain twin writes; a live program never does. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct explanation);
} explained SEC(".maps");

static __always_inline void count_rule(__u32 id, __u64 bytes)
{
	__u32 index = bpf_get_smp_processor_id() * rule_ids + id;
	struct rule_hit *hit;

	if (explain || id >= rule_ids)
		return;
	hit = bpf_map_lookup_elem(&rule_hits, &index);
	if (!hit)
		return;
	hit->packets++; /* this CPU's alone, as in count() */
	hit->bytes += bytes;
	hit->last = bpf_jiffies64(); /* one load where the JIT inlines it, which a clock is not */
}
