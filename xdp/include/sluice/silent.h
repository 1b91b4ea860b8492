/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/*
 * Which policies need not be asked about a packet. To call judge() for one that holds nothing of its classes costs 20 ns, and
 * failsafe and system hold nothing of most packets.
 */

#include "classify.h"

/* By policy. Set by Go before loading: the verifier takes out what is never asked. */
volatile const __u8 ask[POLICY_INGRESS] = {ASK_ALWAYS, ASK_ALWAYS};

/* KEY_*: which buckets there can be for a packet of these classes. */
static __always_inline __u32 keys_of(const struct classes *c)
{
	__u32 keys = KEY_WIDE_SRC | KEY_WIDE_DST;

	if (c->src & CLASS_KEYED)
		keys |= KEY_SRC;
	if (c->dst & CLASS_KEYED)
		keys |= KEY_DST;
	if (c->src & c->dst & CLASS_PAIRED)
		keys |= KEY_BOTH;
	return keys;
}

/* Whether judge() would decide nothing and count nothing. It may say no of such a policy, never yes of another. */
static __always_inline bool is_silent(__u32 index, const struct classes *c)
{
	struct policy *policy;

	if (ask[index] != ASK_BY_KEYS)
		return ask[index] == ASK_NEVER;
	policy = bpf_map_lookup_elem(&policies, &index);
	return policy && !policy->act.everywhere && !(policy->act.keys & keys_of(c));
}
