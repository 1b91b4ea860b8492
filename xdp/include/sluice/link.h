/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* What keeps the link itself alive. It is never dropped, at no hook. */

#include "parse.h"

#define ETH_P_LACP 0x8809 /* slow protocols: LACP, marker, OAM (802.3 annex 57A) */

/*
 * A neighbour proves that it is on the link by a hop limit that no router leaves standing: 255 (RFC 4861 section 7.1),
 * or 1 from a link-local or unspecified source (MLD: RFC 2710 section 3, RFC 3810 section 5). RFC 6980 forbids fragments.
 */
static __always_inline bool is_neighbour_control(const struct packet *p)
{
	if (p->family != 6 || p->protocol != IPPROTO_ICMPV6 || (p->flags & PACKET_FRAGMENT))
		return false;
	switch (p->icmp_type) {
	case 133 ... 137: /* ND: solicitations, advertisements, redirect */
		return p->ttl == 255;
	case 130 ... 132: /* MLDv1 */
	case 143:	  /* MLDv2 report */
		return p->ttl == 1 && ((p->src.word[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000) ||
				       !(p->src.half[0] | p->src.half[1]));
	default:
		return false;
	}
}

/* What keeps the link itself alive, and what policy cannot judge. REASON_NONE: an IP packet that is neither. */
static __always_inline enum reason link_control(const struct packet *p)
{
	if (p->family)
		return is_neighbour_control(p) ? REASON_LINK_CONTROL : REASON_NONE;
	if (bpf_ntohs(p->ethertype) < ETH_P_802_3_MIN) /* a length: LLC, and so STP */
		return REASON_LINK_CONTROL;
	switch (p->ethertype) {
	case bpf_htons(ETH_P_ARP):
	case bpf_htons(ETH_P_LLDP):
	case bpf_htons(ETH_P_LACP):
		return REASON_LINK_CONTROL;
	default:
		return REASON_UNKNOWN_ETHERTYPE;
	}
}
