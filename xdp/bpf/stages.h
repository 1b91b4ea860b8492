/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* What the root and the generation share: parsing an XDP frame, and the way from reason to verdict. */

#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "sluice/abi.h"

#define PARSE_CTX struct xdp_md

static __always_inline long load_bytes(struct xdp_md *ctx, __u32 offset, void *to, __u32 len)
{
	return bpf_xdp_load_bytes(ctx, offset, to, len);
}

static __always_inline long store_bytes(struct xdp_md *ctx, __u32 offset, const void *from, __u32 len)
{
	return bpf_xdp_store_bytes(ctx, offset, (void *)from, len);
}

/* XDP sees every tag in the frame, or none: one that the NIC stripped is not to be had here. */
static __always_inline void tag_beside(struct xdp_md *ctx, struct capture_event *e)
{
	(void)ctx;
	(void)e;
}

#include "sluice/count.h"
#include "sluice/link.h"
#include "sluice/parse.h"

static __always_inline enum reason parse_frame(struct xdp_md *ctx, struct cursor *c, struct packet *p)
{
	enum reason reason;

	c->start = (void *)(long)ctx->data;
	c->pos = c->start;
	c->end = (void *)(long)ctx->data_end;
	p->len = bpf_xdp_get_buff_len(ctx);
	reason = parse_ethernet(c, p);
	return reason == REASON_NONE ? parse_l3(ctx, c, p) : reason;
}

/*
 * Where an interface's counters are: interfaces as an array, since a lookup in the hash takes as long as parsing does. State,
 * written with interfaces. Of two whose indexes have the same low bits one stands here, and the hash knows the other.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, INTERFACE_SLOTS);
	__type(key, __u32); /* ifindex % INTERFACE_SLOTS */
	__type(value, struct interface_slot);
} interface_slots SEC(".maps");

static __always_inline __u32 slot_of(__u32 ifindex)
{
	__u32 index = ifindex % INTERFACE_SLOTS;
	struct interface_slot *at = bpf_map_lookup_elem(&interface_slots, &index);
	struct interface *interface;

	if (at && at->ifindex == ifindex)
		return at->slot;
	interface = bpf_map_lookup_elem(&interfaces, &ifindex);
	return interface ? interface->slot : 0;
}

#define FATE_pass     XDP_PASS
#define FATE_stack    XDP_PASS
#define FATE_drop     XDP_DROP
#define FATE_answer   XDP_TX
#define FATE_redirect XDP_REDIRECT
#define REASON_FATE(name, fate, text) \
	case REASON_##name:           \
		return FATE_##fate;

static __always_inline int verdict_of(enum reason reason)
{
	switch (reason) {
		SLUICE_REASONS(REASON_FATE)
	default:
		return XDP_DROP;
	}
}
