/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* Addresses to classes by longest prefix: the prefix tables of abi.h. Each step is one load from an array. */

#include <bpf/bpf_endian.h>

#include "maps.h"
#include "parse.h"

/* What a policy looks up of a packet. */
struct classes {
	__u32 src; /* classes with their CLASS_* flags */
	__u32 dst;
	__u32 ports; /* the port key */
};

static __always_inline __u64 word_at(void *table, __u32 index)
{
	__u64 *word = bpf_map_lookup_elem(table, &index);

	return word ? *word : 0;
}

#define IS_NODE(ref) (REF_KIND(ref) == REF_IS_NODE)

/* All ones where a is less than b, both below 2^63: as an expression the compiler would make a jump of it. */
static __always_inline __u64 less(__u64 a, __u64 b)
{
	__u64 difference = a - b;

	asm volatile("%0 s>>= 63" : "+r"(difference));
	return difference;
}

/* What an IPv4 key has in common with the next node: one load. */
static __always_inline __u64 step_ip4(void *table, __u64 ref, __u64 key)
{
	__u32 slot = key >> (REF_SHIFT(ref) & 63);

	return word_at(table, REF_OFFSET(ref) + (slot & ((1u << (REF_BITS(ref) & 31)) - 1)));
}

static __always_inline __u64 step_ip6(void *table, __u64 ref, __u64 hi, __u64 lo)
{
	return step_ip4(table, ref, REF_SHIFT(ref) & 64 ? hi : lo);
}

/* Asks for the first line of runs; of other references for one that is there anyway. */
static __always_inline void touch_runs(void *table, __u64 ref)
{
	__u32 index = REF_OFFSET(ref) & less(REF_KIND(ref), REF_IS_RUNS + 1);
	const volatile __u64 *word = bpf_map_lookup_elem(table, &index);

	if (word)
		(void)*word;
}

/* The value of an IPv4 address where no node is left. What is random from packet to packet is no jump. */
static __always_inline __u32 value_of_ip4(void *table, __u64 ref, __u32 ip)
{
	__u64 at = REF_OFFSET(ref), last = at + REF_RUNS(ref), way;
	__u32 prefix = REF_INNER(ref),
	      below = prefix ^ (prefix - 1); /* the lowest one, and what is open behind it */

	if (REF_KIND(ref) != REF_IS_RUNS) {
		__u32 inner = (ip & ((1u << REF_INNER_BITS) - 1)) << 1;

		way = less(0, (inner ^ prefix) & ~below);
		return REF_INNER_VALUE(ref) ^ ((REF_INNER_VALUE(ref) ^ REF_OUTER_VALUE(ref)) & way);
	}
	for (__u32 half = MAX_TABLE_RUNS / 2; half; half /= 2) {
		way = half & less(at + half, last);
		at += way & less(word_at(table, at + way) >> 32, (__u64)ip + 1);
	}
	return word_at(table, at);
}

static __always_inline __u32 pair_of_ip6(void *table, __u32 at, __u64 hi, __u64 lo)
{
	__u64 values = word_at(table, at + 2);
	__u32 length = REF_LENGTH(values);

	hi ^= word_at(table, at);
	lo ^= word_at(table, at + 1);
	if (length <= 64)
		lo = 0, hi >>= (64 - length) & 63; /* no pair has length 0 */
	else
		lo >>= (128 - length) & 63;
	return hi | lo ? REF_OUTER_VALUE(values) : REF_INNER_VALUE(values);
}

#define RUN_WORDS6 3

static __always_inline bool run_begins6(void *table, __u32 at, __u64 hi, __u64 lo)
{
	__u64 first = word_at(table, at);

	return first < hi || (first == hi && word_at(table, at + 1) <= lo);
}

static __always_inline __u32 value_of_ip6(void *table, __u64 ref, __u64 hi, __u64 lo)
{
	__u32 at = REF_OFFSET(ref), last = at + REF_RUNS(ref) * RUN_WORDS6;

	if (REF_KIND(ref) == REF_IS_VALUE)
		return REF_OUTER_VALUE(ref);
	if (REF_KIND(ref) == REF_IS_PAIR)
		return pair_of_ip6(table, at, hi, lo);
	for (__u32 half = MAX_TABLE_RUNS / 2; half; half /= 2)
		if (at + half * RUN_WORDS6 < last && run_begins6(table, at + half * RUN_WORDS6, hi, lo))
			at += half * RUN_WORDS6;
	return word_at(table, at + 2);
}

/*
 * The classes of both addresses, side by side: a load that misses every cache takes longer than all the rest, and two take
 * no longer than one where neither waits for the other. Global, so that the verifier checks each once and not for every
 * way that leads here; hence the tests of pointers.
 */
__noinline int classify_ip4(const struct packet *p, struct classes *c)
{
	__u64 src_ref = word_at(&src4, 0), dst_ref = word_at(&dst4, 0);
	__u32 src, dst;

	if (!p || !c)
		return 0;
	src = bpf_ntohl(p->src.word[3]), dst = bpf_ntohl(p->dst.word[3]);
	for (int i = 0; i < MAX_TABLE_DEPTH4 && (IS_NODE(src_ref) || IS_NODE(dst_ref)); i++) {
		if (IS_NODE(src_ref))
			src_ref = step_ip4(&src4, src_ref, (__u64)src << 32);
		if (IS_NODE(dst_ref))
			dst_ref = step_ip4(&dst4, dst_ref, (__u64)dst << 32);
	}
	touch_runs(&src4, src_ref);
	touch_runs(&dst4, dst_ref);
	c->src = value_of_ip4(&src4, src_ref, src);
	c->dst = value_of_ip4(&dst4, dst_ref, dst);
	return 0;
}

__noinline int classify_ip6(const struct packet *p, struct classes *c)
{
	__u64 src_ref = word_at(&src6, 0), dst_ref = word_at(&dst6, 0), src_hi, src_lo, dst_hi, dst_lo;

	if (!p || !c)
		return 0;
	src_hi = bpf_be64_to_cpu(p->src.half[0]), src_lo = bpf_be64_to_cpu(p->src.half[1]);
	dst_hi = bpf_be64_to_cpu(p->dst.half[0]), dst_lo = bpf_be64_to_cpu(p->dst.half[1]);
	for (int i = 0; i < MAX_TABLE_DEPTH6 && (IS_NODE(src_ref) || IS_NODE(dst_ref)); i++) {
		if (IS_NODE(src_ref))
			src_ref = step_ip6(&src6, src_ref, src_hi, src_lo);
		if (IS_NODE(dst_ref))
			dst_ref = step_ip6(&dst6, dst_ref, dst_hi, dst_lo);
	}
	touch_runs(&src6, src_ref);
	touch_runs(&dst6, dst_ref);
	c->src = value_of_ip6(&src6, src_ref, src_hi, src_lo);
	c->dst = value_of_ip6(&dst6, dst_ref, dst_hi, dst_lo);
	return 0;
}
