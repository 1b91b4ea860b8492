/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/*
 * What the policies decided about recent flows, on each CPU: one look instead of classes and searches, which together cost
 * more than all else. It belongs to a generation, so no decision outlives what made it. Its key is all that a rule of this
 * generation can see of a packet; bans, limits, flows and listeners are no part of it, and are asked about every packet.
 * Flows that never come again cost a line that is written for nothing.
 */

#include "sluice/abi.h"
#include "sluice/classify.h"
#include "sluice/parse.h"

/* RECENT_*: which conditions rules have beside addresses, protocol, ports and interface. Set by Go before loading. */
volatile const __u8 recent_by = RECENT_OFF;

struct recent_flow { /* one cache line */
	union addr src;
	union addr dst;
	__u64 more; /* recent_more(), which is never 0 */
	__u32 ports;
	__u32 ifindex;
	__u32 rule; /* from here on as in struct decision */
	__u32 argument;
	__u32 sample;
	__u16 reason;
	__u16 policy;
} __attribute__((aligned(64)));

/* RECENT_FLOWS for each possible CPU. No per-CPU array, for the reason that rule_hits is none. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct recent_flow);
} recent SEC(".maps");

static __always_inline __u32 recent_ports(const struct packet *p)
{
	return (__u32)p->sport << 16 | p->dport;
}

/* The rest of what rules look at, each in its place. Constants of the program leave of it what is needed. */
static __always_inline __u64 recent_more(const struct packet *p)
{
	__u64 more = (__u64)p->family << 8 | p->protocol;

	if (recent_by & RECENT_TCP_FLAGS)
		more |= (__u64)p->tcp_flags << 12;
	if (recent_by & RECENT_TTL)
		more |= (__u64)p->ttl << 20;
	if (recent_by & RECENT_DSCP)
		more |= (__u64)p->dscp << 28;
	if (recent_by & RECENT_VLAN)
		more |= (__u64)p->vlan << 34;
	if (recent_by & RECENT_LENGTH) /* as match_rest() has it */
		more |= (__u64)(p->l3_len < 0xffff ? p->l3_len : 0xffff) << 46;
	return more;
}

/* Where a flow stands, or would. NULL: packets of its kind are not kept. Whoever aims at one place only misses it. */
static __always_inline struct recent_flow *recent_place(const struct packet *p)
{
	__u64 h = (__u64)p->src.word[3] << 32 | p->dst.word[3];
	__u32 index;

	if (explain || (recent_by & RECENT_OFF) || p->flags != PACKET_PORTS)
		return NULL;
	if (p->family == 6)
		h ^= p->src.half[0] ^ p->dst.half[0] * 3;
	h = (h ^ recent_ports(p)) * 0x9e3779b97f4a7c15ull;
	h = (h ^ h >> 32 ^ recent_more(p)) * 0xd6e8feb86659fd93ull;
	index = bpf_get_smp_processor_id() * RECENT_FLOWS + (h >> 48) % RECENT_FLOWS;
	return bpf_map_lookup_elem(&recent, &index);
}

/* Fills in what was decided. False where it is of another flow. */
static __always_inline bool recent_decided(const struct recent_flow *r, const struct packet *p,
					   struct decision *d)
{
	if (r->ports != recent_ports(p) || r->more != recent_more(p) || r->ifindex != p->ifindex ||
	    r->src.word[3] != p->src.word[3] || r->dst.word[3] != p->dst.word[3])
		return false;
	if (p->family == 6 && (r->src.half[0] != p->src.half[0] || r->src.word[2] != p->src.word[2] ||
			       r->dst.half[0] != p->dst.half[0] || r->dst.word[2] != p->dst.word[2]))
		return false;
	d->rule = r->rule;
	d->argument = r->argument;
	d->sample = r->sample;
	d->reason = r->reason;
	d->policy = r->policy;
	return true;
}

/* Programs of this hook do not interrupt each other on a CPU, so nobody sees half of it. */
static __always_inline void recent_keep(struct recent_flow *r, const struct packet *p,
					const struct decision *d)
{
	r->src = p->src;
	r->dst = p->dst;
	r->more = recent_more(p);
	r->ports = recent_ports(p);
	r->ifindex = p->ifindex;
	r->rule = d->rule;
	r->argument = d->argument;
	r->sample = d->sample;
	r->reason = d->reason;
	r->policy = d->policy;
}
