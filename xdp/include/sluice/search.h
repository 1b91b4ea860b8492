/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/*
 * Where the entries are that may match: the buckets of abi.h. An entry found is checked whole (match.h), so a bucket too
 * many costs time and never a verdict.
 */

#include "maps.h"
#include "match.h"

#define NO_ENTRY 0xffffffffu

/* Whose bucket, by the bits of KEY_*: that of both classes, most likely to decide, first. */
enum side { SIDE_BOTH, SIDE_SRC, SIDE_DST, SIDES };

struct search {
	__u32 kind;   /* of the buckets: policy and BUCKET_SHADOW */
	__u32 limit;  /* only entries before this one matter; the first acting one in the end */
	__u32 hidden; /* 1: its ports cannot be seen */
	__u32 id;     /* of the entry, and what it does, where that is all of its verdict; else action is 0 */
	__u32 action;
	__u32 shadow; /* the first shadow entry that matched and is logged, and 1; 0: none */
	__u32 leaf
		[SIDES]; /* found references behind the heads of buckets: what is to be searched yet; 0: nothing */
};

static __always_inline void settle(struct search *s, __u32 entry, __u32 id, __u32 action)
{
	s->limit = entry;
	s->hidden = 0;
	s->id = id;
	s->action = action;
}

/* found is an entry, perhaps with ENTRY_SURE. Returns true when a list need not be walked further. */
static __always_inline bool try_entry(struct search *s, __u32 found, const struct packet *p,
				      const struct classes *c)
{
	__u32 entry = found & ENTRY_NUMBER;
	struct rule *r;

	if (entry >= s->limit)
		return true;
	if (found & ENTRY_SURE) {
		settle(s, entry, 0, 0);
		return true;
	}
	r = bpf_map_lookup_elem(&rules, &entry);
	if (!r)
		return true;
	switch (match_rule(r, p, c)) {
	case MATCH:
		if (s->kind & BUCKET_SHADOW) {
			count_rule(r->id, p->len);
			if ((r->flags & RULE_LOGGED) && (!s->shadow || entry < s->shadow))
				s->shadow = entry + 1;
			return false;
		}
		settle(s, entry, r->id, r->flags & RULE_PLAIN ? r->action : 0);
		return true;
	case MATCH_UNKNOWN: /* passed over by shadow rules, and by policies that continue */
		if (!(r->flags & RULE_HIDDEN))
			return false;
		s->limit = entry;
		s->hidden = 1;
		return true;
	default:
		return false;
	}
}

/* The found reference of the run of a leaf that holds for a port key. The first run begins at 0. */
static __always_inline __u32 run_of_leaf(__u32 leaf, __u32 ports)
{
	__u64 header = word_at(&leaves, leaf++), key = (__u64)ports << 32 | 0xffffffff;
	__u32 count = header, half = header >> 32, first = 0;

	for (int i = 0; i < LEAF_SEARCH && half; i++, half /= 2)
		if (first + half < count && word_at(&leaves, leaf + first + half) <= key)
			first += half;
	return word_at(&leaves, leaf + first);
}

/* Tries the entries of a leaf. Global, so that the verifier checks it once; hence the tests of its pointers. */
__noinline int search_leaf(struct search *s, const struct packet *p, const struct classes *c, __u32 leaf)
{
	struct bpf_iter_num it;
	__u64 word;

	if (!s || !p || !c || !leaf)
		return 0;
	if (!(leaf & LEAF_ENTRY))
		leaf = run_of_leaf(leaf, c->ports);
	if (!leaf)
		return 0;
	word = leaf & LEAF_ENTRY ? leaf : word_at(&leaves, leaf);
	bpf_iter_num_new(&it, 0, MAX_WALK);
	while (bpf_iter_num_next(&it)) {
		if (try_entry(s, word, p, c) || !(word & LIST_MORE))
			break;
		word = word_at(&leaves, ++leaf);
	}
	bpf_iter_num_destroy(&it);
	return 0;
}

static __always_inline __u32 bucket_hash(__u32 kind, __u32 src, __u32 dst)
{
	__u64 h = ((__u64)src << 32 | dst) * 0x9e3779b97f4a7c15ull;

	h ^= h >> 32;
	h = (h + kind) * 0xd6e8feb86659fd93ull;
	return h >> 32;
}

static __always_inline struct bucket *bucket_at(__u32 hash)
{
	__u32 index = hash & bucket_mask;

	return bpf_map_lookup_elem(&buckets, &index);
}

static __always_inline const struct bucket_slot *find_slot(__u32 kind, __u32 src, __u32 dst)
{
	__u32 at = bucket_hash(kind, src, dst);

	for (int i = 0; i < MAX_BUCKET_PROBES; i++) {
		struct bucket *b = bucket_at(at + i);

		if (!b)
			return NULL;
		for (int j = 0; j < BUCKET_SLOTS; j++) {
			const struct bucket_slot *slot = &b->slot[j];

			if (slot->src == src && slot->dst == dst && slot->kind == kind)
				return slot;
			if (!slot->leaf)
				return NULL;
		}
	}
	return NULL;
}

/* match_rule() for a head. Which of its conditions is not met is random from packet to packet, so they are no jumps. */
static __always_inline enum match match_head(const struct bucket_slot *slot, const struct packet *p)
{
	__u64 any = (slot->flags / RULE_ANY_PROTOCOL) & 1, protocol = slot->protocol ^ p->protocol;
	__u64 below = 0 - ((any - 1) & protocol); /* negative where something differs */

	if (!(p->flags & PACKET_NON_FIRST) && (p->flags & PACKET_PORTS)) {
		__u64 dport = bpf_ntohs(p->dport), sport = bpf_ntohs(p->sport);

		below |= (dport - slot->ports.first) | (slot->ports.last - dport);
		below |= (sport - slot->source_ports.first) | (slot->source_ports.last - sport);
		return (__s64)below < 0 ? NO_MATCH : MATCH;
	}
	if ((__s64)below < 0)
		return NO_MATCH;
	if (!(slot->flags & (RULE_PORTS | RULE_SOURCE_PORTS)))
		return MATCH;
	return p->flags & PACKET_NON_FIRST ? MATCH_UNKNOWN : NO_MATCH;
}

