// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Without headers, so that it compiles wherever clang is.
struct xdp_md {
	unsigned int data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex;
};

enum xdp_action { XDP_DROP = 1, XDP_PASS = 2 };

#define SEC(name) __attribute__((section(name), used))

// Reads the packet without a look at data_end.
SEC("xdp")
int bad(struct xdp_md *ctx)
{
	return *(unsigned char *)(long)ctx->data == 0 ? XDP_DROP : XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
