/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/*
 * The parser: a cursor that never passes the end, one small function per header. Each returns a reason; REASON_NONE
 * means go on. The XDP and the tcx programs share it.
 */

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"
#include "reason.h"

/*
 * Before including this file a program defines PARSE_CTX, its context type, and load_bytes(ctx, offset, to, len), which
 * returns 0 or an error: bpf_xdp_load_bytes or bpf_skb_load_bytes.
 */
#ifndef PARSE_CTX
#error "define PARSE_CTX and load_bytes"
#endif

#define MAX_VLAN_TAGS	   2
#define MAX_IP6_EXTENSIONS 6
#define MAX_L4_OFFSET	   0xfff

#ifndef IPPROTO_SCTP
#define IPPROTO_SCTP 132
#endif

struct cursor {
	void *start; /* of the frame */
	void *pos;
	void *end;
};

/* What the parser learned. Offsets count from the first byte of the frame. */
struct packet {
	union addr src;
	union addr dst;
	__be16 sport; /* TCP, UDP, SCTP; of an ICMP echo who asked has the id, the other 0 */
	__be16 dport;
	__u32 len;	  /* bytes of the whole frame, as counters have them */
	__u32 l3_len;	  /* IPv4 total length, or IPv6 payload length + 40, which 16 bits do not hold */
	__be16 ethertype; /* of the innermost header after VLAN tags */
	__u16 vlan;	  /* outermost tag's VLAN id; 0: none */
	__u16 l3;	  /* offset of the IP header */
	__u16 l4;	  /* offset of the transport header; 0: none to be seen */
	__u8 protocol;	  /* last header of the chain */
	__u8 family;	  /* 4, 6, or 0: not IP */
	__u8 ttl;	  /* or hop limit */
	__u8 flags;	  /* PACKET_* */
	__u8 icmp_type;	  /* with PACKET_ICMP */
	__u8 tcp_flags;	  /* byte 13 of the TCP header */
	__u8 icmp_code;
	__u8 dscp;	/* upper six bits of IPv4's TOS or IPv6's traffic class (RFC 2474) */
	__u32 ifindex;	/* of the hook: where it came in, at tcx egress where it leaves. Set by the program */
	__u16 segments; /* that one buffer stands for (GSO, GRO); 0 or 1: it is one packet */
};
#define PACKET_FRAGMENT	  1  /* any fragment */
#define PACKET_NON_FIRST  2  /* a fragment without the transport header */
#define PACKET_PORTS	  4  /* sport and dport are ports */
#define PACKET_ICMP_ERROR 8  /* an ICMP error that may quote a packet */
#define PACKET_ECHO	  16 /* an echo request or reply: sport and dport make a flow key */
#define PACKET_ICMP	  32 /* icmp_type and icmp_code are those of the family's own ICMP */
#define PACKET_TURNED	  64 /* the other direction of one, only asked about: rules do not count it */

struct vlan_header {
	__be16 tci;
	__be16 ethertype;
};

struct ports {
	__be16 source;
	__be16 dest;
};

/* Also the first eight bytes of every other extension header, whose second byte is its length. */
struct ip6_fragment {
	__u8 next;
	__u8 reserved;
	__be16 offset_flags; /* 13 bits of offset, 2 reserved, 1 more */
	__be32 id;
};

/* ICMP and ICMPv6 share the first eight bytes. */
struct icmp_header {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be16 id; /* of echo */
	__be16 sequence;
};

/*
 * Bytes of the IP packet. A buffer of many segments (GSO, GRO) may be longer than the field holds, and then has 0 there
 * (BIG TCP: IPv6 with a jumbogram's header, IPv4 from 6.3 on). Of a quoted packet len is 0: it says no more than the field.
 */
static __always_inline __u32 ip_length(const struct packet *p, __u32 field, __u32 header)
{
	return !field && p->len > p->l3 + header + 0xffff ? p->len - p->l3 : field + header;
}

