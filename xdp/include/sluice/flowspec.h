/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/*
 * FlowSpec: an overlay that the daemon writes as a whole, beside the generations and untouched by them. All maps are
 * state. Three look-ups give sets of entries, by destination, source and protocol; what all three have in common is tried
 * in order, each entry whole. So a packet that no filter is about costs the look-ups, however many filters there are.
 */

#include "count.h"
#include "events.h"
#include "iter.h"
#include "limit.h"
#include "maps.h"
#include "match.h"
#include "parse.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64); /* FLOWSPEC_HALF, FLOWSPEC_BY_*, FLOWSPEC_IN_USE */
} flowspec_live SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2 * MAX_FLOWSPEC);
	__type(key, __u32); /* half * MAX_FLOWSPEC + entry */
	__type(value, struct flowspec_entry);
} flowspec_entries SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, FLOWSPEC_PROTOCOLS);
	__type(key, __u32); /* FLOWSPEC_PROTOCOL() */
	__type(value, struct flowspec_set);
} flowspec_protocols SEC(".maps");

#define FLOWSPEC_TRIE(name, key_type)                        \
	struct {                                             \
		__uint(type, BPF_MAP_TYPE_LPM_TRIE);         \
		__uint(map_flags, BPF_F_NO_PREALLOC);        \
		__uint(max_entries, 2 * (MAX_FLOWSPEC + 1)); \
		__type(key, struct key_type);                \
		__type(value, struct flowspec_set);          \
	} name SEC(".maps")

FLOWSPEC_TRIE(flowspec_dst4, flowspec_key4);
FLOWSPEC_TRIE(flowspec_src4, flowspec_key4);
FLOWSPEC_TRIE(flowspec_dst6, flowspec_key6);
FLOWSPEC_TRIE(flowspec_src6, flowspec_key6);

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2 * (MAX_FLOWSPEC + 1));
	__type(key, __u32); /* limiter.rule: 2 * slot, and one more for bytes */
	__type(value, struct limit_bucket);
} flowspec_buckets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_FLOWSPEC + 1);
	__type(key, __u32); /* slot */
	__type(value, struct flowspec_hit);
} flowspec_hits SEC(".maps");

/* What the filters say of a packet. */
struct flowspec_fate {
	__u32 reason; /* enum reason; REASON_NONE: none drops it */
	__u32 slot;   /* of the filter that drops it, or redirects what passes */
	__u32 mark;   /* DSCP to write, and one; 0: as it is */
	__u32 socket; /* to hand it to; 0: none */
	__u32 sample; /* slot of the filter that wants it shown; 0: none */
};

static __always_inline const struct flowspec_set *
flowspec_by_address(const struct packet *p, const union addr *a, __u32 half, void *trie4, void *trie6)
{
	struct flowspec_key6 key = {.prefixlen = 32 + 128, .half = half};

	if (p->family == 4) { /* both keys begin alike */
		key.prefixlen = 32 + 32;
		__builtin_memcpy(key.addr, &a->word[3], sizeof(__be32));
		return bpf_map_lookup_elem(trie4, &key);
	}
	__builtin_memcpy(key.addr, a, sizeof(key.addr));
	return bpf_map_lookup_elem(trie6, &key);
}

static __always_inline bool flowspec_conforms(const struct packet *p, const struct limiter *l, __u64 now)
{
	struct limit_bucket *b;
	__u32 index = l->rule;
	bool fresh = false;
	__u64 mark;

	if (!l->mult)
		return true;
	b = bpf_map_lookup_elem(&flowspec_buckets, &index);
	if (!b)
		return false;
	mark = *(volatile __u64 *)&b->mark;
	if (mark != l->mark)
		fresh = explain || __sync_val_compare_and_swap(&b->mark, mark, l->mark) == mark;
	return limit_take(l, &b->tat, fresh, now, limit_cost(l, p));
}

