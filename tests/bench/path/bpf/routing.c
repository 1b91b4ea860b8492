// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/*
 * The floor of the method: host routing by eBPF with no policy, no state, no counters, no options, IPv4 alone. And an XDP
 * program that does nothing, which is what a veth takes for running one.
 */

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define AF_INET 2

volatile const __u32 workload = 0;	 /* ifindex of the host side of its veth */
volatile const __be32 addresses[2] = {}; /* the workload's */

/* Returns the header where the packet may be forwarded; else NULL: it is the stack's. */
static __always_inline struct iphdr *routable(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct iphdr *ip = data + sizeof(struct ethhdr);

	if ((void *)(ip + 1) > end || skb->protocol != bpf_htons(ETH_P_IP) || ip->ihl != 5 || ip->ttl <= 1)
		return NULL;
	return ip;
}

static __always_inline void decrement_ttl(struct iphdr *ip)
{
	__u32 sum = ip->check + bpf_htons(0x0100); /* RFC 1141: TTL is the high byte of its word */

	ip->check = sum + (sum >> 16);
	ip->ttl--;
}

/* What the workload sends: by the routing table to the next hop. */
SEC("tcx/ingress")
int leave(struct __sk_buff *skb)
{
	struct bpf_fib_lookup fib = {.family = AF_INET, .ifindex = skb->ifindex};
	struct bpf_redir_neigh hop = {.nh_family = AF_INET};
	struct iphdr *ip = routable(skb);

	if (!ip)
		return TC_ACT_OK;
	fib.ipv4_src = ip->saddr;
	fib.ipv4_dst = ip->daddr;
	fib.tot_len = bpf_ntohs(ip->tot_len);
	if (bpf_fib_lookup(skb, &fib, sizeof(fib), 0) != BPF_FIB_LKUP_RET_SUCCESS)
		return TC_ACT_OK;
	decrement_ttl(ip);
	hop.ipv4_nh = fib.ipv4_dst;
	return bpf_redirect_neigh(fib.ifindex, &hop, sizeof(hop), 0);
}

/* What comes for the workload: into its namespace. */
SEC("tcx/ingress")
int enter(struct __sk_buff *skb)
{
	struct iphdr *ip = routable(skb);

	if (!ip || (ip->daddr != addresses[0] && ip->daddr != addresses[1]))
		return TC_ACT_OK;
	decrement_ttl(ip);
	return bpf_redirect_peer(workload, 0);
}

SEC("xdp.frags")
int pass(struct xdp_md *ctx)
{
	(void)ctx;
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
