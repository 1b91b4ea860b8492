/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* Whether an entry matches a packet, every condition of it asked. Its parts have their names in the Go model. */

#include "abi.h"
#include "parse.h"
#include "prefix.h"

static __always_inline bool in_ports(const struct port_range *range, __be16 port)
{
	return bpf_ntohs(port) >= range->first && bpf_ntohs(port) <= range->last;
}

static __always_inline bool in_classes(const struct class_range *range, __u32 class)
{
	return (class & CLASS_NUMBER) >= range->first && (class & CLASS_NUMBER) <= range->last;
}

static __always_inline bool match_fragment(__u8 wanted, __u8 flags)
{
	switch (wanted) {
	case FRAGMENT_NO:
		return !(flags & PACKET_FRAGMENT);
	case FRAGMENT_YES:
		return flags & PACKET_FRAGMENT;
	case FRAGMENT_INITIAL:
		return (flags & (PACKET_FRAGMENT | PACKET_NON_FIRST)) == PACKET_FRAGMENT;
	case FRAGMENT_LATER:
		return flags & PACKET_NON_FIRST;
	default:
		return true;
	}
}

/*
 * What a rule says beside addresses, protocol and the transport header. Only asked where RULE_REST. New conditions that
 * every fragment shows come here.
 */
static __always_inline bool match_rest(const struct rule *r, const struct packet *p)
{
	__u32 length = p->l3_len < 0xffff ? p->l3_len : 0xffff; /* IPv6 may be longer */

	if (r->ttl && r->ttl != p->ttl)
		return false;
	if (r->ifindex && r->ifindex != p->ifindex)
		return false;
	if (r->dscp && !(r->dscp >> (p->dscp & 0x3f) & 1))
		return false;
	if ((r->flags & RULE_VLAN) && (p->vlan < r->vlan_first || p->vlan > r->vlan_last))
		return false;
	if ((r->flags & RULE_LENGTH) && (length < r->length_first || length > r->length_last))
		return false;
	return match_fragment(r->fragment, p->flags);
}

/* TCP flags, or ICMP type and code: a rule with either names their protocol. */
static __always_inline bool match_header(const struct rule *r, const struct packet *p)
{
	if (r->flags & RULE_TCP)
		return (p->tcp_flags & r->tcp_mask) == r->tcp_flags;
	return (p->flags & PACKET_ICMP) && p->icmp_type >= r->icmp_type_first &&
	       p->icmp_type <= r->icmp_type_last && p->icmp_code >= r->icmp_code_first &&
	       p->icmp_code <= r->icmp_code_last;
}

enum match { NO_MATCH, MATCH, MATCH_UNKNOWN };

/* Whether an entry matches. MATCH_UNKNOWN: all does that can be seen of a later fragment. */
static __always_inline enum match match_rule(const struct rule *r, const struct packet *p,
					     const struct classes *c)
{
	if (!(r->flags & RULE_ANY_PROTOCOL) && r->protocol != p->protocol)
		return NO_MATCH;
	if ((r->flags & RULE_SRC) && !in_classes(&r->src, c->src))
		return NO_MATCH;
	if ((r->flags & RULE_DST) && !in_classes(&r->dst, c->dst))
		return NO_MATCH;
	if ((r->flags & RULE_REST) && !match_rest(r, p))
		return NO_MATCH;
	if (!(r->flags & RULE_TRANSPORT))
		return MATCH;
	if (p->flags & PACKET_NON_FIRST)
		return MATCH_UNKNOWN;
	if ((r->flags & (RULE_ICMP | RULE_TCP)) && !match_header(r, p))
		return NO_MATCH;
	if (!(r->flags & (RULE_PORTS | RULE_SOURCE_PORTS)))
		return MATCH;
	if (!(p->flags & PACKET_PORTS))
		return NO_MATCH;
	if ((r->flags & RULE_PORTS) && !in_ports(&r->ports, p->dport))
		return NO_MATCH;
	if ((r->flags & RULE_SOURCE_PORTS) && !in_ports(&r->source_ports, p->sport))
		return NO_MATCH;
	return MATCH;
}
