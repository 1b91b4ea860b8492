/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/*
 * Other addresses and ports in a packet, with every checksum that covers them. What the NIC has summed up (CHECKSUM_COMPLETE) and
 * what it is to sum up (CHECKSUM_PARTIAL: then the field holds the pseudo header's part alone) stays right: the helpers know
 * which by BPF_F_PSEUDO_HDR. All return false where a write failed; the packet is then spoilt.
 */

#include "packet.h"

/* Where a transport checksum that covers the addresses stands, or 0. SCTP's (RFC 9260 section 6.8) and GRE's do not. */
static __always_inline __u32 checksum_at(__u8 protocol, __u8 family)
{
	switch (protocol) {
	case IPPROTO_TCP:
		return 16;
	case IPPROTO_UDP:
	case IPPROTO_UDPLITE:
	case IPPROTO_DCCP:
		return 6;
	case IPPROTO_ICMPV6:
		return family == 6 ? 2 : 0;
	default:
		return 0;
	}
}

/* A UDP checksum of zero is none (RFC 768) and stays so; one that comes out as zero is written as all ones. */
static __always_inline __u64 checksum_flags(__u8 protocol)
{
	return protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
}

/* The source or the destination of the IP header. A later fragment has no transport header: p->l4 is 0. */
static __always_inline bool set_address(struct __sk_buff *skb, const struct packet *p, bool source,
					const union addr *to)
{
	const union addr *from = source ? &p->src : &p->dst;
	__u32 check = p->l4 ? checksum_at(p->protocol, p->family) : 0;
	__u64 flags = BPF_F_PSEUDO_HDR | checksum_flags(p->protocol);

	if (p->family == 4) {
		__u32 at = p->l3 + (source ? offsetof(struct iphdr, saddr) : offsetof(struct iphdr, daddr));
		__be32 old = from->word[3], new = to->word[3];

		if (check && bpf_l4_csum_replace(skb, p->l4 + check, old, new, flags | sizeof(new)))
			return false;
		return !bpf_l3_csum_replace(skb, p->l3 + offsetof(struct iphdr, check), old, new,
					    sizeof(new)) &&
		       !bpf_skb_store_bytes(skb, at, &new, sizeof(new), 0);
	}
	__u32 at = p->l3 + (source ? offsetof(struct ipv6hdr, saddr) : offsetof(struct ipv6hdr, daddr));
	__s64 diff = bpf_csum_diff((__be32 *)from, sizeof(*from), (__be32 *)to, sizeof(*to), 0);

	if (diff < 0 || (check && bpf_l4_csum_replace(skb, p->l4 + check, 0, diff, flags)))
		return false;
	/* No header checksum makes up for the change in what the NIC summed up, as IPv4's does. */
	return !bpf_skb_store_bytes(skb, at, to, sizeof(*to), BPF_F_RECOMPUTE_CSUM);
}

static __always_inline bool is_icmp(__u8 protocol)
{
	return protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6;
}

/* Whether ports, or the id of an echo, can be others. SCTP's checksum (CRC32c) covers them and the whole packet. */
static __always_inline bool has_free_port(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_UDPLITE ||
	       is_icmp(protocol);
}

/* Where a port, or the id of an echo, stands in the transport header. */
static __always_inline __u32 port_at(__u8 protocol, bool source)
{
	if (is_icmp(protocol))
		return offsetof(struct icmp_header, id);
	return source ? 0 : 2;
}

/* The source or destination port, or the id of an echo. */
static __always_inline bool set_port(struct __sk_buff *skb, const struct packet *p, bool source, __be16 from,
				     __be16 to)
{
	__u32 check = p->protocol == IPPROTO_ICMP ? 2 : checksum_at(p->protocol, p->family);

	if (from == to)
		return true;
	return !bpf_l4_csum_replace(skb, p->l4 + check, from, to, checksum_flags(p->protocol) | sizeof(to)) &&
	       !bpf_skb_store_bytes(skb, p->l4 + port_at(p->protocol, source), &to, sizeof(to), 0);
}

/* Sums of 16-bit words as bpf_csum_diff() gives them; RFC 1624. */
static __always_inline __u32 sum_diff(__be16 from, __be16 to, __u32 sum)
{
	__u64 total = (__u64)sum + (__u16)~from + to;

	return (total & 0xffffffff) + (total >> 32);
}