/* A packet is charged to both rates or, where one has no room, to the first at most: it is dropped either way. */
static __always_inline enum reason flowspec_verdict(const struct packet *p, const struct flowspec_entry *e)
{
	__u64 now;

	if (e->does & FLOWSPEC_BLACKHOLES)
		return REASON_BLACKHOLE;
	if (e->does & FLOWSPEC_DROPS)
		return REASON_FLOWSPEC_DROP;
	if (!(e->does & FLOWSPEC_LIMITS))
		return REASON_NONE;
	now = limit_clock() << LIMIT_TICK_BITS;
	if (flowspec_conforms(p, &e->limiter[0], now) && flowspec_conforms(p, &e->limiter[1], now))
		return REASON_NONE;
	return REASON_FLOWSPEC_LIMIT;
}

static __always_inline void explain_filter(__u32 slot)
{
	__u32 zero = 0, n;
	struct explanation *e = bpf_map_lookup_elem(&explained, &zero);

	if (!e)
		return;
	n = e->filters++;
	if (n < EXPLAINED_FILTERS)
		e->filter[n] = slot;
}

/*
 * Tries an entry: FLOWSPEC_ENDS where it holds for the packet and no other is asked. Global, so that the loop around it stays small for
 * the verifier; hence the tests of its pointers.
 */
#define FLOWSPEC_ENDS 1
__noinline int flowspec_try(const struct packet *p, const struct flowspec_entry *e,
			    struct flowspec_fate *fate)
{
	struct classes none = {};
	struct flowspec_hit *hit;
	__u64 now;
	__u32 slot;

	if (!p || !e || !fate)
		return 0;
	now = bpf_ktime_get_boot_ns();
	if (match_rule(&e->rule, p, &none) != MATCH || (e->until_ns && now >= e->until_ns))
		return 0;
	slot = e->rule.id;
	fate->reason = flowspec_verdict(p, e);
	if (fate->reason != REASON_NONE || (e->does & FLOWSPEC_REDIRECTS))
		fate->slot = slot;
	if (e->does & FLOWSPEC_MARKS)
		fate->mark = 1 + (e->dscp & 0x3f);
	if (e->does & FLOWSPEC_REDIRECTS)
		fate->socket = e->socket;
	if (e->does & FLOWSPEC_SAMPLES)
		fate->sample = slot;
	if (explain) {
		explain_filter(slot);
		hit = NULL;
	} else {
		hit = bpf_map_lookup_elem(&flowspec_hits, &slot);
	}
	if (hit) {
		hit->packets++;
		hit->bytes += p->len;
		hit->dropped += fate->reason != REASON_NONE;
		hit->last_ns = now;
	}
	return fate->reason != REASON_NONE || !(e->does & FLOWSPEC_GOES_ON) ? FLOWSPEC_ENDS : 0;
}

/* Tries the entries of one word in their order, the first of which has number first. Global for the same reason. */
__noinline int flowspec_word(const struct packet *p, __u64 bits, __u32 first, struct flowspec_fate *fate)
{
	struct bpf_iter_num it;
	int ends = 0;

	if (!p || !fate)
		return 0;
	bpf_iter_num_new(&it, 0, 64);
	while (bpf_iter_num_next(&it)) {
		const struct flowspec_entry *e;
		__u32 index;

		if (!bits)
			break;
		index = first + __builtin_ctzll(bits);
		bits &= bits - 1;
		e = bpf_map_lookup_elem(&flowspec_entries, &index);
		if (e && flowspec_try(p, e, fate) == FLOWSPEC_ENDS) {
			ends = FLOWSPEC_ENDS;
			break;
		}
	}
	bpf_iter_num_destroy(&it);
	return ends;
}

/* Where a side is not asked about, every entry is in its set. */
static __always_inline __u64 flowspec_bits(const struct flowspec_set *set, __u32 word)
{
	return set ? set->word[word & (FLOWSPEC_WORDS - 1)] : ~0ull;
}

