/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/*
 * Where the entries are that may match: the buckets of abi.h. Included by classify.h, which says what a match is. An
 * entry found is checked whole, so a bucket too many costs time and never a verdict.
 */

#define NO_ENTRY 0xffffffffu

struct search {
	__u32 kind;   /* of the buckets: policy and BUCKET_SHADOW */
	__u32 limit;  /* only entries before this one matter; the first acting one in the end */
	__u32 hidden; /* 1: its ports cannot be seen */
	__u32 id;     /* of the entry, and what it does, where that is all of its verdict; else action is 0 */
	__u32 action;
	__u32 shadow; /* the first shadow entry that matched and is logged, and 1; 0: none */
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

/* The place of a bucket slot and 1, or 0. */
__noinline __u32 find_slot(__u32 kind, __u32 src, __u32 dst)
{
	__u32 at = bucket_hash(kind, src, dst);

	for (int i = 0; i < MAX_BUCKET_PROBES; i++) {
		__u32 index = (at + i) & bucket_mask;
		struct bucket *b = bpf_map_lookup_elem(&buckets, &index);

		if (!b)
			return 0;
		for (int j = 0; j < BUCKET_SLOTS; j++) {
			const struct bucket_slot *slot = &b->slot[j];

			if (slot->kind == kind && slot->src == src && slot->dst == dst)
				return index * BUCKET_SLOTS + j + 1;
			if (!slot->leaf)
				return 0;
		}
	}
	return 0;
}

/* match_rule() for a head. */
static __always_inline enum match match_head(const struct bucket_slot *slot, const struct packet *p)
{
	if (!(slot->flags & RULE_ANY_PROTOCOL) && slot->protocol != p->protocol)
		return NO_MATCH;
	if (!(slot->flags & (RULE_PORTS | RULE_SOURCE_PORTS)))
		return MATCH;
	if (p->flags & PACKET_NON_FIRST)
		return MATCH_UNKNOWN;
	if (!(p->flags & PACKET_PORTS))
		return NO_MATCH;
	if ((slot->flags & RULE_PORTS) && !in_ports(&slot->ports, p->dport))
		return NO_MATCH;
	if ((slot->flags & RULE_SOURCE_PORTS) && !in_ports(&slot->source_ports, p->sport))
		return NO_MATCH;
	return MATCH;
}

static __always_inline __u32 head_action(const struct bucket_slot *slot)
{
	if (!(slot->flags & HEAD_PLAIN))
		return 0;
	return slot->flags & HEAD_DROPS ? ACTION_DROP : ACTION_ACCEPT;
}

/* Tries the head of a bucket slot. Returns the leaf where more than that is to be looked at. */
__noinline __u32 try_slot(struct search *s, const struct packet *p, __u32 place)
{
	__u32 index = (place - 1) / BUCKET_SLOTS;
	const struct bucket_slot *slot;
	struct bucket *b;

	if (!s || !p || !place)
		return 0;
	b = bpf_map_lookup_elem(&buckets, &index);
	if (!b)
		return 0;
	slot = &b->slot[(place - 1) % BUCKET_SLOTS];
	if (slot->first >= s->limit)
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

/* Tries what a bucket holds. */
static __always_inline void search_bucket(struct search *s, const struct packet *p, const struct classes *c,
					  __u32 kind, __u32 src, __u32 dst)
{
	__u32 place = find_slot(kind, src, dst), leaf = place ? try_slot(s, p, place) : 0;

	if (leaf)
		search_leaf(s, p, c, leaf);
}

/* Asks for a bucket's line now, so that it comes while the other buckets' do. */
static __always_inline void touch_bucket(__u32 kind, __u32 src, __u32 dst)
{
	__u32 index = bucket_hash(kind, src, dst) & bucket_mask;
	const volatile struct bucket *b = bpf_map_lookup_elem(&buckets, &index);

	if (b)
		(void)b->slot[0].kind;
}

/* Wide buckets: of the class and of its ancestors that have one. */
static __always_inline void search_wide(struct search *s, const struct packet *p, const struct classes *c,
					bool source)
{
	struct bpf_iter_num it;
	__u32 class = (source ? c->src : c->dst) & CLASS_NUMBER;

	bpf_iter_num_new(&it, 0, MAX_ANCESTORS);
	while (bpf_iter_num_next(&it)) {
		__u32 kind = s->kind | BUCKET_WIDE;

		search_bucket(s, p, c, kind, source ? class : NO_CLASS, source ? NO_CLASS : class);
		class = source ? word_at(&src_up, class) : word_at(&dst_up, class);
		if (class == NO_CLASS)
			break;
	}
	bpf_iter_num_destroy(&it);
}

/* Everything that may match, by one plan. */
static __always_inline void search(struct search *s, const struct search_plan *plan, const struct packet *p,
				   const struct classes *c)
{
	__u32 src = c->src & CLASS_NUMBER, dst = c->dst & CLASS_NUMBER;
	bool by_src = (plan->keys & KEY_SRC) && (c->src & CLASS_KEYED);
	bool by_dst = (plan->keys & KEY_DST) && (c->dst & CLASS_KEYED);
	bool by_both = (plan->keys & KEY_BOTH) && (c->src & c->dst & CLASS_PAIRED);

	if (by_src)
		touch_bucket(s->kind, src, NO_CLASS);
	if (by_dst)
		touch_bucket(s->kind, NO_CLASS, dst);
	if (by_both)
		touch_bucket(s->kind, src, dst);
	if (plan->everywhere)
		search_leaf(s, p, c, plan->everywhere);
	if (by_src)
		search_bucket(s, p, c, s->kind, src, NO_CLASS);
	if (by_dst)
		search_bucket(s, p, c, s->kind, NO_CLASS, dst);
	if (by_both)
		search_bucket(s, p, c, s->kind, src, dst);
	if (plan->keys & KEY_WIDE_SRC)
		search_wide(s, p, c, true);
	if (plan->keys & KEY_WIDE_DST)
		search_wide(s, p, c, false);
}