static __always_inline __be16 checksum_after(__be16 check, __u32 diff)
{
	__u32 sum = (__u16)~check;

	sum += (diff & 0xffff) + (diff >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* Adds a difference to the 16-bit checksum at an offset, and what that changes to sum. */
static __always_inline bool fix_checksum(struct __sk_buff *skb, __u32 at, __u32 diff, bool udp, __u32 *sum)
{
	__be16 old, new;

	if (bpf_skb_load_bytes(skb, at, &old, sizeof(old)))
		return false;
	if (udp && !old)
		return true;
	new = checksum_after(old, diff);
	if (udp && !new)
		new = 0xffff;
	*sum = sum_diff(old, new, *sum);
	return !bpf_skb_store_bytes(skb, at, &new, sizeof(new), 0);
}

/* What an ICMP error quotes, and what is to stand there instead. */
struct quote {
	union addr from, to;
	__be16 port_from, port_to;
	__u8 protocol;
	bool source; /* of the quoted packet; else its destination */
};

/* The offset of the transport header in the quoted packet; 0: not to be found. */
static __always_inline __u32 quoted_l4(struct __sk_buff *skb, const struct packet *p, __u32 l3)
{
	struct packet inner = {.l4 = l3 + sizeof(struct ipv6hdr)};
	__u8 first;

	if (p->family == 4)
		return bpf_skb_load_bytes(skb, l3, &first, 1) ? 0 : l3 + (first & 0xf) * 4;
	if (bpf_skb_load_bytes(skb, l3 + offsetof(struct ipv6hdr, nexthdr), &inner.protocol, 1))
		return 0;
	if (is_ip6_extension(inner.protocol) && parse_ip6_extensions(skb, &inner) != REASON_NONE)
		return 0;
	return inner.l4;
}

/* Port and transport checksum of the quoted packet, as far as they are quoted. */
static __always_inline bool set_quoted_port(struct __sk_buff *skb, const struct packet *p,
					    const struct quote *q, __u32 l4, __u32 diff, __u32 *sum)
{
	__u32 check = q->protocol == IPPROTO_ICMP ? 2 : checksum_at(q->protocol, p->family);

	if (q->protocol == IPPROTO_ICMP) /* its checksum does not cover the addresses */
		diff = 0;
	if (has_free_port(q->protocol) && q->port_from != q->port_to) {
		diff = sum_diff(q->port_from, q->port_to, diff);
		*sum = sum_diff(q->port_from, q->port_to, *sum);
		if (bpf_skb_store_bytes(skb, l4 + port_at(q->protocol, q->source), &q->port_to,
					sizeof(q->port_to), 0))
			return false;
	}
	if (!check || l4 + check + 2 > (__u32)p->l3 + p->l3_len)
		return true;
	return fix_checksum(skb, l4 + check, diff, q->protocol == IPPROTO_UDP, sum);
}

/*
 * Another address and port in the packet that an ICMP error quotes, with the checksums in there and that of the error itself,
 * which covers it all.
 */
static __always_inline bool set_quoted(struct __sk_buff *skb, const struct packet *p, const struct quote *q)
{
	__u32 l3 = p->l4 + sizeof(struct icmp_header), at, l4 = quoted_l4(skb, p, l3), sum = 0;
	__s64 diff;

	if (!l4)
		return false;
	diff = bpf_csum_diff((__be32 *)&q->from, sizeof(q->from), (__be32 *)&q->to, sizeof(q->to), 0);
	if (diff < 0)
		return false;
	sum = diff;
	if (p->family == 4) {
		at = l3 + (q->source ? offsetof(struct iphdr, saddr) : offsetof(struct iphdr, daddr));
		if (bpf_skb_store_bytes(skb, at, &q->to.word[3], sizeof(__be32), 0) ||
		    !fix_checksum(skb, l3 + offsetof(struct iphdr, check), diff, false, &sum))
			return false;
	} else {
		at = l3 + (q->source ? offsetof(struct ipv6hdr, saddr) : offsetof(struct ipv6hdr, daddr));
		if (bpf_skb_store_bytes(skb, at, &q->to, sizeof(q->to), 0))
			return false;
	}
	return set_quoted_port(skb, p, q, l4, diff, &sum) &&
	       !bpf_l4_csum_replace(skb, p->l4 + offsetof(struct icmp_header, checksum), 0, sum, 0);
}
