/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/*
 * fragments: track. A later fragment has no transport header, so a policy that asks for one cannot judge it: it shares the
 * fate of the first fragment of its datagram, which is remembered for three seconds. One that comes before its first, and
 * one whose first was forgotten, has the default's fate: only what differs from that is written, so that a flood of what
 * the default would meet alike writes nothing.
 *
 * The table has a fixed size and a slot for each hash: who sends many first fragments that are accepted overwrites others',
 * and neither memory nor time grow. The hash is keyed, so that nobody can aim at a slot.
 */

#include "limit.h"
#include "maps.h"
#include "parse.h"

#define FRAGMENT_SLOTS 65536

/*
 * A slot is one word, written and read as a whole: a tag of the datagram in the upper half; whether its first fragment was
 * dropped; and when that came, in ticks of 2^24 ns on CLOCK_MONOTONIC, which wrap after a year. Layout version 1.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, FRAGMENT_SLOTS);
	__type(key, __u32);
	__type(value, __u64);
} fragments SEC(".maps");

#define FRAGMENT_DROPPED   0x80000000u
#define FRAGMENT_TICK_BITS 24
#define FRAGMENT_TICKS	   179 /* three seconds */

/*
 * What tells the datagrams of a pair of hosts apart: the identification, and of IPv4 the protocol too (RFC 791, RFC 8200
 * section 4.5). It is read again, for the parser has no room for what so few packets need. 0: not to be found.
 */
static __always_inline __u64 fragment_id(PARSE_CTX *ctx, const struct packet *p)
{
	__u32 at = p->l3 + sizeof(struct ipv6hdr);
	struct ip6_fragment ext;
	__u8 next;

	if (p->family == 4) {
		__be16 id;

		if (load_bytes(ctx, p->l3 + 4, &id, sizeof(id)))
			return 0;
		return 1ull << 40 | (__u64)p->protocol << 32 | id;
	}
	if (load_bytes(ctx, p->l3 + 6, &next, sizeof(next)))
		return 0;
	for (int i = 0; i < MAX_IP6_EXTENSIONS; i++) { /* as parse_ip6_extensions(), which found one */
		if (load_bytes(ctx, at, &ext, sizeof(ext)))
			return 0;
		if (next == IPPROTO_FRAGMENT)
			return 1ull << 41 | ext.id;
		at += next == IPPROTO_AH ? (ext.reserved + 2) * 4 : (ext.reserved + 1) * 8;
		next = ext.next;
	}
	return 0;
}

/* index is that of a policy: each has a fate of its own for a datagram. */
static __always_inline __u64 fragment_hash(const struct packet *p, __u64 id, __u32 index, __u64 seed)
{
	__u64 h = limit_mix(p->src.half[0] ^ seed);

	h = limit_mix(h ^ p->src.half[1]);
	h = limit_mix(h ^ p->dst.half[0]);
	h = limit_mix(h ^ p->dst.half[1]);
	h = limit_mix(h ^ id);
	return limit_mix(h ^ ((__u64)index << 12 | p->vlan));
}

/*
 * What a first fragment's reason makes of the later ones. A redirected or answered one is nothing to follow, and one within a
 * limit would take any number of later ones past it.
 */
enum fragment_fate { FRAGMENT_UNKNOWN, FRAGMENT_PASS, FRAGMENT_DROP };

static __always_inline enum fragment_fate fate_of_first(enum reason reason)
{
	switch (reason) {
	case REASON_FAILSAFE:
	case REASON_SYSTEM:
	case REASON_ESTABLISHED:
	case REASON_RULE_ACCEPT:
	case REASON_DEFAULT_ACCEPT:
	case REASON_SYN_COOKIE_PASS:
	case REASON_BYPASS_STACK:
		return FRAGMENT_PASS;
	case REASON_RULE_DROP:
	case REASON_LIMIT_DROP:
	case REASON_DEFAULT_DROP:
		return FRAGMENT_DROP;
	default:
		return FRAGMENT_UNKNOWN;
	}
}

/* Whether it is the default that decided on a later fragment: an explicit rule for all fragments is to beat a first one's. */
static __always_inline bool is_default(enum reason reason)
{
	return reason == REASON_DEFAULT_DROP || reason == REASON_FRAGMENT_DEFAULT_DROP ||
	       reason == REASON_DEFAULT_ACCEPT || reason == REASON_FRAGMENT_DEFAULT_ACCEPT;
}

