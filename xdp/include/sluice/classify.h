/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/*
 * The classifier: addresses to classes by longest prefix, once per packet; then, per policy, the first acting entry
 * among those that both classes can match. Callers know classify() and judge() only, so that what is behind them can
 * be replaced. The order and the meaning are those of the Go model (xdp/classify).
 */

#include "iter.h"
#include "maps.h"
#include "parse.h"

struct classes {
	__u32 src; /* indexes into the classes map */
	__u32 dst;
};

struct decision {
	__u32 rule;   /* stable id of the acting rule; 0: none */
	__u32 reason; /* enum reason; REASON_NONE: the policy does not decide */
	__u32 policy; /* index of the policy that decided */
};

static __always_inline bool reason_accepts(enum reason reason)
{
	switch (reason) {
	case REASON_RULE_ACCEPT:
	case REASON_DEFAULT_ACCEPT:
	case REASON_FRAGMENT_ACCEPT:
	case REASON_FRAGMENT_DEFAULT_ACCEPT:
		return true;
	default:
		return false;
	}
}

/* Prefix to class, both directions, once per packet. */
static __always_inline void classify(const struct packet *p, struct classes *c)
{
	__u32 *src, *dst;

	if (p->family == 4) {
		struct prefix4_key key = {.prefixlen = 32, .addr = p->src.word[3]};

		src = bpf_map_lookup_elem(&src4, &key);
		key.addr = p->dst.word[3];
		dst = bpf_map_lookup_elem(&dst4, &key);
		c->src = src ? *src : CLASS_SRC4;
		c->dst = dst ? *dst : CLASS_DST4;
	} else {
		struct prefix6_key key = {.prefixlen = 128};

		__builtin_memcpy(key.addr, &p->src, sizeof(key.addr));
		src = bpf_map_lookup_elem(&src6, &key);
		__builtin_memcpy(key.addr, &p->dst, sizeof(key.addr));
		dst = bpf_map_lookup_elem(&dst6, &key);
		c->src = src ? *src : CLASS_SRC6;
		c->dst = dst ? *dst : CLASS_DST6;
	}
}

static __always_inline bool in_ranges(const struct port_range *ranges, __u16 port)
{
	for (int i = 0; i < MAX_PORT_RANGES; i++)
		if (port >= ranges[i].first && port <= ranges[i].last)
			return true;
	return false;
}

enum match { NO_MATCH, MATCH, MATCH_UNKNOWN };

/* Whether an entry that both addresses allow matches the rest. MATCH_UNKNOWN: its ports cannot be seen. */
static __always_inline enum match match_rule(const struct rule *r, const struct packet *p)
{
	if (!(r->flags & RULE_ANY_PROTOCOL) && r->protocol != p->protocol)
		return NO_MATCH;
	if (r->ttl && r->ttl != p->ttl)
		return NO_MATCH;
	if (!(r->flags & (RULE_PORTS | RULE_SOURCE_PORTS)))
		return MATCH;
	if (p->flags & PACKET_NON_FIRST)
		return MATCH_UNKNOWN;
	if (!(p->flags & PACKET_PORTS))
		return NO_MATCH;
	if ((r->flags & RULE_PORTS) && !in_ranges(r->ports, bpf_ntohs(p->dport)))
		return NO_MATCH;
	if ((r->flags & RULE_SOURCE_PORTS) && !in_ranges(r->source_ports, bpf_ntohs(p->sport)))
		return NO_MATCH;
	return MATCH;
}

/* The fate of what no rule decided. REASON_NONE where the policy continues. */
static __always_inline enum reason default_reason(const struct policy *policy, bool fragment)
{
	switch (policy->default_action) {
	case ACTION_ACCEPT:
		return fragment ? REASON_FRAGMENT_DEFAULT_ACCEPT : REASON_DEFAULT_ACCEPT;
	case ACTION_DROP:
		return fragment ? REASON_FRAGMENT_DEFAULT_DROP : REASON_DEFAULT_DROP;
	default:
		return REASON_NONE;
	}
}