/* Takes size bytes off the cursor, or returns NULL. size is a constant of the caller. */
static __always_inline void *take(struct cursor *c, __u32 size)
{
	void *at = c->pos;

	if (at + size > c->end)
		return NULL;
	c->pos = at + size;
	return at;
}

static __always_inline void addr_from_ip4(union addr *a, __be32 ip)
{
	a->half[0] = 0;
	/* One store: a processor that forwards stores to loads does not join two of them. */
	a->half[1] = bpf_cpu_to_be64(0xffffull << 32 | bpf_ntohl(ip));
}

static __always_inline void addr_from_ip6(union addr *a, const struct in6_addr *ip)
{
	__builtin_memcpy(a, ip, sizeof(*a));
}

/* Whether an address is one of IPv4 as union addr has it. */
static __always_inline bool is_mapped(const union addr *a)
{
	return !a->half[0] && a->word[2] == bpf_htonl(0xffff);
}

static __always_inline enum reason parse_ethernet(struct cursor *c, struct packet *p)
{
	struct ethhdr *eth = take(c, sizeof(*eth));

	if (!eth)
		return REASON_ETH_TRUNCATED;
	p->ethertype = eth->h_proto;
	p->l3 = sizeof(*eth);

#pragma unroll
	for (int i = 0; i <= MAX_VLAN_TAGS; i++) {
		struct vlan_header *vlan;

		if (p->ethertype != bpf_htons(ETH_P_8021Q) && p->ethertype != bpf_htons(ETH_P_8021AD))
			return REASON_NONE;
		if (i == MAX_VLAN_TAGS)
			return REASON_VLAN_TOO_DEEP;
		vlan = take(c, sizeof(*vlan));
		if (!vlan)
			return REASON_VLAN_TRUNCATED;
		if (i == 0)
			p->vlan = bpf_ntohs(vlan->tci) & 0xfff;
		p->ethertype = vlan->ethertype;
		p->l3 += sizeof(*vlan);
	}
	return REASON_NONE;
}

static __always_inline enum reason parse_ip4(struct cursor *c, struct packet *p)
{
	struct iphdr *ip = c->pos;
	__u16 fragment;
	__u32 header;

	if ((void *)(ip + 1) > c->end)
		return REASON_IP4_TRUNCATED;
	header = ip->ihl * 4;
	p->l3_len = ip_length(p, bpf_ntohs(ip->tot_len), 0); /* which counts the header */
	if (ip->version != 4 || header < sizeof(*ip) || p->l3_len < header)
		return REASON_IP4_MALFORMED;
	if (c->pos + header > c->end)
		return REASON_IP4_TRUNCATED;

	addr_from_ip4(&p->src, ip->saddr);
	addr_from_ip4(&p->dst, ip->daddr);
	p->family = 4;
	p->protocol = ip->protocol;
	p->ttl = ip->ttl;
	p->dscp = ip->tos >> 2;
	fragment = bpf_ntohs(ip->frag_off);
	if (fragment & 0x3fff) { /* MF, or an offset in units of 8 bytes */
		p->flags |= PACKET_FRAGMENT;
		if (fragment & 0x1fff)
			p->flags |= PACKET_NON_FIRST;
	}
	p->l4 = p->l3 + header;
	c->pos += header;
	return REASON_NONE;
}

static __always_inline bool is_ip6_extension(__u8 protocol)
{
	return protocol == IPPROTO_HOPOPTS || protocol == IPPROTO_ROUTING || protocol == IPPROTO_DSTOPTS ||
	       protocol == IPPROTO_AH || protocol == IPPROTO_FRAGMENT;
}

/*
 * Follows the chain of extension headers from p->l4 and p->protocol on, leaving both behind it. Global and reading
 * through a helper: as packet pointers the loop has too many states for the verifier, and chains are rare.
 */