/* Where a datagram is remembered for a policy, and the tag that it has there. NULL: nowhere. */
static __always_inline __u64 *fragment_slot(PARSE_CTX *ctx, const struct packet *p, __u32 index, __u32 *tag)
{
	__u32 zero = 0, at;
	__u64 *seed = bpf_map_lookup_elem(&limit_seed, &zero), id = fragment_id(ctx, p), hash;

	if (!seed || !id)
		return NULL;
	hash = fragment_hash(p, id, index, *seed);
	*tag = hash >> 32 | 1; /* never 0, as an empty slot's is */
	at = hash & (FRAGMENT_SLOTS - 1);
	return bpf_map_lookup_elem(&fragments, &at);
}

static __always_inline __u32 fragment_now(void)
{
	return (bpf_ktime_get_ns() >> FRAGMENT_TICK_BITS) & ~FRAGMENT_DROPPED;
}

static __always_inline void remember_first(__u64 *slot, __u32 tag, bool dropped)
{
	if (!explain)
		*(volatile __u64 *)slot =
			(__u64)tag << 32 | (dropped ? FRAGMENT_DROPPED : 0) | fragment_now();
}

/* The fate of the first fragment, as far as it is remembered. */
static __always_inline enum fragment_fate recall_first(__u64 *slot, __u32 tag)
{
	__u64 was = *(volatile __u64 *)slot;
	__u32 word = was;

	/* One tick of tolerance for another CPU's clock. */
	if (was >> 32 != tag || ((fragment_now() - word + 1) & ~FRAGMENT_DROPPED) > FRAGMENT_TICKS + 1)
		return FRAGMENT_UNKNOWN;
	return word & FRAGMENT_DROPPED ? FRAGMENT_DROP : FRAGMENT_PASS;
}

/*
 * For any fragment that a policy has judged: remembers a first one, and returns the reason of a later one, which is the
 * given reason where nothing better is known. Global: verified once, and off the callers' stack.
 */
__noinline int follow_fragment(PARSE_CTX *ctx, const struct packet *p, __u32 index, __u32 reason)
{
	struct policy *policy = bpf_map_lookup_elem(&policies, &index);
	enum fragment_fate fate = FRAGMENT_UNKNOWN;
	__u64 *slot;
	__u32 tag;
	bool later;

	if (!p || !policy || policy->fragments != FRAGMENTS_TRACK)
		return reason;
	later = p->flags & PACKET_NON_FIRST;
	if (!later)
		fate = fate_of_first(reason);
	if (later ? !is_default(reason)
		  : fate != (policy->default_action == ACTION_DROP ? FRAGMENT_PASS : FRAGMENT_DROP))
		return reason;
	slot = fragment_slot(ctx, p, index, &tag);
	if (!slot)
		return reason;
	if (!later) {
		remember_first(slot, tag, fate == FRAGMENT_DROP);
		return reason;
	}
	switch (recall_first(slot, tag)) {
	case FRAGMENT_PASS:
		return REASON_FRAGMENT_TRACKED;
	case FRAGMENT_DROP:
		return REASON_FRAGMENT_TRACKED_DROP;
	default:
		return reason;
	}
}

#define FRAGMENT_MATRIX (~0u) /* in place of a policy's index */

/*
 * For a fragment that the forwarding matrix does not let pass by itself: whether its flow excuses it. Of a later one only
 * its first can tell. No `fragments:` is asked, since a flow is tracked whether or not a policy says so.
 */
__noinline int excuse_fragment(PARSE_CTX *ctx, const struct packet *p, bool excused)
{
	__u64 *slot;
	__u32 tag;

	if (!p || (!excused && !(p->flags & PACKET_NON_FIRST)))
		return 0;
	slot = fragment_slot(ctx, p, FRAGMENT_MATRIX, &tag);
	if (!slot)
		return excused;
	if (p->flags & PACKET_NON_FIRST)
		return recall_first(slot, tag) == FRAGMENT_PASS;
	remember_first(slot, tag, false);
	return 1;
}
