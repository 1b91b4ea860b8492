/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/*
 * SNAT: the translation of a flow, which nat_bind() finds or makes before the flow is tracked, and nat_send() writes into the packet
 * behind that. What could not be entered is not sent.
 */

#include <sluice/iter.h>
#include <sluice/translate.h>

#include "rewrite.h"
#include "track.h"

/* What sources become, by interface.snat - 1. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct snat_address);
} snat_addresses SEC(".maps");

/* Private prefixes that this node announces. */
PREFIX_TRIE(announced4, prefix4_key);
PREFIX_TRIE(announced6, prefix6_key);

#define NAT_TRIES 64

/* What others have no route to: RFC 1918, RFC 6598, RFC 3927, RFC 4193. control/compile/snat.go has the same. */
static __always_inline bool is_private(const struct packet *p)
{
	__u32 ip = bpf_ntohl(p->src.word[3]);

	if (p->family == 6)
		return (p->src.byte[0] & 0xfe) == 0xfc;
	return ip >> 24 == 10 || ip >> 20 == 0xac1 || ip >> 16 == 0xc0a8 || ip >> 22 == 0x191 ||
	       ip >> 16 == 0xa9fe;
}

static __always_inline bool is_announced(const struct packet *p)
{
	if (p->family == 4) {
		struct prefix4_key key = {.prefixlen = 32, .addr = p->src.word[3]};

		return bpf_map_lookup_elem(&announced4, &key);
	}
	struct prefix6_key key = {.prefixlen = 128};

	__builtin_memcpy(key.addr, &p->src, sizeof(key.addr));
	return bpf_map_lookup_elem(&announced6, &key);
}

/* Whether a source must not be seen beyond an uplink. flags: of the interface by which it came in, 0 for the node's own. */
static __always_inline bool nat_wanted(const struct packet *p, __u32 flags)
{
	if (!(flags & (p->family == 4 ? INTERFACE_SNAT4 : INTERFACE_SNAT6)))
		return false;
	return (flags & INTERFACE_SNAT_ALL) || (is_private(p) && !is_announced(p));
}

/* The key of a flow as the wire has it: one end is the node's address and port instead. */
static __always_inline void wire_key(const struct view *v, struct flow_key *wire)
{
	const union addr *node = &v->flow.nat_addr;
	const union addr *remote = v->end ? &v->key.addr[0] : &v->key.addr[1];
	__be16 remote_port = v->end ? v->key.port[0] : v->key.port[1];
	bool second = node->half[0] != remote->half[0] ? node->half[0] > remote->half[0]
						       : node->half[1] > remote->half[1];

	__builtin_memset(wire, 0, sizeof(*wire)); /* what is link-local never leaves by an uplink: no scope */
	wire->protocol = v->key.protocol;
	if (second) {
		wire->addr[0] = *remote;
		wire->addr[1] = *node;
		wire->port[0] = remote_port;
		wire->port[1] = v->flow.nat_port;
	} else {
		wire->addr[0] = *node;
		wire->addr[1] = *remote;
		wire->port[0] = v->flow.nat_port;
		wire->port[1] = remote_port;
	}
}

/*
 * Whether the translation that v->flow names is its own: asked for every packet, so that none leaves by another's. It is not where
 * the entry was another flow's by the time it was copied, or where tables that were made anew left the translation behind.
 */
static __always_inline bool nat_holds(const struct view *v)
{
	struct flow_key wire;
	struct translation *t;

	wire_key(v, &wire);
	t = bpf_map_lookup_elem(&translations, &wire);
	return t && t->since_ns == v->flow.since_ns && same_key(&t->inner, &v->key);
}

/* Whether the box itself, or somebody with the box, talks by these addresses and ports. */
static __always_inline bool is_own_flow(const struct flow_key *wire)
{
	return flow_find(&flows, wire) || flow_find(&fresh_out, wire) || flow_find(&fresh_in, wire);
}