__noinline int parse_ip6_extensions(PARSE_CTX *ctx, struct packet *p)
{
	if (!p)
		return REASON_INTERNAL;
	for (int i = 0; i < MAX_IP6_EXTENSIONS; i++) {
		struct ip6_fragment ext; /* eight bytes: the least that any extension header has */
		__u8 here = p->protocol;

		if (load_bytes(ctx, p->l4, &ext, sizeof(ext)))
			return REASON_IP6_EXT_TRUNCATED;
		p->protocol = ext.next;
		if (here == IPPROTO_FRAGMENT) {
			p->l4 += sizeof(ext);
			/* An atomic fragment (RFC 6946: offset 0, no more) is a whole packet. */
			if (ext.offset_flags & bpf_htons(0xfff9))
				p->flags |= PACKET_FRAGMENT;
			if (ext.offset_flags & bpf_htons(0xfff8)) {
				p->flags |= PACKET_NON_FIRST;
				return REASON_NONE; /* what follows is payload */
			}
		} else if (here == IPPROTO_AH) {
			p->l4 += (ext.reserved + 2) * 4; /* RFC 4302: words, less two */
		} else {
			p->l4 += (ext.reserved + 1) * 8; /* RFC 8200: eight bytes each, without the first */
		}
		if (!is_ip6_extension(p->protocol))
			return REASON_NONE;
	}
	return REASON_IP6_EXT_TOO_MANY;
}

/* The fixed header only; p->protocol is its next header. */
static __always_inline enum reason parse_ip6(struct cursor *c, struct packet *p)
{
	struct ipv6hdr *ip = take(c, sizeof(*ip));

	if (!ip)
		return REASON_IP6_TRUNCATED;
	if (ip->version != 6)
		return REASON_IP6_MALFORMED;
	addr_from_ip6(&p->src, &ip->saddr);
	addr_from_ip6(&p->dst, &ip->daddr);
	/* Keys have no family: this would pass for the IPv4 address, with the workload, the flow and the self behind it. */
	if (is_mapped(&p->src) || is_mapped(&p->dst))
		return REASON_IP6_MAPPED;
	p->family = 6;
	p->ttl = ip->hop_limit;
	p->dscp = (ip->priority << 2 | ip->flow_lbl[0] >> 6) & 0x3f; /* the traffic class less its ECN bits */
	p->l3_len = ip_length(p, bpf_ntohs(ip->payload_len), sizeof(*ip));
	p->l4 = p->l3 + sizeof(*ip);
	p->protocol = ip->nexthdr;
	return REASON_NONE;
}

/* As take(), but never into the padding behind the IP packet. */
static __always_inline void *take_l4(struct cursor *c, const struct packet *p, __u32 size)
{
	if ((__u32)p->l4 - p->l3 + size > p->l3_len)
		return NULL;
	return take(c, size);
}

/* Whether length bytes from the transport header on are more than the IP packet holds. A fragment holds a part only. */
static __always_inline bool overruns(const struct packet *p, __u32 length)
{
	return !(p->flags & PACKET_FRAGMENT) && (__u32)p->l4 - p->l3 + length > p->l3_len;
}

static __always_inline enum reason truncated_l4(const struct packet *p)
{
	return p->flags & PACKET_FRAGMENT ? REASON_FRAGMENT_TINY : REASON_L4_TRUNCATED;
}

static __always_inline enum reason parse_icmp(struct cursor *c, struct packet *p)
{
	struct icmp_header *icmp = take_l4(c, p, sizeof(*icmp));
	bool request, reply;

	if (!icmp)
		return truncated_l4(p);
	p->icmp_type = icmp->type;
	p->icmp_code = icmp->code;
	p->flags |= PACKET_ICMP;
	if (p->protocol == IPPROTO_ICMP) {
		request = icmp->type == 8;
		reply = icmp->type == 0;
		/* unreachable, time exceeded, parameter problem; a redirect is never trusted */
		if (icmp->type == 3 || icmp->type == 11 || icmp->type == 12)
			p->flags |= PACKET_ICMP_ERROR;
	} else {
		request = icmp->type == 128;
		reply = icmp->type == 129;
		if (icmp->type >= 1 && icmp->type <= 4)
			p->flags |= PACKET_ICMP_ERROR;
	}
	if (request || reply) {
		p->flags |= PACKET_ECHO;
		p->sport = request ? icmp->id : 0;
		p->dport = request ? 0 : icmp->id;
	}
	return REASON_NONE;
}

