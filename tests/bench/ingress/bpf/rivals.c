// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/* What Sluice's ingress program is held against: nothing at all, its parser alone, and the kernel's own prefix table. */

#include "../../../../xdp/bpf/stages.h"

struct trie_key {
	__u32 prefixlen;
	__be32 addr;
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct trie_key);
	__type(value, __u32);
} trie SEC(".maps");

SEC("xdp.frags")
int drop(struct xdp_md *ctx)
{
	(void)ctx;
	return XDP_DROP;
}

/* What a driver takes for running a program at all, where packets go on. */
SEC("xdp.frags")
int pass(struct xdp_md *ctx)
{
	(void)ctx;
	return XDP_PASS;
}

SEC("xdp.frags")
int parse(struct xdp_md *ctx)
{
	struct cursor c = {};
	struct packet p = {};

	return parse_frame(ctx, &c, &p) == REASON_NONE && p.sport != p.dport ? XDP_DROP : XDP_PASS;
}

/* As small as such a program can be: no VLANs, no options, no ports, no counters, no reasons. */
SEC("xdp.frags")
int lpm(struct xdp_md *ctx)
{
	struct trie_key key = {.prefixlen = 32};
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = (void *)(long)ctx->data;
	struct iphdr *ip = (void *)(eth + 1);

	if ((void *)(ip + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP))
		return XDP_PASS;
	key.addr = ip->saddr;
	return bpf_map_lookup_elem(&trie, &key) ? XDP_DROP : XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
