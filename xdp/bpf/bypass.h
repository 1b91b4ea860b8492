/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/*
 * Rules with action: bypass. What they match goes to the AF_XDP socket that an external program registered for the
 * receive queue, in the XSKMAP of (socket, interface). The maps are pinned state: a new generation finds the program
 * still registered. Whatever the kernel then cannot put into the socket is lost, and counted by losses.c.
 */

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "sluice/abi.h"
#include "sluice/classify.h"
#include "sluice/reason.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, 2 * MAX_SOCKETS); /* those of two generations */
	__type(key, struct socket_key);
	__array(
		values, struct {
			__uint(type, BPF_MAP_TYPE_XSKMAP);
			__uint(max_entries, SOCKET_QUEUES);
			__type(key, __u32);
			__type(value, __u32);
		});
} sockets SEC(".maps");

/* Whether a program has registered for a socket on this interface and queue, and the packet goes there. */
static __always_inline bool hand_over(struct xdp_md *ctx, __u32 socket)
{
	struct socket_key key = {.socket = socket, .ifindex = ctx->ingress_ifindex};
	void *queues = bpf_map_lookup_elem(&sockets, &key);

	return queues && bpf_redirect_map(queues, ctx->rx_queue_index, XDP_PASS) == XDP_REDIRECT;
}

/* Without a socket the kernel takes the packet, as it does where the rule is accept. */
static __always_inline enum reason bypass_stage(struct xdp_md *ctx, const struct decision *d)
{
	return hand_over(ctx, d->argument) ? REASON_BYPASS : REASON_BYPASS_STACK;
}
