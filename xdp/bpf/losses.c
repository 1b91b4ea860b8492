// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/*
 * Counts what was redirected to a bypass socket and did not arrive. The XDP program cannot know: the kernel puts packets
 * into a socket after the program has returned. The tracepoint fires for failures alone, so what arrives costs nothing.
 * In generic mode the kernel names no map in it, and losses stay uncounted.
 */

#include <linux/errno.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "sluice/abi.h"

/* By the id of an XSKMAP. Go makes the entries: redirects that are not ours find none. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 2 * MAX_SOCKETS); /* those of two generations */
	__type(key, __u32);
	__type(value, struct socket_losses);
} socket_losses SEC(".maps");

/* Arguments by the kernel's TRACE_EVENT(xdp_redirect_err): device, program, target, errno, map type, map id, index. */
SEC("raw_tp/xdp_redirect_err")
int lost(struct bpf_raw_tracepoint_args *ctx)
{
	__u32 map = ctx->args[5];
	int error = ctx->args[3];
	struct socket_losses *losses = bpf_map_lookup_elem(&socket_losses, &map);

	if (!losses)
		return 0;
	switch (error < 0 ? -error : error) {
	case ENOMEM:
	case ENOSPC:
		losses->no_frame++;
		break;
	case ENOBUFS:
		losses->ring_full++;
		break;
	case EINVAL:
		losses->wrong_place++;
		break;
	default:
		losses->other++;
	}
	return 0;
}

char _license[] SEC("license") = "Dual BSD/GPL";
