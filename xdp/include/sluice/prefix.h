/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* Addresses to classes by longest prefix: the prefix tables of abi.h. Each step is one load from an array. */

#include <bpf/bpf_endian.h>

#include "maps.h"

static __always_inline __u64 word_at(void *table, __u32 index)
{
	__u64 *word = bpf_map_lookup_elem(table, &index);

	return word ? *word : 0;
}

/* Follows nodes by the bits of an address, until there are none: at most one for each four bits. */
static __always_inline __u64 descend(void *table, __u64 hi, __u64 lo, int depth)
{
	__u64 ref = word_at(table, 0);

	for (int i = 0; i < depth && REF_KIND(ref) == REF_IS_NODE; i++) {
		__u64 half = REF_SHIFT(ref) & 64 ? hi : lo;
		__u32 slot = half >> (REF_SHIFT(ref) & 63);

		ref = word_at(table, REF_OFFSET(ref) + (slot & ((1u << (REF_BITS(ref) & 31)) - 1)));
	}
	return ref;
}

static __always_inline __u32 pair_of_ip4(__u64 ref, __u32 ip)
{
	__u32 prefix = REF_INNER(ref),
	      below = prefix ^ (prefix - 1); /* the lowest one, and what is open behind it */

	ip = (ip & ((1u << REF_INNER_BITS) - 1)) << 1;
	return (ip ^ prefix) & ~below ? REF_OUTER_VALUE(ref) : REF_INNER_VALUE(ref);
}

/* The value of an address; ip is in host byte order. */
static __always_inline __u32 class_of_ip4(void *table, __u32 ip)
{
	__u64 key = (__u64)ip << 32, ref = descend(table, key, 0, MAX_TABLE_DEPTH4);
	__u32 at = REF_OFFSET(ref), last = at + REF_RUNS(ref);

	if (REF_KIND(ref) == REF_IS_VALUE)
		return REF_OUTER_VALUE(ref);
	if (REF_KIND(ref) == REF_IS_PAIR)
		return pair_of_ip4(ref, ip);
	for (__u32 half = MAX_TABLE_RUNS / 2; half; half /= 2)
		if (at + half < last && word_at(table, at + half) <= (key | 0xffffffff))
			at += half;
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

static __always_inline __u32 class_of_ip6(void *table, const union addr *a)
{
	__u64 hi = bpf_be64_to_cpu(a->half[0]), lo = bpf_be64_to_cpu(a->half[1]);
	__u64 ref = descend(table, hi, lo, MAX_TABLE_DEPTH6);
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

/* Global, so that the verifier checks each once and not for every way that leads here. */
__noinline __u32 class_of_src4(__u32 ip)
{
	return class_of_ip4(&src4, ip);
}

__noinline __u32 class_of_dst4(__u32 ip)
{
	return class_of_ip4(&dst4, ip);
}

__noinline __u32 class_of_src6(const union addr *a)
{
	return a ? class_of_ip6(&src6, a) : 0;
}

__noinline __u32 class_of_dst6(const union addr *a)
{
	return a ? class_of_ip6(&dst6, a) : 0;
}