static __always_inline enum reason parse_tcp(struct cursor *c, struct packet *p)
{
	__u8 *tcp = take_l4(c, p, 20);
	struct ports *ports = (void *)tcp;
	__u32 header;

	if (!tcp)
		return truncated_l4(p);
	header = (tcp[12] >> 4) * 4;
	if (header < 20 || overruns(p, header))
		return REASON_L4_MALFORMED;
	p->tcp_flags = tcp[13];
	p->sport = ports->source;
	p->dport = ports->dest;
	p->flags |= PACKET_PORTS;
	return REASON_NONE;
}

/* UDP and SCTP: size is that of the header. */
static __always_inline enum reason parse_ports(struct cursor *c, struct packet *p, __u32 size)
{
	__be16 *header = take_l4(c, p, size);
	__u32 length;

	if (!header)
		return truncated_l4(p);
	if (p->protocol == IPPROTO_UDP) {
		length = bpf_ntohs(header[2]);
		if (length < size || overruns(p, length))
			return REASON_L4_MALFORMED;
	}
	p->sport = header[0];
	p->dport = header[1];
	p->flags |= PACKET_PORTS;
	return REASON_NONE;
}

static __always_inline enum reason parse_l4(struct cursor *c, struct packet *p)
{
	if (p->flags & PACKET_NON_FIRST) {
		p->l4 = 0;
		return REASON_NONE;
	}
	switch (p->protocol) {
	case IPPROTO_TCP:
		return parse_tcp(c, p);
	case IPPROTO_UDP:
	case IPPROTO_UDPLITE:
		return parse_ports(c, p, 8);
	case IPPROTO_SCTP:
		return parse_ports(c, p, 12);
	case IPPROTO_ICMP:
		return p->family == 4 ? parse_icmp(c, p) : REASON_NONE;
	case IPPROTO_ICMPV6:
		return p->family == 6 ? parse_icmp(c, p) : REASON_NONE;
	case IPPROTO_GRE:
		return take_l4(c, p, 4) ? REASON_NONE : truncated_l4(p);
	case IPPROTO_ESP:
		return take_l4(c, p, 8) ? REASON_NONE : truncated_l4(p);
	default:
		return REASON_NONE;
	}
}

/*
 * Parses from the IP header on. p->ethertype says which; p->family stays 0 for what is not IP. The length fields are
 * trusted only as far as the frame reaches: p->len is set by the caller and includes frags.
 */
static __always_inline enum reason parse_l3(PARSE_CTX *ctx, struct cursor *c, struct packet *p)
{
	enum reason reason;

	if (p->ethertype == bpf_htons(ETH_P_IP))
		reason = parse_ip4(c, p);
	else if (p->ethertype == bpf_htons(ETH_P_IPV6))
		reason = parse_ip6(c, p);
	else
		return REASON_NONE;
	if (reason != REASON_NONE)
		return reason;
	if ((__u32)p->l3 + p->l3_len > p->len)
		return p->family == 4 ? REASON_IP4_TRUNCATED : REASON_IP6_TRUNCATED;
	if (p->family == 6 && is_ip6_extension(p->protocol)) {
		reason = parse_ip6_extensions(ctx, p);
		if (reason != REASON_NONE)
			return reason;
		if (p->l4 > MAX_L4_OFFSET)
			return REASON_IP6_EXT_TOO_MANY;
		if ((__u32)p->l4 - p->l3 > p->l3_len) /* headers in what is padding to every router */
			return REASON_IP6_EXT_TRUNCATED;
		c->pos = c->start +
			 (p->l4 & MAX_L4_OFFSET); /* the mask tells the verifier what the test told us */
		if (c->pos > c->end)
			return REASON_IP6_EXT_TRUNCATED;
	}
	return parse_l4(c, p);
}
