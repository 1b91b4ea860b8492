/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/*
 * What tunnels need: the guard of strict ones, which stands wherever plaintext could leave the box; the MSS of what goes through them;
 * and where a packet begins that came out of one.
 */

#include <sluice/syncookie.h>

#include "policy.h"

/* The kernel's, as far as it is read here: where the field stands is found when the program is loaded. */
struct sk_buff {
	__u16 mac_len;
} __attribute__((preserve_access_index));
extern void *bpf_cast_to_kern_ctx(void *ctx) __ksym;

/*
 * Whether a packet that came out of a tunnel still has the link header of the encrypted one, with the MAC addresses of the wire, as ESP
 * leaves it where the underlay is Ethernet. WireGuard and TUN have none, nor has ESP over PPP: so it is not the device that says it.
 */
static __always_inline bool has_link_header(struct __sk_buff *skb)
{
	struct sk_buff *kernel = bpf_cast_to_kern_ctx(skb);

	return kernel->mac_len == ETH_HLEN;
}

/* Whether plaintext to a destination must not leave by an interface. */
static __always_inline bool is_strict(const struct packet *p, __u32 out)
{
	__u32 *plain;

	if (p->family == 4) {
		struct prefix4_key key = {.prefixlen = 32, .addr = p->dst.word[3]};

		plain = bpf_map_lookup_elem(&strict4, &key);
	} else {
		struct prefix6_key key = {.prefixlen = 128};

		__builtin_memcpy(key.addr, &p->dst, sizeof(key.addr));
		plain = bpf_map_lookup_elem(&strict6, &key);
	}
	return plain && *plain != PLAIN_ANYWHERE && *plain != out;
}

/*
 * Whether plaintext is about to leave that a strict tunnel is to carry, whoever sends it and whatever route leads there. A workload is on this
 * box. A tunnel that does not encrypt is a wire like others. Answers of management: leave by its interface, or a prefix too wide
 * would cut the operator off.
 */
static __always_inline bool leaks(const struct __sk_buff *skb, struct view *v, enum role role)
{
	if (!has_strict || role == ROLE_WORKLOAD || (skb->mark & MARK_UNDERLAY))
		return false;
	if (role == ROLE_TUNNEL && (v->on.flags & INTERFACE_ENCRYPTED))
		return false;
	if (!is_strict(&v->p, skb->ifindex))
		return false;
	if (role != ROLE_MANAGEMENT || skb->ingress_ifindex)
		return true;
	begin_judging(v);
	return !answers_failsafe(v);
}

/* ---- the MSS ---- */

struct mss_option {
	__u8 kind;
	__u8 size;
	__be16 mss;
};

/* Where the MSS option of a SYN begins, which is read into o; 0: it has none. What does not parse ends the list, as in the kernel. */
static __always_inline __u32 find_mss(struct __sk_buff *skb, const struct packet *p, struct mss_option *o)
{
	__u32 at = p->l4 + sizeof(struct tcphdr), end, found = 0;
	struct bpf_iter_num it;
	__u8 words; /* the upper four bits: of the header */

	if (bpf_skb_load_bytes(skb, p->l4 + 12, &words, 1))
		return 0;
	end = p->l4 + (words >> 4) * 4;
	bpf_iter_num_new(&it, 0, MAX_TCP_OPTIONS);
	while (bpf_iter_num_next(&it)) {
		if (at + sizeof(*o) > end || bpf_skb_load_bytes(skb, at, o, sizeof(*o)))
			break;
		if (o->kind == TCPOPT_MSS && o->size == sizeof(*o)) {
			found = at;
			break;
		}
		if (o->kind == TCPOPT_END || (o->kind != TCPOPT_NOP && o->size < 2))
			break;
		at += o->kind == TCPOPT_NOP ? 1 : o->size;
	}
	bpf_iter_num_destroy(&it);
	return found;
}

/* Writes another MSS. The sum is over words of the header: in an option that begins at an odd byte each half of it is in another. */
static __always_inline bool set_mss(struct __sk_buff *skb, const struct packet *p, __u32 at, __be16 from,
				    __be16 to)
{
	bool odd = (at - p->l4) & 1;
	__be16 was = odd ? __builtin_bswap16(from) : from, is = odd ? __builtin_bswap16(to) : to;

	return !bpf_l4_csum_replace(skb, p->l4 + offsetof(struct tcphdr, check), was, is, sizeof(is)) &&
	       !bpf_skb_store_bytes(skb, at + offsetof(struct mss_option, mss), &to, sizeof(to), 0);
}

/*
 * Lowers the MSS of a SYN to what the MTU of the hook's interface carries, as that is now (RFC 6691: without the options of either header). ICMP
 * that says a packet is too big may be filtered anywhere on the way. A SYN without the option allows 536 or 1220 bytes, which
 * fit. Returns the new value, or 0 where it stays. Global: few packets are SYNs.
 */
__noinline int clamp_mss(struct __sk_buff *skb, const struct packet *p)
{
	struct mss_option o = {};
	__u32 mtu = 0, headers, at;

	if (!p)
		return 0;
	at = find_mss(skb, p, &o);
	if (!at || bpf_check_mtu(skb, 0, &mtu, 0, 0) < 0)
		return 0;
	headers = (p->family == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr)) + sizeof(struct tcphdr);
	if (mtu <= headers || bpf_ntohs(o.mss) <= mtu - headers)
		return 0;
	if (!explain && !set_mss(skb, p, at, o.mss, bpf_htons(mtu - headers)))
		return 0;
	return mtu - headers;
}

/*
 * Last at both hooks of a tunnel: what is said to either end counts for what that one sends. No SYN takes the short way, and what is
 * redirected into a tunnel meets its egress hook.
 */
static __always_inline int clamp_what_passes(struct __sk_buff *skb, struct view *v, enum role role, int fate)
{
	const struct packet *p = &v->p;

	if (role == ROLE_TUNNEL && fate != TCX_DROP && (v->on.flags & INTERFACE_CLAMP) &&
	    p->protocol == IPPROTO_TCP && (p->flags & PACKET_PORTS) && (p->tcp_flags & TCP_SYN))
		v->mss = clamp_mss(skb, p);
	return fate;
}
