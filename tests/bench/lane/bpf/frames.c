// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/*
 * Writes the next flow of a table into a frame of 64 bytes, whole: pages of live frames are recycled and hold what the
 * receiver left in them. Then it sends the frame out of a veth, or hands it to the program under test.
 */

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* lane.record of Go. All in network byte order. */
struct flow {
	__be32 src;
	__be32 dst;
	__be16 sport;
	__be16 dport;
	__sum16 check; /* of the IP header */
	__u8 protocol; /* TCP or UDP */
	__u8 pad;
};

struct l4 { /* what TCP and UDP need of 20 bytes */
	__be16 sport;
	__be16 dport;
	__be16 udp_len;
	__u16 zero[3];
	__u8 tcp_offset;
	__u8 tcp_flags;
	__u16 rest[3];
};

struct frame {
	struct ethhdr eth;
	struct iphdr ip;
	struct l4 l4;
} __attribute__((packed));

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flow);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} slot SEC(".maps");

volatile const __u32 out = 0;  /* ifindex */
volatile const __u32 mask = 0; /* number of flows - 1; a power of two - 1 */
volatile const struct ethhdr link = {};
__u32 next;

#define UDP_LEN 30 /* fills the 64 bytes; TCP is an ACK without data, which GRO leaves alone */

static __always_inline int write_frame(struct xdp_md *ctx)
{
	struct frame *f = (void *)(long)ctx->data;
	__u32 index = next++ & mask;
	const struct flow *flow = bpf_map_lookup_elem(&flows, &index);

	if (!flow || (void *)(f + 1) > (void *)(long)ctx->data_end)
		return -1;
	f->eth = link;
	f->ip = (struct iphdr){
		.version = 4,
		.ihl = 5,
		.tot_len = flow->protocol == IPPROTO_UDP ? bpf_htons(20 + UDP_LEN) : bpf_htons(40),
		.ttl = 64,
		.protocol = flow->protocol,
		.check = flow->check,
		.saddr = flow->src,
		.daddr = flow->dst,
	};
	f->l4 = (struct l4){
		.sport = flow->sport,
		.dport = flow->dport,
		.udp_len = bpf_htons(UDP_LEN),
		.tcp_offset = 5 << 4,
		.tcp_flags = 0x10,
	};
	if (flow->protocol != IPPROTO_UDP)
		f->l4.udp_len = 0;
	return 0;
}

SEC("xdp.frags")
int send(struct xdp_md *ctx)
{
	return write_frame(ctx) ? XDP_ABORTED : bpf_redirect(out, 0);
}

SEC("xdp.frags")
int feed(struct xdp_md *ctx)
{
	if (!write_frame(ctx))
		bpf_tail_call(ctx, &slot, 0);
	return XDP_ABORTED;
}

/* Takes everything away at a far end, where it is only counted. */
SEC("tcx/ingress")
int sink(struct __sk_buff *skb)
{
	(void)skb;
	return 2; /* TC_ACT_SHOT */
}

char _license[] SEC("license") = "Dual BSD/GPL";
