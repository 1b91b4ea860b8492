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

/* Follows nodes by the bits of key, to runs or a value. */
static __always_inline __u64 descend(void *table, __u64 ref, __u64 key)
{
	for (int i = 0; i < MAX_TABLE_DEPTH && REF_KIND(ref) == REF_IS_NODE; i++)
		ref = word_at(table, REF_OFFSET(ref) + ((__u32)(key >> REF_SHIFT(ref)) &
							((1u << (REF_BITS(ref) & 31)) - 1)));
	return ref;
}

/*
 * The number of the last of count sorted runs whose start is not behind key; the first is never behind it. count is at
 * most MAX_TABLE_RUNS, so four halvings find it; width is the number of words of a run.
 */
static __always_inline __u32 last_run(void *table, __u32 offset, __u32 count, __u32 width, __u64 key)
{
	__u32 first = 0;

	for (__u32 half = MAX_TABLE_RUNS / 2; half; half /= 2)
		if (first + half < count && word_at(table, offset + (first + half) * width) <= key)
			first += half;
	return first;
}

/* Of a pair: the value of its prefix where key is in it, or else the other. */
static __always_inline __u32 value_of_pair(__u64 ref, __u32 ip)
{
	__u32 prefix = REF_INNER(ref),
	      below = prefix ^ (prefix - 1); /* the lowest one, and what is open behind it */

	ip = (ip & ((1u << REF_INNER_BITS) - 1)) << 1;
	return (ip ^ prefix) & ~below ? REF_OUTER_VALUE(ref) : REF_INNER_VALUE(ref);
}

/* ip is in host byte order. */
static __always_inline __u32 class_of_ip4(void *table, __u32 ip)
{
	__u64 key = (__u64)ip << 32;
	__u64 ref = descend(table, word_at(table, 0), key);

	switch (REF_KIND(ref)) {
	case REF_IS_VALUE:
		return (__u32)ref;
	case REF_IS_PAIR:
		return value_of_pair(ref, ip);
	default:
		key |= 0xffffffff;
		return (__u32)word_at(table, REF_OFFSET(ref) +
						     last_run(table, REF_OFFSET(ref), REF_RUNS(ref), 1, key));
	}
}

static __always_inline __u64 class_of_half(void *table, __u64 ref, __u64 key)
{
	ref = descend(table, ref, key);
	if (REF_KIND(ref) == REF_IS_VALUE)
		return ref;
	return word_at(table,
		       REF_OFFSET(ref) + last_run(table, REF_OFFSET(ref), REF_RUNS(ref), 2, key) * 2 + 1);
}

static __always_inline __u32 class_of_ip6(void *table, const union addr *a)
{
	__u64 ref = class_of_half(table, word_at(table, 0), bpf_be64_to_cpu(a->half[0]));

	if (REF_KIND(ref) != REF_IS_VALUE)
		ref = class_of_half(table, ref, bpf_be64_to_cpu(a->half[1]));
	return (__u32)ref;
}
