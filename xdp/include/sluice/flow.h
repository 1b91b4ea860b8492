/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/*
 * The flow table, read by XDP and written by tcx. An entry stands in the direction of the flow's first packet, so a
 * packet is a reply exactly when its reversed key is there: the first direction is judged by policy for as long as
 * the flow lives, and a revoked rule stops it at once.
 */

#include "maps.h"
#include "parse.h"

#define SECOND 1000000000ull

/* Idle times. RFC 5382 asks for two hours of an established TCP session, RFC 4787 for two minutes of UDP. */
#define TIMEOUT_TCP_SYN	    (60 * SECOND)
#define TIMEOUT_TCP	    (7440 * SECOND)
#define TIMEOUT_TCP_CLOSING (30 * SECOND)
#define TIMEOUT_UDP	    (60 * SECOND)
#define TIMEOUT_UDP_REPLIED (180 * SECOND)
#define TIMEOUT_OTHER	    (60 * SECOND)

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04

/* Whether a packet has what a key needs. A later fragment has not. */
static __always_inline bool flow_tracked(const struct packet *p)
{
	if (!p->family || (p->flags & PACKET_NON_FIRST))
		return false;
	if (p->protocol == IPPROTO_ICMP || p->protocol == IPPROTO_ICMPV6)
		return p->flags & PACKET_ECHO;
	return true; /* a protocol without ports is tracked by its addresses */
}

static __always_inline void flow_key(const struct packet *p, struct flow_key *key)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->src = p->src;
	key->dst = p->dst;
	key->sport = p->sport;
	key->dport = p->dport;
	key->protocol = p->protocol;
}

static __always_inline void flow_reverse(const struct flow_key *key, struct flow_key *reversed)
{
	__builtin_memset(reversed, 0, sizeof(*reversed));
	reversed->src = key->dst;
	reversed->dst = key->src;
	reversed->sport = key->dport;
	reversed->dport = key->sport;
	reversed->protocol = key->protocol;
	__builtin_memcpy(reversed->scope, key->scope, sizeof(reversed->scope));
}

/* The same in place. */
static __always_inline void flow_turn(struct flow_key *key)
{
	union addr src = key->src;
	__be16 sport = key->sport;

	key->src = key->dst;
	key->dst = src;
	key->sport = key->dport;
	key->dport = sport;
}

static __always_inline __u64 flow_timeout(const struct flow_key *key, __u32 flags)
{
	switch (key->protocol) {
	case IPPROTO_TCP:
		if (flags & FLOW_CLOSING)
			return TIMEOUT_TCP_CLOSING;
		return flags & FLOW_REPLIED ? TIMEOUT_TCP : TIMEOUT_TCP_SYN;
	case IPPROTO_UDP:
		return flags & FLOW_REPLIED ? TIMEOUT_UDP_REPLIED : TIMEOUT_UDP;
	default:
		return TIMEOUT_OTHER;
	}
}

/* The live entry of a key, or NULL. */
static __always_inline struct flow *flow_find(void *table, const struct flow_key *key)
{
	struct flow *flow = bpf_map_lookup_elem(table, key);

	if (!flow || bpf_ktime_get_ns() - flow->last_ns > flow_timeout(key, flow->flags))
		return NULL;
	return flow;
}

/*
 * The packet that an ICMP error quotes, as a key: the cursor stands behind the eight bytes of the ICMP header.
 * Returns false where too little is quoted to tell the flow.
 */
static __always_inline bool flow_quoted(struct cursor *c, const struct packet *p, struct flow_key *key)
{
	struct packet inner = {};
	struct ports *ports;
	enum reason reason;

	if (p->family == 4)
		reason = parse_ip4(c, &inner);
	else
		reason = parse_ip6(c, &inner);
	if (reason != REASON_NONE || (inner.flags & PACKET_NON_FIRST))
		return false;
	switch (inner.protocol) {
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		if (parse_icmp(c, &inner) != REASON_NONE || !(inner.flags & PACKET_ECHO))
			return false;
		break;
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_SCTP:
		ports = take(c, sizeof(*ports)); /* RFC 792 promises eight bytes of the transport header */
		if (!ports)
			return false;
		inner.sport = ports->source;
		inner.dport = ports->dest;
		break;
	}
	flow_key(&inner, key);
	return true;
}
