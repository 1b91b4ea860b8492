/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/*
 * syn_cookie: a SYN becomes the SYN-ACK that its listener would send, with a cookie that the kernel takes for its own.
 * The kernel looks at a cookie only where the listener has sent some itself in the last two minutes (Linux's
 * tcp_synq_no_recent_overflow), so a SYN a second is passed to it. From its answers tcx learns what to say (syncookie.h).
 */

#include <linux/tcp.h>

#include "sluice/syncookie.h"

#define SYN_PASS_INTERVAL  1000000000ll	 /* at least one SYN in so many ns reaches the listener */
#define SYN_LISTENER_ALIVE 10000000000ll /* one that sends no SYN-ACK for so long is not answered for */

/* The low bits of a cookie's TSval, as Linux's cookie_timestamp_decode reads them back. */
#define COOKIE_TS_WSCALE_NONE 0xf
#define COOKIE_TS_SACK	      0x10
#define COOKIE_TS_MASK	      0x3f

#define ANSWER_OPTIONS 20 /* bytes, at most */

/* State: the MAC address of each uplink, in the first six bytes. XDP sees frames for other hosts where the NIC takes all. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, INTERFACE_SLOTS);
	__type(key, __u32); /* ifindex */
	__type(value, __u64);
} uplink_macs SEC(".maps");

/* The addresses of workloads. Where nothing is answered it is empty. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, union addr);
	__type(value, __u8);
} workload_addrs SEC(".maps");

/* One answer in the making. */
struct syn {
	struct tcphdr tcp; /* the SYN's, then the SYN-ACK's */
	struct tcp_option_bytes options;
	struct tcp_options says;
	__u32 header; /* bytes of the TCP header, options included: 20 to 60 */
};

/*
 * Whether this SYN is one that the listener is to see: all, while it does not answer, and else the first after each interval, on
 * whichever CPU. For signed differences, a time that another CPU took a moment later is not in the far past.
 */
static __always_inline bool is_listeners_turn(struct syn_listener *l, __u64 now)
{
	bool silent = !l->answered_ns || (__s64)(now - l->answered_ns) > SYN_LISTENER_ALIVE;
	__u64 last = l->passed_ns;

	if ((__s64)(now - last) < SYN_PASS_INTERVAL)
		return silent;
	return explain || __sync_val_compare_and_swap(&l->passed_ns, last, now) == last || silent;
}

/*
 * Whether we know how the listener answers all that the client offers. Without timestamps, only an MSS survives a cookie.
 * With them the kernel refuses a cookie that says what the listener is set not to take (Linux's cookie_timestamp_decode),
 * and what none of its answers has shown yet, it may take: then it is to answer itself.
 */
static __always_inline bool is_known(const struct syn_listener *l, const struct tcp_options *offered)
{
	return l->mss &&
	       (!(offered->flags & LISTENER_TIMESTAMPS) || !(offered->flags & ~(l->flags | l->refused)));
}

/* Whether a frame is for the interface that it came in by: an answer in another host's name would confuse switches. */
static __always_inline bool is_for_us(const struct ethhdr *eth, __u32 ifindex)
{
	const __u8 *mac = bpf_map_lookup_elem(&uplink_macs, &ifindex);

	if (!mac)
		return false;
#pragma unroll
	for (int i = 0; i < ETH_ALEN; i++) {
		if (eth->h_dest[i] != mac[i])
			return false;
	}
	return true;
}

/*
 * Sources that no answer may go to: the kernel drops them, or has its own mind about them. What claims to come from
 * the box or from a workload is martian by an uplink and tcx drops it there, but not by a workload's VLAN of the same NIC:
 * tcx sees the interface, and XDP only the tag. So it passes.
 */
static __always_inline bool is_answerable(const struct ethhdr *eth, const struct packet *p)
{
	if (!is_for_us(eth, p->ifindex) || (eth->h_source[0] & 1)) /* a group's */
		return false;
	if (bpf_map_lookup_elem(&self, &p->src) || bpf_map_lookup_elem(&workload_addrs, &p->src))
		return false;
	if (p->family == 6)
		return p->src.byte[0] != 0xff &&
		       (p->src.half[0] || p->src.word[2] || bpf_ntohl(p->src.word[3]) > 1);
	return p->src.byte[12] != 0 && p->src.byte[12] != 127 && p->src.byte[12] < 224;
}

