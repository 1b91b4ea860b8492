/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/*
 * The flow tables, read by XDP and written by tcx (tc/bpf/track.h). A packet is a reply where the end of the flow that
 * sends it is not the one that opened it: the first direction is judged by policy for as long as the flow lives.
 */

#include "maps.h"
#include "parse.h"

#define SECOND 1000000000ull

/* Idle times. RFC 5382 asks for two hours of an established TCP session, RFC 4787 for two minutes of UDP. */
#define TIMEOUT_TCP_NEW	    (60 * SECOND) /* until it is proven */
#define TIMEOUT_TCP	    (7440 * SECOND)
#define TIMEOUT_TCP_CLOSING (120 * SECOND)
#define TIMEOUT_TCP_CLOSED  (30 * SECOND)
#define TIMEOUT_TCP_SERVED \
	(70 * SECOND) /* closed, from outside: longer than Linux keeps TIME_WAIT, which is 60 s */
#define TIMEOUT_TCP_RESET     (10 * SECOND)
#define TIMEOUT_UDP	      (60 * SECOND)
#define TIMEOUT_UDP_REPLIED   (180 * SECOND)
#define TIMEOUT_ECHO	      (30 * SECOND)
#define TIMEOUT_OTHER	      (60 * SECOND)
#define TIMEOUT_OTHER_REPLIED (600 * SECOND)
#define TIMEOUT_REVOKED	      (60 * SECOND)

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

/* Whether a packet has what a key needs. A later fragment has not. */
static __always_inline bool flow_tracked(const struct packet *p)
{
	if (!p->family || (p->flags & PACKET_NON_FIRST))
		return false;
	if (p->protocol == IPPROTO_ICMP || p->protocol == IPPROTO_ICMPV6)
		return p->flags & PACKET_ECHO;
	return true; /* a protocol without ports is tracked by its addresses */
}

/* Whether the destination is end 0: the order of keys, on words and ports as they lie in memory. */
static __always_inline bool flow_turned(const struct packet *p)
{
	if (p->src.half[0] != p->dst.half[0])
		return p->dst.half[0] < p->src.half[0];
	if (p->src.half[1] != p->dst.half[1])
		return p->dst.half[1] < p->src.half[1];
	return p->dport < p->sport;
}

/* Fills in the key. Returns the end that sends the packet: 0 or 1. */
static __always_inline __u8 flow_key(const struct packet *p, struct flow_key *key)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->protocol = p->protocol;
	if (flow_turned(p)) {
		key->addr[0] = p->dst;
		key->addr[1] = p->src;
		key->port[0] = p->dport;
		key->port[1] = p->sport;
		return 1;
	}
	key->addr[0] = p->src;
	key->addr[1] = p->dst;
	key->port[0] = p->sport;
	key->port[1] = p->dport;
	return 0;
}

static __always_inline __u64 flow_timeout_tcp(const struct flow *flow)
{
	switch (flow->state) {
	case FLOW_ESTABLISHED:
		return TIMEOUT_TCP;
	case FLOW_CLOSING:
		return TIMEOUT_TCP_CLOSING;
	case FLOW_CLOSED:
		if (flow->flags & FLOW_RST)
			return TIMEOUT_TCP_RESET;
		return flow->flags & FLOW_INSIDE ? TIMEOUT_TCP_CLOSED : TIMEOUT_TCP_SERVED;
	default:
		return TIMEOUT_TCP_NEW;
	}
}

static __always_inline __u64 flow_timeout(__u8 protocol, const struct flow *flow)
{
	if (flow->judged == REASON_FLOW_REVOKED)
		return TIMEOUT_REVOKED;
	switch (protocol) {
	case IPPROTO_TCP:
		return flow_timeout_tcp(flow);
	case IPPROTO_UDP:
		return flow->state == FLOW_NEW ? TIMEOUT_UDP : TIMEOUT_UDP_REPLIED;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return TIMEOUT_ECHO;
	default:
		return flow->state == FLOW_NEW ? TIMEOUT_OTHER : TIMEOUT_OTHER_REPLIED;
	}
}

/* Another CPU may have written a time that is later than now. */
static __always_inline bool flow_expired(__u8 protocol, const struct flow *flow, __u64 now)
{
	return (__s64)(now - flow->last_ns) > (__s64)flow_timeout(protocol, flow);
}

/* The live entry of a key in one table, or NULL. */
static __always_inline struct flow *flow_find(void *table, const struct flow_key *key)
{
	struct flow *flow = bpf_map_lookup_elem(table, key);

	return flow && !flow_expired(key->protocol, flow, bpf_ktime_get_ns()) ? flow : NULL;
}

/* Whether a packet that one end sends answers a flow, which no policy has revoked since. */
static __always_inline bool flow_answered(const struct flow *flow, __u8 end)
{
	return flow && flow->opener != end && flow->judged != REASON_FLOW_REVOKED;
}

/*
 * The packet that an ICMP error quotes, as a key: the cursor stands behind the eight bytes of the ICMP header. Returns the
 * end that sent it, or FLOW_UNQUOTED where too little is quoted to tell the flow. Extension headers are followed: what is too big
 * for a path may be a fragment.
 */
#define FLOW_UNQUOTED 2
static __always_inline __u8 flow_quoted(PARSE_CTX *ctx, struct cursor *c, const struct packet *p,
					struct flow_key *key)
{
	struct packet inner = {};
	struct ports *ports;
	enum reason reason;

	if (p->family == 4)
		reason = parse_ip4(c, &inner);
	else
		reason = parse_ip6(c, &inner);
	if (reason == REASON_NONE && p->family == 6 && is_ip6_extension(inner.protocol)) {
		inner.l4 = c->pos - c->start;
		reason = parse_ip6_extensions(ctx, &inner);
		c->pos = c->start + (inner.l4 & MAX_L4_OFFSET);
	}
	if (reason != REASON_NONE || (inner.flags & PACKET_NON_FIRST) || inner.l4 > MAX_L4_OFFSET)
		return FLOW_UNQUOTED;
	switch (inner.protocol) {
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		if (parse_icmp(c, &inner) != REASON_NONE || !(inner.flags & PACKET_ECHO))
			return FLOW_UNQUOTED;
		break;
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_UDPLITE:
	case IPPROTO_SCTP:
		ports = take(c, sizeof(*ports)); /* RFC 792 promises eight bytes of the transport header */
		if (!ports)
			return FLOW_UNQUOTED;
		inner.sport = ports->source;
		inner.dport = ports->dest;
		break;
	}
	return flow_key(&inner, key);
}
