/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/*
 * Translations of sources, as everybody who reads them has to. The table's key is what stands on the wire, so that two flows cannot
 * have one translation: whoever sends by one looks it up and finds itself there.
 *
 * An element is claimed before it changes hands: since_ns is exchanged, by compare-and-swap, for one with TRANSLATION_BUSY. So of
 * several that find it stale one gets it, be it another flow or the sweep. One that is young may be waiting for its flow, which is
 * entered behind it.
 */

#include "flow.h"

#define TRANSLATION_BUSY  (1ull << 63)
#define TRANSLATION_GRACE (2 * SECOND)

static __always_inline bool same_addr(const union addr *a, const union addr *b)
{
	return a->half[0] == b->half[0] && a->half[1] == b->half[1];
}

static __always_inline bool same_key(const struct flow_key *a, const struct flow_key *b)
{
	const __u64 *x = (const __u64 *)a, *y = (const __u64 *)b;

	return !((x[0] ^ y[0]) | (x[1] ^ y[1]) | (x[2] ^ y[2]) | (x[3] ^ y[3]) | (x[4] ^ y[4]));
}
_Static_assert(sizeof(struct flow_key) == 40, "same_key() compares five words");

/* Whether an entry is the flow that a translation was made for. */
static __always_inline bool translates(const struct translation *t, const struct flow *flow)
{
	return flow && (flow->flags & FLOW_NAT) && flow->since_ns == t->since_ns &&
	       flow->nat_port == t->port && same_addr(&flow->nat_addr, &t->addr);
}

/*
 * The entry of the flow that a translation was made for, expired or not, or NULL. Only the inside has flows translated. One that is
 * being proven is in flows before it goes from fresh_out, so who finds it in neither looks again.
 */
static __always_inline struct flow *translated_entry(const struct translation *t)
{
	struct flow *flow = bpf_map_lookup_elem(&flows, &t->inner);

	if (!translates(t, flow))
		flow = bpf_map_lookup_elem(&fresh_out, &t->inner);
	if (!translates(t, flow))
		flow = bpf_map_lookup_elem(&flows, &t->inner);
	return translates(t, flow) ? flow : NULL;
}

/* The live flow that a packet with these addresses and ports, of the wire, answers; or NULL. */
static __always_inline struct flow *translated_flow(const struct translation *t)
{
	struct flow *flow = t ? translated_entry(t) : NULL;

	return flow && !flow_expired(t->inner.protocol, flow, bpf_ktime_get_ns()) ? flow : NULL;
}

/* Whether nobody needs a translation any more. The grace lets a packet through that saw the flow alive a moment ago. */
static __always_inline bool translation_stale(const struct translation *t, __u64 now)
{
	__u64 since = *(volatile __u64 *)&t->since_ns;
	struct flow *flow;

	if ((since & TRANSLATION_BUSY) || (__s64)(now - since) < (__s64)TRANSLATION_GRACE)
		return false;
	flow = translated_entry(t);
	return !flow || flow_expired(t->inner.protocol, flow, now - TRANSLATION_GRACE);
}

/* Claims a translation as it was seen. Whoever gets it deletes it, or writes it and takes TRANSLATION_BUSY off at last. */
static __always_inline bool translation_claim(struct translation *t, __u64 seen)
{
	return !(seen & TRANSLATION_BUSY) &&
	       __sync_val_compare_and_swap(&t->since_ns, seen, seen | TRANSLATION_BUSY) == seen;
}

/* Deletes the translation of these addresses and ports that was made at a time, unless it is another's by now. */
static __always_inline void translation_drop(const struct flow_key *wire, __u64 since)
{
	struct translation *t = bpf_map_lookup_elem(&translations, wire);

	if (t && translation_claim(t, since))
		bpf_map_delete_elem(&translations, wire);
}