/*
 * Applies one entry. Returns true when it decided, with d filled in. A rule whose ports a later fragment hides is
 * passed over by a policy that continues; elsewhere it ends the search with the fate of fragments: or the default.
 */
static __always_inline bool apply_rule(const struct rule *r, const struct policy *policy,
				       const struct packet *p, struct decision *d)
{
	switch (match_rule(r, p)) {
	case MATCH:
		count_rule(r->id, p->len);
		if (r->flags & RULE_SHADOW)
			return false;
		d->rule = r->id;
		d->reason = r->action == ACTION_ACCEPT ? REASON_RULE_ACCEPT : REASON_RULE_DROP;
		return true;
	case MATCH_UNKNOWN:
		if ((r->flags & RULE_SHADOW) || policy->default_action == ACTION_CONTINUE)
			return false;
		d->reason = policy->fragments == FRAGMENTS_ACCEPT ? REASON_FRAGMENT_ACCEPT
								  : default_reason(policy, true);
		return true;
	default:
		return false;
	}
}

/* The bits of word that belong to entries first to last, inclusive. */
static __always_inline __u64 range_mask(__u32 word, __u32 first, __u32 last)
{
	__u64 mask = ~0ull;

	if (word == first / 64)
		mask &= ~0ull << (first % 64);
	if (word == last / 64)
		mask &= ~0ull >> (63 - last % 64);
	return mask;
}

/* Walks the candidates of one word, lowest entry first. */
static __always_inline bool judge_word(__u64 bits, __u32 word, const struct policy *policy,
				       const struct packet *p, struct decision *d)
{
	struct bpf_iter_num it;
	bool decided = false;

	bpf_iter_num_new(&it, 0, 64);
	while (bpf_iter_num_next(&it)) {
		struct rule *r;
		__u32 entry;

		if (!bits)
			break;
		entry = word * 64 + __builtin_ctzll(bits);
		bits &= bits - 1;
		r = bpf_map_lookup_elem(&rules, &entry);
		if (r && apply_rule(r, policy, p, d)) {
			decided = true;
			break;
		}
	}
	bpf_iter_num_destroy(&it);
	return decided;
}

/*
 * Judges a packet by one policy. d->reason is REASON_NONE where the policy does not decide, and one of the DEFAULT
 * reasons where no rule acted: callers look for established flows only then. Global, so that the verifier checks it
 * once; hence the tests of its pointers.
 */
__noinline int judge(const struct packet *p, const struct classes *c, __u32 index, struct decision *d)
{
	struct class_bits *src, *dst;
	struct bpf_iter_num it;
	struct policy *policy;
	bool decided = false;
	__u32 last;
	int *next;

	if (!p || !c || !d)
		return 0;
	d->rule = 0;
	d->reason = REASON_NONE;
	d->policy = index;
	policy = bpf_map_lookup_elem(&policies, &index);
	src = bpf_map_lookup_elem(&classes, &c->src);
	dst = bpf_map_lookup_elem(&classes, &c->dst);
	if (!policy || !src || !dst) {
		d->reason = REASON_INTERNAL;
		return 0;
	}
	if ((p->flags & PACKET_FRAGMENT) && policy->fragments == FRAGMENTS_DROP) {
		d->reason = REASON_FRAGMENT_DROP;
		return 0;
	}
	if (policy->count) {
		last = policy->first + policy->count - 1;
		bpf_iter_num_new(&it, policy->first / 64, last / 64 + 1);
		while ((next = bpf_iter_num_next(&it))) {
			__u32 word = *next;

			if (word >= RULE_WORDS)
				break;
			if (judge_word(src->word[word] & dst->word[word] &
					       range_mask(word, policy->first, last),
				       word, policy, p, d)) {
				decided = true;
				break;
			}
		}
		bpf_iter_num_destroy(&it);
	}
	if (!decided)
		d->reason = default_reason(policy, false);
	return 0;
}
