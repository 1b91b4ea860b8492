/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/*
 * Token buckets. All of it is state that outlives generations: the key of a bucket is the stable id of its rule. Where the
 * rule got another limit, or its id another rule, the bucket bears another mark, and begins full.
 *
 * Sources have a table of fixed size. Who has no way in its set takes one whose bucket is full again (nothing is lost),
 * else that of the unproven source with the least debt: random spoofed sources are never seen again, so a flood of them
 * turns over its own ways and leaves those of the sources that are. Where all four belong to proven sources in debt, the
 * packet shares the bucket of the rule. The hash is keyed, so that nobody can aim at a set.
 */

#include "maps.h"
#include "parse.h"

#ifndef limit_clock /* tests have a clock of their own */
#define limit_clock() bpf_ktime_get_ns()
#endif

CLASSIFIER_TABLE(limiters, struct limiter); /* of the generation, by the argument of a verdict */

/* State. Mapped memory begins at a page, so a set is a cache line. */
#define LIMIT_STATE(name, value_type, size)        \
	struct {                                   \
		__uint(type, BPF_MAP_TYPE_ARRAY);  \
		__uint(map_flags, BPF_F_MMAPABLE); \
		__uint(max_entries, size);         \
		__type(key, __u32);                \
		__type(value, value_type);         \
	} name SEC(".maps")

LIMIT_STATE(limit_buckets, struct limit_bucket, RULE_IDS); /* index: stable rule id */
LIMIT_STATE(limit_sources, struct limit_set, LIMIT_SETS);
LIMIT_STATE(limit_seed, __u64, 1); /* random, from when the table was made */

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct limit_pressure);
} limit_pressure SEC(".maps");

/* How often an update is tried before it is forced. */
#define LIMIT_RETRIES 4
#define LIMIT_NO_WAY  (~0ull)

/* The debt of a bucket, however large: CPUs that force their updates may bring it beyond any bound but their number's. */
static __always_inline __u64 limit_ahead(__u64 tat, __u64 now)
{
	__s64 ahead = tat - now;

	return ahead <= 0 ? 0 : ahead;
}

/*
 * Takes what a packet costs out of a bucket: whether it conforms. What is larger than the burst conforms to a full
 * bucket and leaves it in debt, or it never would. What does not conform writes nothing: a flood beyond the limit shares
 * the line among all CPUs. Where LIMIT_RETRIES other packets came between, the cost is added without a look: every
 * CPU may pass one packet too many, and each is paid for.
 */
static __always_inline bool limit_take(const struct limiter *l, __u64 *bucket, bool fresh, __u64 now,
				       __u64 cost)
{
	__u64 need = cost < l->burst ? cost : l->burst;

	for (int i = 0; i < LIMIT_RETRIES; i++) {
		__u64 tat = *(volatile __u64 *)bucket;
		__u64 ahead = fresh ? 0 : limit_ahead(tat, now);

		if (ahead + need > l->burst)
			return false;
		if (explain)
			return true;
		if (__sync_val_compare_and_swap(bucket, tat, now + ahead + cost) == tat)
			return true;
		fresh = false; /* another packet of the same bucket was there first */
	}
	__sync_fetch_and_add(bucket, cost);
	return true;
}

static __always_inline __u64 limit_mix(__u64 h)
{
	h ^= h >> 33;
	h *= 0xff51afd7ed558ccdull;
	h ^= h >> 33;
	h *= 0xc4ceb9fe1a85ec53ull;
	return h ^ h >> 33;
}

/* Both families share the table: an IPv4 address stands behind a prefix that no IPv6 packet has. */
static __always_inline __u64 limit_hash(const struct limiter *l, const struct packet *p, __u64 seed)
{
	union addr source = p->src;

	if (p->family == 4) {
		source.word[3] &= l->mask4;
	} else {
		source.half[0] &= l->mask6.half[0];
		source.half[1] &= l->mask6.half[1];
	}
	return limit_mix((limit_mix(source.half[0] ^ seed) ^ source.half[1]) +
			 (l->rule ^ l->mark) * 0x9e3779b97f4a7c15ull);
}

/* How much is lost with a way: nothing, the proof of its owner, its debt; LIMIT_NO_WAY where it is not to be had. */
static __always_inline __u64 limit_loss(__u64 tat, __u64 owner, __u64 now)
{
	bool proven = (__u32)owner >= LIMIT_PROVEN;
	__s64 debt = tat - now;

	if (debt <= 0)
		return proven;
	return proven ? LIMIT_NO_WAY : (__u64)debt + 1;
}