/* Writes the options that both know, as Linux orders them, and returns their length. now is CLOCK_MONOTONIC: the clock of tcp_timestamps 2. */
static __always_inline __u32 write_options(struct syn *s, const struct syn_listener *l, __u64 now)
{
	const struct tcp_options o = s->says;
	__u32 ts = now / 1000000, tsval; /* milliseconds, as TCP has them */
	__u8 *b = s->options.byte;

	b[0] = TCPOPT_MSS;
	b[1] = 4;
	b[2] = l->mss >> 8;
	b[3] = l->mss;
	__builtin_memset(b + 4, 0,
			 ANSWER_OPTIONS - 4); /* the client's: what becomes padding must not go back */
	if (!(o.flags & LISTENER_TIMESTAMPS))
		return 4;

	tsval = (ts & ~COOKIE_TS_MASK) |
		(o.flags & LISTENER_WINDOW_SCALE ? o.window_scale : COOKIE_TS_WSCALE_NONE) |
		(o.flags & LISTENER_SACK ? COOKIE_TS_SACK : 0);
	if ((__s32)(tsval - ts) > 0) /* never from the future */
		tsval -= COOKIE_TS_MASK + 1;
	tsval = bpf_htonl(tsval);
	b[4] = o.flags & LISTENER_SACK ? TCPOPT_SACK : TCPOPT_NOP;
	b[5] = o.flags & LISTENER_SACK ? 2 : TCPOPT_NOP;
	b[6] = TCPOPT_TIMESTAMPS;
	b[7] = 10;
	__builtin_memcpy(b + 8, &tsval, sizeof(tsval));
	__builtin_memcpy(b + 12, &o.tsval, sizeof(o.tsval));
	if (!(o.flags & LISTENER_WINDOW_SCALE))
		return 16;

	b[16] = TCPOPT_NOP;
	b[17] = TCPOPT_WSCALE;
	b[18] = 3;
	b[19] = l->window_scale;
	return 20;
}

static __always_inline __u16 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* The SYN's TCP header, options included. False where there is something about it that the kernel is to judge. */
static __always_inline bool read_syn(struct xdp_md *ctx, const struct packet *p, struct syn *s)
{
	__u64 options;

	/* IPv4 options and IPv6 extension headers are the kernel's; whole packets only. */
	if ((p->flags & PACKET_FRAGMENT) || p->l4 - p->l3 != (p->family == 4 ? 20 : 40))
		return false;
	if (bpf_xdp_load_bytes(ctx, p->l4, &s->tcp, sizeof(s->tcp)))
		return false;
	s->header = s->tcp.doff * 4;
	/* 64 bits and a mask, or the verifier does not follow the bound. */
	options = (s->header - sizeof(s->tcp)) & 0x3f;
	asm volatile("" : "+r"(options));
	if (!options)
		return true;
	if (options > MAX_TCP_OPTIONS ||
	    bpf_xdp_load_bytes(ctx, p->l4 + sizeof(s->tcp), s->options.byte, options))
		return false;
	parse_tcp_options(&s->options, options, &s->says);
	return !(s->says.flags & OPTION_SIGNED);
}

/* The kernel's cookie for this SYN, or negative. Helpers of kernel 6.0; the MSS of the client is in it. */
static __always_inline __s64 cookie_of(struct xdp_md *ctx, const struct packet *p, struct syn *s)
{
	void *l3 = (void *)(long)ctx->data + (p->l3 & 0x1f);
	__u64 header = s->header & 0x3f;

	asm volatile("" : "+r"(header));
	if (l3 + sizeof(struct ipv6hdr) > (void *)(long)ctx->data_end || header < sizeof(s->tcp) ||
	    header > sizeof(s->tcp) + MAX_TCP_OPTIONS)
		return -1;
	if (p->family == 4)
		return bpf_tcp_raw_gen_syncookie_ipv4(l3, &s->tcp, header);
	return bpf_tcp_raw_gen_syncookie_ipv6(l3, &s->tcp, header);
}

/* Makes the TCP header that of the SYN-ACK, with its checksum. */
static __always_inline void write_tcp(const struct packet *p, struct syn *s, const struct syn_listener *l,
				      __u32 cookie, __u64 now)
{
	struct tcphdr *tcp = &s->tcp;
	__be16 client = tcp->source;
	__u32 sum;

	s->header = sizeof(*tcp) + write_options(s, l, now);
	tcp->source = tcp->dest;
	tcp->dest = client;
	tcp->ack_seq = bpf_htonl(bpf_ntohl(tcp->seq) + 1);
	tcp->seq = bpf_htonl(cookie);
	((__u8 *)tcp)[12] =
		s->header / 4
		<< 4; /* data offset, no reserved bits: nor ECN, which a cookie would have to carry */
	((__u8 *)tcp)[13] = TCP_SYN | TCP_ACK;
	tcp->window = bpf_htons(l->window);
	tcp->urg_ptr = 0;
	tcp->check = 0;
	/* The pseudo header has both addresses, in either order; what precedes an IPv4 one here adds 0xffff, which is 0. */
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&p->src, sizeof(p->src) + sizeof(p->dst),
			    bpf_htons(s->header + IPPROTO_TCP));
	/* All that an answer may be long: what is not part of this one is zero. */
	tcp->check = fold(bpf_csum_diff(NULL, 0, (__be32 *)tcp, sizeof(*tcp) + ANSWER_OPTIONS, sum));
}

