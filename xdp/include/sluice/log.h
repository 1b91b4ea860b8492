/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/*
 * What rules with log: have to say of a packet, at the end of its way through a policy, and what a limit in shadow mode
 * would have done with it.
 */

#include "classify.h"
#include "events.h"

/*
 * Of the rule that acted, and of the first one in shadow mode before it that does more than count (RULE_LOGGED). A limit
 * takes from its bucket, which is its own as every rule's is, and counts what goes beyond it.
 */
static __always_inline void log_rules(const struct packet *p, const struct decision *d, enum hook hook,
				      __u32 ifindex, bool dropped)
{
	__u32 entry = d->shadow - 1;
	struct verdict *v;

	if (d->sample)
		report_log(p, hook, ifindex, d->rule, d->sample, dropped ? EVENT_DROPPED : EVENT_PASSED);
	if (!d->shadow)
		return;
	v = bpf_map_lookup_elem(&verdicts, &entry);
	if (!v)
		return;
	if (v->sample)
		report_log(p, hook, ifindex, v->id, v->sample, EVENT_SHADOW);
	if (v->action == ACTION_LIMIT)
		limit(p, v->argument);
}
