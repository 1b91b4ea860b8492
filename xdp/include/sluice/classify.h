/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/*
 * The classifier: addresses to classes once per packet (prefix.h); then, per policy, the first acting entry among those
 * that the buckets of both classes, of either, and of none hold. Callers know classify() and judge() only, so that what
 * is behind them can be replaced. The order and the meaning are those of the Go model (xdp/classify).
 */

#include "iter.h"
#include "limit.h"
#include "maps.h"
#include "parse.h"
#include "prefix.h"
#include "search.h"

/* A program that asks about packets that are none says which are. */
#ifndef is_counted
#define is_counted(p) true
#endif

struct decision {
	__u32 rule;	/* stable id of the acting rule; 0: none */
	__u32 reason;	/* enum reason; REASON_NONE: the policy does not decide */
	__u32 policy;	/* index of the policy that decided */
	__u32 argument; /* of the rule's action */
	__u32 sample;	/* one in so many is logged; 0: none */
	__u32 shadow;	/* entry of the first shadow rule that is to be logged, and 1; 0: none */
};

static __always_inline bool reason_accepts(enum reason reason)
{
	switch (reason) {
	case REASON_RULE_ACCEPT:
	case REASON_DEFAULT_ACCEPT:
	case REASON_FRAGMENT_ACCEPT:
	case REASON_FRAGMENT_DEFAULT_ACCEPT:
	case REASON_LIMIT_ACCEPT:
	case REASON_SYN_COOKIE_PASS:
	case REASON_BYPASS_STACK:
		return true;
	default:
		return false;
	}
}

static __always_inline __u32 port_key(const struct packet *p)
{
	if (p->flags & PACKET_NON_FIRST)
		return PORT_KEY_HIDDEN | p->protocol;
	return (__u32)p->protocol << 16 | (p->flags & PACKET_PORTS ? bpf_ntohs(p->dport) : 0);
}

/* Once per packet. What is not IP has no class, and no policy is asked about it. */
static __always_inline void classify(const struct packet *p, struct classes *c)
{
	c->ports = port_key(p);
	if (p->family == 4)
		classify_ip4(p, c);
	else
		classify_ip6(p, c);
}

/* The fate of what no rule decided. REASON_NONE where the policy continues. */
static __always_inline enum reason default_reason(const struct policy *policy, bool fragment)
{
	switch (policy->default_action) {
	case ACTION_ACCEPT:
		return fragment ? REASON_FRAGMENT_DEFAULT_ACCEPT : REASON_DEFAULT_ACCEPT;
	case ACTION_DROP:
		return fragment ? REASON_FRAGMENT_DEFAULT_DROP : REASON_DEFAULT_DROP;
	default:
		return REASON_NONE;
	}
}

/*
 * Counts what a policy's default decided. Apart from judge(), because only the caller knows what a tracked flow excuses:
 * replies would drown what the default really met.
 */
static __always_inline void count_default(const struct packet *p, const struct decision *d)
{
	struct policy *policy;
	__u32 index = d->policy;

	switch (d->reason) {
	case REASON_DEFAULT_ACCEPT:
	case REASON_DEFAULT_DROP:
	case REASON_FRAGMENT_DEFAULT_ACCEPT:
	case REASON_FRAGMENT_DEFAULT_DROP:
		break;
	default:
		return;
	}
	policy = bpf_map_lookup_elem(&policies, &index);
	if (policy)
		count_rule(policy->default_id, p->len);
}

/*
 * What an action comes to where nobody does more than judge: tcx, and the policies before policy.ingress. XDP's last
 * stage does what SYN_COOKIE_PASS and BYPASS_STACK stand for, and judge_limited() asks the limit.
 */
static __always_inline enum reason reason_of(__u8 action)
{
	switch (action) {
	case ACTION_ACCEPT:
		return REASON_RULE_ACCEPT;
	case ACTION_LIMIT:
		return REASON_LIMIT_ACCEPT;
	case ACTION_SYN_COOKIE:
		return REASON_SYN_COOKIE_PASS;
	case ACTION_BYPASS:
		return REASON_BYPASS_STACK;
	default:
		return REASON_RULE_DROP;
	}
}

/* What the entry says that was found. */
static __always_inline enum reason decide(const struct search *s, const struct policy *policy,
					  const struct packet *p, struct decision *d)
{
	__u32 entry = s->limit;
	struct verdict *v;

	if (s->hidden)
		return policy->fragments == FRAGMENTS_ACCEPT ? REASON_FRAGMENT_ACCEPT
							     : default_reason(policy, true);
	if (s->action) {
		if (is_counted(p))
			count_rule(s->id, p->len);
		d->rule = s->id;
		return s->action == ACTION_ACCEPT ? REASON_RULE_ACCEPT : REASON_RULE_DROP;
	}
	v = bpf_map_lookup_elem(&verdicts, &entry);
	if (!v)
		return REASON_INTERNAL;
	if (is_counted(p))
		count_rule(v->id, p->len);
	d->rule = v->id;
	d->argument = v->argument;
	d->sample = v->sample;
	return reason_of(v->action);
}

/*
 * Judges a packet by one policy. d->reason is REASON_NONE where the policy does not decide, and one of the DEFAULT
 * reasons where no rule acted: callers look for established flows only then. Global, so that the verifier checks it
 * once; hence the tests of its pointers.
 */
__noinline int judge(const struct packet *p, const struct classes *c, __u32 index, struct decision *d)
{
	struct search s = {.limit = NO_ENTRY};
	struct policy *policy;

	if (!p || !c || !d)
		return 0;
	d->rule = 0;
	d->argument = 0;
	d->sample = 0;
	d->shadow = 0;
	d->reason = REASON_NONE;
	d->policy = index;
	policy = bpf_map_lookup_elem(&policies, &index);
	if (!policy) {
		d->reason = REASON_INTERNAL;
		return 0;
	}
	if ((p->flags & PACKET_FRAGMENT) && policy->fragments == FRAGMENTS_DROP) {
		d->reason = REASON_FRAGMENT_DROP;
		return 0;
	}
	s.kind = index;
	search(&s, &policy->act, p, c);
	d->reason = s.limit == NO_ENTRY ? default_reason(policy, false) : decide(&s, policy, p, d);
	if (is_counted(p) &&
	    (policy->shadow.everywhere || policy->shadow.keys)) { /* counts what comes before s.limit */
		s.kind |= BUCKET_SHADOW;
		search(&s, &policy->shadow, p, c);
		d->shadow = s.shadow;
	}
	return 0;
}

/*
 * As judge(), and within the limit of the rule that acted: for the policies that an operator writes. Not in judge() itself,
 * because with its frame the stack would not hold limit()'s.
 */
static __always_inline enum reason judge_limited(const struct packet *p, const struct classes *c, __u32 index,
						 struct decision *d)
{
	judge(p, c, index, d);
	if (d->reason == REASON_LIMIT_ACCEPT)
		d->reason = limit(p, d->argument);
	return d->reason;
}