static __always_inline void write_ip4(struct iphdr *ip, __u32 length)
{
	__be32 client = ip->saddr;

	ip->saddr = ip->daddr;
	ip->daddr = client;
	ip->tos = 0;
	ip->tot_len = bpf_htons(length);
	ip->id = 0;
	ip->frag_off = bpf_htons(0x4000); /* DF */
	ip->ttl = 64;
	ip->check = 0;
	ip->check = fold(bpf_csum_diff(NULL, 0, (__be32 *)ip, sizeof(*ip), 0));
}

static __always_inline void write_ip6(struct ipv6hdr *ip, __u32 length)
{
	struct in6_addr client = ip->saddr;

	ip->saddr = ip->daddr;
	ip->daddr = client;
	*(__be32 *)ip = bpf_htonl(6u << 28); /* no traffic class, no flow label */
	ip->payload_len = bpf_htons(length - sizeof(*ip));
	ip->hop_limit = 64;
}

#define MIN_FRAME 60 /* Ethernet's, without the checksum */

/* Puts the SYN-ACK in the SYN's place. VLAN tags stay. Only before the first byte is written may it fail. */
static __always_inline enum reason write_frame(struct xdp_md *ctx, const struct packet *p, struct syn *s)
{
	__u32 length = p->l4 + s->header;
	__u32 frame = length < MIN_FRAME ? MIN_FRAME : length;
	__u64 body = (frame - p->l4) & 0x3f;
	struct ethhdr *eth;
	__u8 mac[ETH_ALEN];
	void *l3;

	if (bpf_xdp_adjust_tail(ctx, (int)(frame - p->len)))
		return REASON_SYN_COOKIE_PASS;
	eth = (void *)(long)ctx->data;
	l3 = (void *)eth + (p->l3 & 0x1f);
	if ((void *)(eth + 1) > (void *)(long)ctx->data_end ||
	    l3 + sizeof(struct ipv6hdr) > (void *)(long)ctx->data_end)
		return REASON_INTERNAL;
	__builtin_memcpy(mac, eth->h_source, ETH_ALEN);
	__builtin_memcpy(eth->h_source, eth->h_dest, ETH_ALEN);
	__builtin_memcpy(eth->h_dest, mac, ETH_ALEN);
	if (p->family == 4)
		write_ip4(l3, length - p->l3);
	else
		write_ip6(l3, length - p->l3);
	asm volatile("" : "+r"(body));
	if (body < sizeof(s->tcp) || body > sizeof(s->tcp) + MAX_TCP_OPTIONS)
		return REASON_INTERNAL;
	return bpf_xdp_store_bytes(ctx, p->l4, &s->tcp, body) ? REASON_INTERNAL : REASON_SYN_COOKIE;
}

/*
 * Whether the listener's host may know these two ends from before. A SYN opens a connection in TIME_WAIT anew (RFC 6191), and
 * an ACK with a cookie does not: the client would hold for open what the host takes for an old duplicate. A proven flow counts, one
 * that is closed too, and one that found no room among them: who spoofs gets past here with no tuple but one that had a real
 * connection, whose ACKs pass as well.
 */
static __noinline int is_known_pair(const struct packet *p)
{
	struct flow_key key;
	struct flow *flow;

	if (!p)
		return 0;
	flow_key(p, &key);
	if (bpf_map_lookup_elem(&flows, &key))
		return 1;
	flow = bpf_map_lookup_elem(&fresh_in, &key);
	return flow && flow->state >= FLOW_ESTABLISHED;
}

/*
 * What becomes of a TCP packet that a rule with syn_cookie accepts: an answer to a SYN, or on to the kernel. Global: its
 * stack is its own.
 */
__noinline int answer_syn(struct xdp_md *ctx, const struct packet *p)
{
	struct syn_listener_key key;
	struct syn_listener *l;
	struct syn s = {};
	struct ethhdr *eth;
	__s64 cookie;
	__u64 now;

	if (!p || (p->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) != TCP_SYN)
		return REASON_SYN_COOKIE_PASS;
	syn_listener_key(&key, &p->dst, p->dport);
	l = bpf_map_lookup_elem(&syn_listeners, &key);
	eth = (void *)(long)ctx->data;
	if (!l || (void *)(eth + 1) > (void *)(long)ctx->data_end)
		return REASON_SYN_COOKIE_PASS;
	/* What the listener may never answer must not take its turn. */
	if (!is_answerable(eth, p) || !read_syn(ctx, p, &s))
		return REASON_SYN_COOKIE_PASS;
	now = bpf_ktime_get_ns();
	if (is_listeners_turn(l, now) || !is_known(l, &s.says) || is_known_pair(p))
		return REASON_SYN_COOKIE_PASS;
	cookie = cookie_of(ctx, p, &s);
	if (cookie < 0)
		return REASON_SYN_COOKIE_PASS;
	if (explain)
		return REASON_SYN_COOKIE;
	/* Without what is refused, though it was seen a moment ago: to leave an option out is always right. */
	s.says.flags &= l->flags & ~l->refused;
	write_tcp(p, &s, l, cookie, now);
	return write_frame(ctx, p, &s);
}