/* Makes a stale translation that of another flow. */
static __always_inline bool take_over(const struct flow_key *wire, const struct translation *mine)
{
	struct translation *t = bpf_map_lookup_elem(&translations, wire);
	__u64 seen;

	if (!t)
		return false;
	seen = *(volatile __u64 *)&t->since_ns;
	if (!translation_stale(t, mine->since_ns) || !translation_claim(t, seen))
		return false;
	t->inner = mine->inner;
	t->addr = mine->addr;
	t->port = mine->port;
	__sync_lock_test_and_set(&t->since_ns, mine->since_ns); /* behind the others, on every processor */
	return true;
}

/*
 * Takes the addresses and ports of the wire: 0, -EEXIST where they are another's, or -E2BIG. The box's own flows are looked for
 * last, and the box looks for translations behind its own entry (snat_clashes), so at least one of both sees the other.
 */
static __always_inline long nat_take(const struct flow_key *wire, const struct translation *mine)
{
	long err = bpf_map_update_elem(&translations, wire, mine, BPF_NOEXIST);

	if (err == -E2BIG)
		return err;
	if (err && (err != -EEXIST || !take_over(wire, mine)))
		return -EEXIST;
	if (!is_own_flow(wire))
		return 0;
	translation_drop(wire, mine->since_ns);
	return -EEXIST;
}

/* For who reads the log: what found no port, or no room, last. */
static __always_inline void note_exhausted(const struct view *v)
{
	__u32 zero = 0;
	struct snat_exhaustion *last = bpf_map_lookup_elem(&snat_exhausted, &zero);

	if (!last)
		return;
	last->key = v->key;
	last->end = v->end;
	last->in = v->flow.in;
	last->addr = v->flow.nat_addr;
	__sync_fetch_and_add(&last->packets, 1);
}

/*
 * Finds a port for the flow in v->flow, whose nat_addr is set: up to NAT_TRIES of the range, from a random one on. Where ports
 * cannot be others it is the packet's own. Returns enum reason.
 */
__noinline int nat_allocate(struct view *v)
{
	struct translation mine = {};
	struct generation_settings *s;
	struct bpf_iter_num it;
	__u32 zero = 0, count, port;
	struct flow_key wire;
	long err = -EEXIST;

	s = bpf_map_lookup_elem(&settings, &zero);
	if (!v || !s || !s->snat_first || s->snat_last < s->snat_first)
		return REASON_INTERNAL;
	mine.inner = v->key;
	mine.since_ns = v->flow.since_ns = bpf_ktime_get_ns();
	mine.addr = v->flow.nat_addr;
	count = has_free_port(v->key.protocol) ? (__u32)s->snat_last - s->snat_first + 1 : 1;
	port = bpf_get_prandom_u32() % count;
	bpf_iter_num_new(&it, 0, NAT_TRIES);
	while (count && bpf_iter_num_next(&it)) {
		if (has_free_port(v->key.protocol))
			v->flow.nat_port = bpf_htons(s->snat_first + port);
		else
			v->flow.nat_port = v->p.sport;
		mine.port = v->flow.nat_port;
		wire_key(v, &wire);
		err = nat_take(&wire, &mine);
		if (err != -EEXIST)
			break;
		port = port + 1 < count ? port + 1 : 0;
	}
	bpf_iter_num_destroy(&it);
	if (!err)
		return REASON_NONE;
	note_exhausted(v);
	return err == -E2BIG ? REASON_SNAT_FULL : REASON_SNAT_EXHAUSTED;
}

/* Makes the packet the first one of another flow: that which was found has no translation, and needs one. */
static __always_inline void begin_anew(struct view *v)
{
	struct flow *flow = &v->flow;
	struct interface from = {};

	v->ended[v->found & 3] = flow->since_ns;
	v->found = IN_NONE;
	find_interface(v->in, &from);
	opened_by(v, from.role, flow->flags & FLOW_INSIDE);
	flow->flags &= FLOW_INSIDE;
	flow->state = FLOW_NEW;
	flow->seq = 0;
	__builtin_memset(&flow->sent, 0, sizeof(flow->sent));
	__builtin_memset(&flow->there, 0, sizeof(flow->there));
	__builtin_memset(&flow->answered, 0, sizeof(flow->answered));
	__builtin_memset(&flow->back, 0, sizeof(flow->back));
}

