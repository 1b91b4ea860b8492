// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/* Lanes of the benchmark: what one packet costs, with keys from an array instead of a frame. */

#include "../../../../xdp/bpf/stages.h"
#include "sluice/classify.h"

enum lane { LANE_NOTHING, LANE_LPM, LANE_TABLE, LANE_CLASSIFY, LANE_JUDGE };

volatile const __u32 lane = LANE_NOTHING;
volatile const __u32 key_mask = 0;
__u32 next_key;

struct bench_key {
	union addr src;
	union addr dst;
	__be16 sport;
	__be16 dport;
	__u8 protocol;
	__u8 family;
	__u8 flags;
	__u8 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct bench_key);
} bench_keys SEC(".maps");

PREFIX_TRIE(trie4, prefix4_key);
PREFIX_TRIE(trie6, prefix6_key);

static __always_inline void *longest(const struct packet *p)
{
	if (p->family == 4) {
		struct prefix4_key key = {.prefixlen = 32, .addr = p->src.word[3]};

		return bpf_map_lookup_elem(&trie4, &key);
	}
	struct prefix6_key key = {.prefixlen = 128};

	__builtin_memcpy(key.addr, &p->src, sizeof(key.addr));
	return bpf_map_lookup_elem(&trie6, &key);
}

static __always_inline int lookup(const struct packet *p)
{
	struct classes c = {};

	classify(p, &c);
	return c.src & CLASS_NUMBER ? XDP_DROP : XDP_PASS;
}

static __always_inline int judged(const struct packet *p, bool only_classes)
{
	struct decision d = {};
	struct classes c = {};

	classify(p, &c);
	if (only_classes)
		return c.src & c.dst & CLASS_NUMBER ? XDP_DROP : XDP_PASS;
	judge(p, &c, 0, &d);
	return reason_accepts(d.reason) ? XDP_PASS : XDP_DROP;
}

SEC("xdp")
int bench(struct xdp_md *ctx __attribute__((unused)))
{
	__u32 index = next_key++ & key_mask;
	struct bench_key *k = bpf_map_lookup_elem(&bench_keys, &index);
	struct packet p = {};

	(void)ctx;
	if (!k)
		return XDP_ABORTED;
	p.src = k->src;
	p.dst = k->dst;
	p.sport = k->sport;
	p.dport = k->dport;
	p.protocol = k->protocol;
	p.family = k->family;
	p.flags = k->flags;
	switch (lane) {
	case LANE_LPM:
		return longest(&p) ? XDP_DROP : XDP_PASS;
	case LANE_TABLE:
		return lookup(&p);
	case LANE_CLASSIFY:
		return judged(&p, true);
	case LANE_JUDGE:
		return judged(&p, false);
	default:
		return p.family == 4 ? XDP_DROP : XDP_PASS;
	}
}

char _license[] SEC("license") = "Dual BSD/GPL";
