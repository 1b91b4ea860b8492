/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/*
 * Bans: an overlay that the daemon writes entry by entry, beside the generations and untouched by them. All maps are
 * state. Expiry is judged here, so that a ban ends on time whether or not a daemon runs; the daemon sweeps.
 */

#include "count.h"
#include "iter.h"
#include "parse.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ban_state);
} ban_state SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_BANS);
	__type(key, union addr);
	__type(value, struct ban);
} bans SEC(".maps");

#define BAN_TRIE(name, key_type)                      \
	struct {                                      \
		__uint(type, BPF_MAP_TYPE_LPM_TRIE);  \
		__uint(map_flags, BPF_F_NO_PREALLOC); \
		__uint(max_entries, MAX_BANS);        \
		__type(key, struct key_type);         \
		__type(value, struct ban);            \
	} name SEC(".maps")

BAN_TRIE(bans4, prefix4_key); /* without /32 */
BAN_TRIE(bans6, prefix6_key); /* without /128 */

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_BANS + 1);
	__type(key, __u32);
	__type(value, struct ban_hit);
} ban_hits SEC(".maps"); /* index: slot of the ban */

/* Whether a ban still holds; then it counts the packet. */
static __always_inline bool ban_holds(const struct ban *ban)
{
	__u64 now = bpf_ktime_get_boot_ns();
	__u32 slot = ban->slot;
	struct ban_hit *hit;

	if (ban->until_ns && now >= ban->until_ns)
		return false;
	if (explain)
		return true;
	hit = bpf_map_lookup_elem(&ban_hits, &slot);
	if (hit) {
		hit->packets++;
		hit->last_ns = now;
	}
	return true;
}

/*
 * Whether a prefix that holds covers the key. A longer one that has ended, and that nobody swept yet, must not hide a
 * shorter one: so the search goes on below its length. Both families' keys begin alike.
 */
static __always_inline bool ban_covers(void *trie, struct prefix6_key *key)
{
	struct bpf_iter_num it;
	bool covers = false;

	bpf_iter_num_new(&it, 0, 128);
	while (bpf_iter_num_next(&it)) {
		struct ban *ban = bpf_map_lookup_elem(trie, key);

		if (!ban)
			break;
		if (ban_holds(ban)) {
			covers = true;
			break;
		}
		if (!ban->bits)
			break;
		key->prefixlen = ban->bits - 1;
	}
	bpf_iter_num_destroy(&it);
	return covers;
}

/* Global, so that it is verified once and that the way of a packet without bans stays short. */
__noinline int banned(const struct packet *p, const struct ban_state *have)
{
	struct prefix6_key key = {};
	struct ban *ban;

	if (!p || !have)
		return 0;
	if (have->addresses) {
		ban = bpf_map_lookup_elem(&bans, &p->src);
		if (ban && ban_holds(ban))
			return 1;
	}
	if (p->family == 4) {
		if (!have->prefixes4)
			return 0;
		key.prefixlen = 32;
		__builtin_memcpy(key.addr, &p->src.word[3], sizeof(__be32));
		return ban_covers(&bans4, &key);
	}
	if (!have->prefixes6)
		return 0;
	key.prefixlen = 128;
	__builtin_memcpy(key.addr, &p->src, sizeof(key.addr));
	return ban_covers(&bans6, &key);
}

static __always_inline enum reason bans_stage(const struct packet *p)
{
	__u32 zero = 0;
	struct ban_state *have = bpf_map_lookup_elem(&ban_state, &zero);

	if (!have || !(have->addresses | have->prefixes4 | have->prefixes6))
		return REASON_NONE;
	return banned(p, have) ? REASON_BANNED : REASON_NONE;
}
