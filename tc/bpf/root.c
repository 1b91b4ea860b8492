// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/*
 * The tcx roots: attached once per interface and direction by a pinned link, they jump into the live generation. An
 * empty slot leaves the packet to the kernel, whose routing rules hold the coarse forwarding matrix.
 */

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include <sluice/tcx.h>

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} slot SEC(".maps");

SEC("tcx/ingress")
int root_ingress(struct __sk_buff *skb)
{
	bpf_tail_call(skb, &slot, 0);
	return TCX_NEXT;
}

SEC("tcx/egress")
int root_egress(struct __sk_buff *skb)
{
	if (take_pass(skb))
		return TCX_NEXT;
	bpf_tail_call(skb, &slot, 0);
	return TCX_NEXT;
}

char _license[] SEC("license") = "Dual BSD/GPL";