/* Global, so that it is verified once and that the way of a packet without filters stays short. */
__noinline int flowspec(const struct packet *p, __u64 live, struct flowspec_fate *fate)
{
	const struct flowspec_set *by_protocol, *by_dst = NULL, *by_src = NULL;
	__u32 half = live & FLOWSPEC_HALF, index;
	struct bpf_iter_num it;
	int *word;

	if (!p || !fate)
		return 0;
	index = FLOWSPEC_PROTOCOL(half, p->family != 4, p->protocol);
	by_protocol = bpf_map_lookup_elem(&flowspec_protocols, &index);
	if (!by_protocol)
		return 0;
	if (live & FLOWSPEC_BY_DST) {
		by_dst = flowspec_by_address(p, &p->dst, half, &flowspec_dst4, &flowspec_dst6);
		if (!by_dst)
			return 0;
	}
	if (live & FLOWSPEC_BY_SRC) {
		by_src = flowspec_by_address(p, &p->src, half, &flowspec_src4, &flowspec_src6);
		if (!by_src)
			return 0;
	}
	bpf_iter_num_new(&it, 0, FLOWSPEC_IN_USE(live));
	/* The word's number is the iterator's own: one that the loop counts keeps the verifier from seeing that a turn is like the last. */
	while ((word = bpf_iter_num_next(&it))) {
		__u32 at = *word;
		__u64 bits = flowspec_bits(by_protocol, at) & flowspec_bits(by_dst, at) &
			     flowspec_bits(by_src, at);

		if (bits && flowspec_word(p, bits, half * MAX_FLOWSPEC + at * 64, fate) == FLOWSPEC_ENDS)
			break;
	}
	bpf_iter_num_destroy(&it);
	return 0;
}

/* Writes the code point (RFC 2474) into a header. What cannot be written goes on as it is. */
static __always_inline void flowspec_mark(PARSE_CTX *ctx, const struct packet *p, __u8 dscp)
{
	__be16 head, had, check;
	__u32 sum;

	if (load_bytes(ctx, p->l3, &had, sizeof(had)))
		return;
	if (p->family == 6) { /* version, traffic class, flow label: the code point is bits 4 to 9 */
		head = bpf_htons((bpf_ntohs(had) & 0xf03f) | dscp << 6);
		store_bytes(ctx, p->l3, &head, sizeof(head));
		return;
	}
	head = bpf_htons((bpf_ntohs(had) & 0xff03) | dscp << 2);
	if (load_bytes(ctx, p->l3 + 10, &check, sizeof(check)))
		return;
	sum = (__u16)~check + (__u16)~had + head; /* RFC 1624, equation 3 */
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	check = ~sum;
	if (!store_bytes(ctx, p->l3, &head, sizeof(head)))
		store_bytes(ctx, p->l3 + 10, &check, sizeof(check));
}

/* Whether a filter gave the reason: then its slot stands where the id of a rule would. */
static __always_inline bool of_flowspec(enum reason reason)
{
	return reason == REASON_FLOWSPEC_DROP || reason == REASON_FLOWSPEC_LIMIT ||
	       reason == REASON_BLACKHOLE || reason == REASON_FLOWSPEC_BYPASS;
}

/*
 * What drops or redirects it; slot is then that of the filter. Where nobody takes what is redirected, the policies judge it: a neighbor
 * opens nothing.
 */
static __always_inline enum reason flowspec_stage(PARSE_CTX *ctx, const struct packet *p, enum hook hook,
						  __u32 *slot)
{
	__u32 zero = 0;
	__u64 *state = bpf_map_lookup_elem(&flowspec_live, &zero), live;
	struct flowspec_fate fate = {};

	if (!state)
		return REASON_NONE;
	live = *(volatile __u64 *)state;
	if (!live)
		return REASON_NONE;
	flowspec(p, live, &fate);
	*slot = fate.slot;
	if (fate.sample && watched(WATCH_LOGS))
		sample_packet(p,
			      WHERE(hook, p->ifindex,
				    fate.reason == REASON_NONE ? EVENT_FILTER_PASSED : EVENT_FILTER_DROPPED),
			      REASON_NONE, fate.sample);
	if (fate.reason != REASON_NONE)
		return fate.reason;
	if (fate.mark && !explain)
		flowspec_mark(ctx, p, fate.mark - 1);
	return fate.socket && hand_over(ctx, fate.socket) ? REASON_FLOWSPEC_BYPASS : REASON_NONE;
}