/* A translation for a flow that is to be entered. address: index into snat_addresses + 1. Returns enum reason. */
static __always_inline int nat_new(struct view *v, __u32 address)
{
	__u32 index = address - 1;
	struct snat_address *to = bpf_map_lookup_elem(&snat_addresses, &index);
	int reason;

	/* A RST opens nothing, and an answer to an echo that nobody asked for has no id of its own. */
	if ((v->key.protocol == IPPROTO_TCP && (v->p.tcp_flags & TCP_RST)) ||
	    (is_icmp(v->key.protocol) && (v->p.icmp_type == 0 || v->p.icmp_type == 129)))
		return REASON_SNAT_UNTRACKED;
	if (!to)
		return REASON_SNAT_NO_ADDRESS;
	v->flow.nat_addr = v->p.family == 4 ? to->v4 : to->v6;
	if (!(v->flow.nat_addr.half[0] | v->flow.nat_addr.half[1]))
		return REASON_SNAT_NO_ADDRESS;
	if (explain) { /* any port of the range: which one is seen when it is sent */
		v->flow.nat_port = 0;
	} else {
		reason = nat_allocate(v);
		if (reason != REASON_NONE)
			return reason;
	}
	v->flow.flags |= FLOW_NAT | FLOW_INSIDE;
	v->nat = NAT_NEW;
	return REASON_NONE;
}

/* Lets go of a translation that no flow was entered for. */
static __always_inline void nat_release(const struct view *v)
{
	struct flow_key wire;

	wire_key(v, &wire);
	translation_drop(&wire, v->flow.since_ns);
}

/*
 * Whether the flow was entered with its new translation, or another CPU was first: then that one's is it. A flow that was pushed out
 * since has none.
 */
static __always_inline bool nat_settled(struct view *v)
{
	struct flow *flow = bpf_map_lookup_elem(&fresh_out, &v->key);

	if (!flow)
		flow = bpf_map_lookup_elem(&flows, &v->key);
	if (flow && flow->since_ns == v->flow.since_ns && flow->nat_port == v->flow.nat_port)
		return nat_holds(v); /* or the machine stood still in between, and its translation has gone */
	nat_release(v);
	if (!flow || !(flow->flags & FLOW_NAT) || (flow->opener & 1) != v->end)
		return false;
	v->flow.since_ns = flow->since_ns;
	v->flow.nat_addr = flow->nat_addr;
	v->flow.nat_port = flow->nat_port;
	return nat_holds(v);
}

/*
 * Whether a translation is still that of an unproven flow. One that has lost its flow is deleted: nobody but the sweep would, and
 * a flood of flows that push each other out would have filled the table by then.
 */
static __always_inline bool nat_is_young(const struct young_translation *y)
{
	struct translation *t = bpf_map_lookup_elem(&translations, &y->wire);

	if (!t || *(volatile __u64 *)&t->since_ns != y->since_ns)
		return false;
	if (translates(t, bpf_map_lookup_elem(&flows, &t->inner)))
		return false; /* nothing pushes it out any more */
	if (translated_entry(t))
		return true;
	if (translation_claim(t, y->since_ns))
		bpf_map_delete_elem(&translations, &y->wire);
	return false;
}

/*
 * Queues the translation of a flow that was entered with it. Where the queue is full the oldest ones are looked at until one of them is
 * not needed there: at least half of them are not, since it has room for twice the unproven flows. Whom luck leaves out waits for
 * the sweep. Global: of its own stack.
 */
#define YOUNG_TRIES 16
__noinline int nat_queue(const struct view *v)
{
	struct young_translation mine = {}, oldest;
	struct bpf_iter_num it;
	long err = 0;

	if (!v)
		return 0;
	wire_key(v, &mine.wire);
	mine.since_ns = v->flow.since_ns;
	bpf_iter_num_new(&it, 0, YOUNG_TRIES);
	while (bpf_iter_num_next(&it)) {
		err = bpf_map_push_elem(&young_translations, &mine, 0);
		if (!err)
			break;
		if (!bpf_map_pop_elem(&young_translations, &oldest) && nat_is_young(&oldest))
			bpf_map_push_elem(&young_translations, &oldest, 0);
	}
	bpf_iter_num_destroy(&it);
	if (err)
		bpf_map_push_elem(&young_translations, &mine, BPF_EXIST); /* instead of the oldest */
	return 0;
}