static __always_inline void limit_pressed(bool shared)
{
	__u32 zero = 0;
	struct limit_pressure *pressure;

	if (explain)
		return;
	pressure = bpf_map_lookup_elem(&limit_pressure, &zero);
	if (!pressure)
		return;
	if (shared)
		pressure->shared++;
	else
		pressure->forgotten++;
}

/*
 * The way of a source, or NULL. fresh says that it was another's: its time means nothing. Two CPUs with packets of one
 * new source choose the same way, and who loses it finds it as its own on the second look.
 */
static __always_inline __u64 *limit_way_of(struct limit_set *set, __u32 tag, __u64 now, bool *fresh)
{
	for (int look = 0; look < 2; look++) {
		__u64 least = LIMIT_NO_WAY, had = 0, mine = (__u64)tag << 32;
		struct limit_way *found = NULL;

		for (int i = 0; i < LIMIT_WAYS; i++) {
			struct limit_way *way = &set->way[i];
			__u64 owner = *(volatile __u64 *)&way->owner, loss;

			if (owner >> 32 == tag) {
				if ((__u32)owner < LIMIT_PROVEN && !explain)
					__sync_fetch_and_add(&way->owner, 1);
				return &way->tat;
			}
			loss = limit_loss(*(volatile __u64 *)&way->tat, owner, now);
			if (loss < least) {
				least = loss;
				had = owner;
				found = way;
			}
		}
		if (!found)
			return NULL;
		if (explain || __sync_val_compare_and_swap(&found->owner, had, mine | 1) == had) {
			if (least > 1)
				limit_pressed(false);
			*fresh = true;
			return &found->tat;
		}
	}
	return NULL;
}

static __always_inline __u64 *limit_source(const struct limiter *l, const struct packet *p, __u64 now,
					   bool *fresh)
{
	__u32 zero = 0, index;
	__u64 *seed = bpf_map_lookup_elem(&limit_seed, &zero);
	struct limit_set *set;
	__u64 hash, *tat;

	if (!seed)
		return NULL;
	hash = limit_hash(l, p, *seed);
	index = hash & (LIMIT_SETS - 1);
	set = bpf_map_lookup_elem(&limit_sources, &index);
	if (!set)
		return NULL;
	tat = limit_way_of(set, hash >> 32 | 1, now, fresh); /* a tag is never 0 */
	if (!tat)
		limit_pressed(true);
	return tat;
}

/* The bucket of a rule, or NULL. fresh as above: of all CPUs that find another's, one makes it theirs. */
static __always_inline __u64 *limit_rule(const struct limiter *l, bool *fresh)
{
	__u32 rule = l->rule;
	struct limit_bucket *b = bpf_map_lookup_elem(&limit_buckets, &rule);
	__u64 mark;

	if (!b)
		return NULL;
	mark = *(volatile __u64 *)&b->mark;
	if (mark != l->mark)
		*fresh = explain || __sync_val_compare_and_swap(&b->mark, mark, l->mark) == mark;
	return &b->tat;
}

/*
 * What a packet costs. One buffer may stand for many packets, each with headers of its own on the wire: options of TCP
 * beyond the 20 bytes are not counted again.
 */
static __always_inline __u64 limit_cost(const struct limiter *l, const struct packet *p)
{
	__u64 amount = p->segments > 1 ? p->segments : 1;
	__u64 most = LIMIT_PACKETS;

	if (l->flags & LIMIT_BY_BYTES) {
		amount = p->len + (amount - 1) * (p->l4 + (p->protocol == IPPROTO_TCP ? 20 : 8));
		most = LIMIT_BYTES;
	}
	if (amount > most)
		amount = most;
	return (amount * l->mult + (1ull << (l->shift & 63)) / 2) >> (l->shift & 63);
}

/* Whether a packet is within the limit of its rule, as a reason. Global: verified once, and off the callers' stack. */
__noinline int limit(const struct packet *p, __u32 index)
{
	struct limiter *l = bpf_map_lookup_elem(&limiters, &index);
	__u64 now, *bucket = NULL;
	bool fresh = false;

	if (!p || !l)
		return REASON_INTERNAL;
	now = limit_clock() << LIMIT_TICK_BITS;
	if (l->flags & LIMIT_BY_SOURCE)
		bucket = limit_source(l, p, now, &fresh);
	if (!bucket)
		bucket = limit_rule(l, &fresh);
	if (!bucket)
		return REASON_INTERNAL;
	if (limit_take(l, bucket, fresh, now, limit_cost(l, p)))
		return REASON_LIMIT_ACCEPT;
	count_rule(l->beyond, p->len);
	return REASON_LIMIT_DROP;
}
