/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Latencies in nanoseconds: below 128 each has a bucket, above there are 64 for each power of two, so that a bucket is
 * at most 1.6 % wide.
 */
#pragma once

#include <stdint.h>
#include <string.h>

#define SUB	64
#define BUCKETS (SUB * 59)

struct histogram {
	uint32_t count[BUCKETS];
	uint64_t max;
};

static inline void record(struct histogram *h, uint64_t ns)
{
	int shift = ns < 2 * SUB ? 0 : 57 - __builtin_clzll(ns);

	h->count[shift * SUB + (ns >> shift)]++;
	if (ns > h->max)
		h->max = ns;
}

static inline void add(struct histogram *to, const struct histogram *from)
{
	for (int i = 0; i < BUCKETS; i++)
		to->count[i] += from->count[i];
	if (from->max > to->max)
		to->max = from->max;
}

static inline uint64_t total(const struct histogram *h)
{
	uint64_t n = 0;

	for (int i = 0; i < BUCKETS; i++)
		n += h->count[i];
	return n;
}

/* What a share of the latencies does not exceed: the middle of the bucket in which it lies. */
static inline uint64_t quantile(const struct histogram *h, double share)
{
	uint64_t rank = total(h) * share, seen = 0;

	for (int i = 0; i < BUCKETS; i++) {
		int shift = i < 2 * SUB ? 0 : i / SUB - 1;

		seen += h->count[i];
		if (seen > rank)
			return ((uint64_t)(i - shift * SUB) << shift) + (1ull << shift) / 2;
	}
	return h->max;
}