static __always_inline __u32 head_action(const struct bucket_slot *slot)
{
	if (!(slot->flags & HEAD_PLAIN))
		return 0;
	return slot->flags & HEAD_DROPS ? ACTION_DROP : ACTION_ACCEPT;
}

/*
 * Tries the head of a bucket. Returns the leaf where more than that is to be looked at. Global, so that the verifier checks
 * it once; hence the tests of its pointers.
 */
__noinline __u32 try_bucket(struct search *s, const struct packet *p, __u32 kind, __u32 src, __u32 dst)
{
	const struct bucket_slot *slot;

	if (!s || !p)
		return 0;
	slot = find_slot(kind, src, dst);
	if (!slot || slot->first >= s->limit)
		return 0;
	if (!(slot->flags & HEAD_HERE))
		return slot->leaf;
	switch (match_head(slot, p)) {
	case MATCH:
		settle(s, slot->first, slot->id, head_action(slot));
		return 0;
	case MATCH_UNKNOWN:
		if (!(slot->flags & RULE_HIDDEN))
			break;
		s->limit = slot->first;
		s->hidden = 1;
		return 0;
	default:
		break;
	}
	return slot->flags & HEAD_ALONE ? 0 : slot->leaf;
}

/* Asks for a line now, so that it comes while others do. */
static __always_inline void touch_bucket(__u32 kind, __u32 src, __u32 dst)
{
	const volatile struct bucket *b = bucket_at(bucket_hash(kind, src, dst));

	if (b)
		(void)b->slot[0].src;
}

static __always_inline void touch_leaf(__u32 leaf)
{
	__u32 index = leaf & ENTRY_NUMBER;
	const volatile __u64 *word;

	if (leaf & LEAF_ENTRY)
		word = bpf_map_lookup_elem(&rules, &index);
	else
		word = bpf_map_lookup_elem(&leaves, &index);
	if (word)
		(void)*word;
}

/* Asks for the buckets of both classes and of either, that none waits for another, and returns KEY_* of those that may exist. */
static __always_inline __u32 touch_buckets(const struct search *s, const struct classes *c, __u32 keys)
{
	__u32 src = c->src & CLASS_NUMBER, dst = c->dst & CLASS_NUMBER;

	if ((keys & KEY_BOTH) && (c->src & c->dst & CLASS_PAIRED))
		touch_bucket(s->kind, src, dst);
	else
		keys &= ~KEY_BOTH;
	if ((keys & KEY_SRC) && (c->src & CLASS_KEYED))
		touch_bucket(s->kind, src, NO_CLASS);
	else
		keys &= ~KEY_SRC;
	if ((keys & KEY_DST) && (c->dst & CLASS_KEYED))
		touch_bucket(s->kind, NO_CLASS, dst);
	else
		keys &= ~KEY_DST;
	return keys;
}

/* Wide buckets: of the class and of its ancestors that have one. */
static __always_inline void search_wide(struct search *s, const struct packet *p, const struct classes *c,
					bool source)
{
	struct bpf_iter_num it;
	__u32 class = (source ? c->src : c->dst) & CLASS_NUMBER;

	bpf_iter_num_new(&it, 0, MAX_ANCESTORS);
	while (bpf_iter_num_next(&it)) {
		__u32 leaf = try_bucket(s, p, s->kind | BUCKET_WIDE, source ? class : NO_CLASS,
					source ? NO_CLASS : class);

		if (leaf)
			search_leaf(s, p, c, leaf);
		class = source ? word_at(&src_up, class) : word_at(&dst_up, class);
		if (class == NO_CLASS)
			break;
	}
	bpf_iter_num_destroy(&it);
}

/* The buckets of both classes and of either: first the heads of all, which mostly leave no more to be searched. */
static __always_inline void search_buckets(struct search *s, const struct packet *p, const struct classes *c,
					   __u32 keys)
{
#pragma clang loop unroll(disable) /* here and below: the verifier's stack is short */
	for (int side = 0; side < SIDES; side++) {
		__u32 src = side == SIDE_DST ? NO_CLASS : c->src & CLASS_NUMBER;
		__u32 dst = side == SIDE_SRC ? NO_CLASS : c->dst & CLASS_NUMBER;

		s->leaf[side] = keys >> side & 1 ? try_bucket(s, p, s->kind, src, dst) : 0;
	}
	for (int side = 0; side < SIDES; side++)
		if (s->leaf[side])
			touch_leaf(s->leaf[side]);
#pragma clang loop unroll(disable)
	for (int side = 0; side < SIDES; side++)
		if (s->leaf[side])
			search_leaf(s, p, c, s->leaf[side]);
}

/* Everything that may match, by one plan. */
static __always_inline void search(struct search *s, const struct search_plan *plan, const struct packet *p,
				   const struct classes *c)
{
	__u32 keys = touch_buckets(s, c, plan->keys);

	if (plan->everywhere)
		search_leaf(s, p, c, plan->everywhere);
	if (keys & (KEY_BOTH | KEY_SRC | KEY_DST))
		search_buckets(s, p, c, keys);
	if (plan->keys & KEY_WIDE_SRC)
		search_wide(s, p, c, true);
	if (plan->keys & KEY_WIDE_DST)
		search_wide(s, p, c, false);
}
