// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/*
 * A generation of XDP: judges what enters by an uplink, whatever its destination. The order of the stages is the
 * contract (DESIGN.md section 2): parse, link control, failsafe, system, bans, FlowSpec, rules, established, default.
 * Each stage returns a reason, and REASON_NONE where the next one is to decide.
 */

#include "stages.h"
#include "bypass.h"
#include "recent.h"
#include "sluice/bans.h"
#include "sluice/capture.h"
#include "sluice/classify.h"
#include "sluice/flow.h"
#include "sluice/flowspec.h"
#include "sluice/fragments.h"
#include "sluice/log.h"
#include "sluice/silent.h"
#include "sluice/translate.h"
#include "syncookie.h"

/* A bit for each own address, of SELF_BITS; set by Go before loading. All set: nothing is known. */
volatile const __u64 self_bits[SELF_BITS / 64] = {~0ull, ~0ull, ~0ull, ~0ull};

/* Whether there are any; set by Go before loading. */
volatile const __u8 has_vlan_children = 0;
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct vlan_child);
	__type(value, __u8);
} vlan_children SEC(".maps");

/* A VLAN child is an interface of its own, perhaps with another role: the uplink's policy is not for it. */
static __always_inline bool is_vlan_child(const struct packet *p)
{
	struct vlan_child key = {.ifindex = p->ifindex, .vlan = p->vlan};

	return has_vlan_children && p->vlan && bpf_map_lookup_elem(&vlan_children, &key);
}

/* Most destinations are not the box's own, which one bit tells. The hash is asked about the rest. */
static __always_inline bool is_self(const union addr *a)
{
	__u32 bit = SELF_BIT(a->word[2] ^ a->word[3]);

	return (self_bits[bit / 64] >> bit % 64 & 1) && bpf_map_lookup_elem(&self, a);
}

/* management: matches only what is for the box itself, so no rule of it ever opens the way to a workload. */
static __always_inline enum reason failsafe_stage(const struct packet *p, const struct classes *c,
						  struct decision *d)
{
	if (is_silent(POLICY_FAILSAFE, c) || !is_self(&p->dst))
		return REASON_NONE;
	judge(p, c, POLICY_FAILSAFE, d);
	return reason_accepts(d->reason) ? REASON_FAILSAFE : d->reason;
}

/*
 * An ICMP error passes where the packet that it quotes is one that we let out: the first direction of a flow from
 * inside, or a reply to a flow from outside. Path MTU discovery of both depends on it.
 */
static __always_inline bool quotes_flow(struct xdp_md *ctx, struct cursor *cursor, const struct packet *p)
{
	struct flow_key key;
	struct flow *flow;
	__u8 end;

	if (!(p->flags & PACKET_ICMP_ERROR))
		return false;
	end = flow_quoted(ctx, cursor, p, &key);
	if (end == FLOW_UNQUOTED)
		return false;
	/* The error goes to who sent the quoted packet; anything else is forged. */
	if (key.addr[end & 1].half[0] != p->dst.half[0] || key.addr[end & 1].half[1] != p->dst.half[1])
		return false;
	flow = flow_find(&flows, &key);
	if (!flow)
		flow = flow_find(&fresh_out, &key);
	if (!flow)
		flow = flow_find(&fresh_in, &key);
	if (!flow) /* the inside sent it, by the addresses and ports of the wire */
		flow = translated_flow(bpf_map_lookup_elem(&translations, &key));
	else if ((flow->opener == end) != !!(flow->flags & FLOW_INSIDE))
		return false;
	return flow && flow->judged != REASON_FLOW_REVOKED;
}

static __always_inline enum reason system_stage(struct xdp_md *ctx, struct cursor *cursor,
						const struct packet *p, const struct classes *c,
						struct decision *d)
{
	if (!is_silent(POLICY_SYSTEM, c)) {
		judge(p, c, POLICY_SYSTEM, d);
		if (d->reason != REASON_NONE)
			return reason_accepts(d->reason) ? REASON_SYSTEM : d->reason;
	}
	return quotes_flow(ctx, cursor, p) ? REASON_ICMP_ERROR : REASON_NONE;
}

/* Whether a packet answers a flow whose source is translated: what asked is not in the flow tables by these addresses. */
static __always_inline bool answers_translated(const struct flow_key *key)
{
	struct flow *flow = translated_flow(bpf_map_lookup_elem(&translations, key));

	return flow && flow->judged != REASON_FLOW_REVOKED;
}

/*
 * What policy.ingress decided, within its limit, and the established flows where its default would drop. The lookup costs
 * what a rule does not, and an explicit drop is to beat it: so it comes last.
 */
static __always_inline enum reason rules_stage(struct xdp_md *ctx, const struct packet *p, struct decision *d)
{
	struct flow_key key;
	__u8 end;

	if (d->reason == REASON_LIMIT_ACCEPT)
		d->reason = limit(p, d->argument);
	if ((d->reason == REASON_DEFAULT_DROP || d->reason == REASON_FRAGMENT_DEFAULT_DROP) &&
	    flow_tracked(p)) {
		end = flow_key(p, &key);
		if (flow_answered(flow_find(&flows, &key), end) ||
		    flow_answered(flow_find(&fresh_out, &key), end) || answers_translated(&key))
			return REASON_ESTABLISHED;
	}
	if (p->flags & PACKET_NON_FIRST)
		d->reason = follow_fragment(ctx, p, POLICY_INGRESS, d->reason);
	count_default(p, d);
	return d->reason;
}

/* The overlays: below what keeps the box reachable, above the operator's rules. */
static __always_inline enum reason overlay_stages(struct xdp_md *ctx, const struct packet *p, __u32 *filter)
{
	enum reason reason = bans_stage(p);

	return reason == REASON_NONE ? flowspec_stage(ctx, p, HOOK_XDP, filter) : reason;
}

/* All stages that ask policies, up to what policy.ingress decides. REASON_NONE: it is in d. */
static __always_inline enum reason policy_stages(struct xdp_md *ctx, struct cursor *cursor,
						 const struct packet *p, struct decision *d)
{
	struct classes c = {};
	enum reason reason;
	__u32 filter = 0;

	classify(p, &c);
	reason = failsafe_stage(p, &c, d);
	if (reason != REASON_NONE)
		return reason;
	reason = system_stage(ctx, cursor, p, &c, d);
	if (reason != REASON_NONE)
		return reason;
	reason = overlay_stages(ctx, p, &filter);
	if (reason == REASON_NONE)
		judge(p, &c, POLICY_INGRESS, d);
	else
		d->rule = filter;
	return reason;
}

/* Whether an overlay gave the reason: no generation did, and none may remember it. */
static __always_inline bool of_overlay(enum reason reason)
{
	return reason == REASON_BANNED || of_flowspec(reason);
}

/* The same of a flow that was judged before, counted as judge() does. */
static __always_inline enum reason recent_stages(struct xdp_md *ctx, const struct packet *p,
						 struct decision *d)
{
	enum reason reason = REASON_NONE;
	__u32 filter = 0;

	if (d->policy == POLICY_INGRESS)
		reason = overlay_stages(ctx, p, &filter);
	if (reason != REASON_NONE) {
		d->rule = filter;
		return reason;
	}
	if (d->rule)
		count_rule(d->rule, p->len);
	if (d->policy == POLICY_INGRESS)
		return REASON_NONE;
	if (!reason_accepts(d->reason))
		return d->reason;
	return d->policy == POLICY_FAILSAFE ? REASON_FAILSAFE : REASON_SYSTEM;
}

static __always_inline enum reason stages(struct xdp_md *ctx, struct packet *p, struct decision *d)
{
	struct cursor cursor = {};
	struct recent_flow *flow;
	enum reason reason;

	reason = parse_frame(ctx, &cursor, p);
	if (is_vlan_child(p))
		return REASON_VLAN_CHILD;
	if (reason != REASON_NONE)
		return reason;
	reason = link_control(p);
	if (reason != REASON_NONE)
		return reason;
	flow = recent_place(p);
	if (flow && recent_decided(flow, p, d)) {
		reason = recent_stages(ctx, p, d);
	} else {
		reason = policy_stages(ctx, &cursor, p, d);
		if (flow && !of_overlay(reason))
			recent_keep(flow, p, d);
	}
	if (reason != REASON_NONE)
		return reason;
	reason = rules_stage(ctx, p, d);
	/* Two actions do more than judge, and only here. */
	if (reason == REASON_BYPASS_STACK)
		return bypass_stage(ctx, d);
	return reason == REASON_SYN_COOKIE_PASS ? answer_syn(ctx, p) : reason;
}

/* Whether the decision, and not a stage around it, is what gave the reason: then its policy and rule are shown. */
static __always_inline bool policy_decided(enum reason reason)
{
	switch (reason) {
	case REASON_FAILSAFE:
	case REASON_SYSTEM:
	case REASON_RULE_ACCEPT:
	case REASON_RULE_DROP:
	case REASON_DEFAULT_ACCEPT:
	case REASON_DEFAULT_DROP:
	case REASON_FRAGMENT_DEFAULT_ACCEPT:
	case REASON_FRAGMENT_DEFAULT_DROP:
	case REASON_FRAGMENT_ACCEPT:
	case REASON_FRAGMENT_DROP:
	case REASON_LIMIT_ACCEPT:
	case REASON_LIMIT_DROP:
	case REASON_SYN_COOKIE:
	case REASON_SYN_COOKIE_PASS:
	case REASON_BYPASS:
	case REASON_BYPASS_STACK:
		return true;
	default:
		return false;
	}
}

static __always_inline void explain_verdict(const struct decision *d, enum reason reason, int verdict)
{
	__u32 zero = 0;
	struct explanation *e = bpf_map_lookup_elem(&explained, &zero);

	if (!e)
		return;
	e->reason = reason;
	e->fate = verdict;
	e->decided = policy_decided(reason);
	e->policy = e->decided ? d->policy : 0;
	e->rule = e->decided || of_flowspec(reason) ? d->rule : 0;
}

/* Whether somebody may want to hear of a packet. Most of the time nobody does, and this is all that it costs. */
static __always_inline bool is_heard(const struct decision *d, int verdict)
{
	return (d->sample | d->shadow) || (verdict == XDP_DROP && watched(WATCH_DROPS)) ||
	       watched(WATCH_CAPTURE);
}

/* Tells who looks on. Global, to be out of the way of what nobody looks at. */
__noinline int report(struct xdp_md *ctx, const struct packet *p, const struct decision *d, __u32 reason,
		      int verdict)
{
	__u32 rule;

	if (!p || !d)
		return 0;
	rule = policy_decided(reason) || of_flowspec(reason) ? d->rule : 0;
	if (d->sample | d->shadow)
		log_rules(p, d, HOOK_XDP, p->ifindex, verdict == XDP_DROP);
	if (verdict == XDP_DROP && watched(WATCH_DROPS))
		report_drop(p, HOOK_XDP, p->ifindex, reason, rule);
	if (watched(WATCH_CAPTURE))
		report_capture(ctx, p, HOOK_XDP, p->ifindex, 0, reason, rule);
	return 0;
}

SEC("xdp.frags")
int ingress(struct xdp_md *ctx)
{
	__u32 ifindex = ctx->ingress_ifindex;
	struct decision d = {};
	struct packet p = {};
	enum reason reason;
	int verdict;

	p.ifindex = ifindex;
	reason = stages(ctx, &p, &d);
	if ((p.flags & (PACKET_FRAGMENT | PACKET_NON_FIRST)) == PACKET_FRAGMENT &&
	    reason != REASON_VLAN_CHILD) /* whatever stage let it in */
		follow_fragment(ctx, &p, POLICY_INGRESS, reason);
	verdict = verdict_of(reason);
	if (explain) {
		explain_verdict(&d, reason, verdict);
		return verdict;
	}
	count_reason(slot_of(ifindex), reason, p.len);
	if (verdict == XDP_TX) /* an answer stands in the place of the frame that came */
		p.len = bpf_xdp_get_buff_len(ctx);
	if (__builtin_expect(is_heard(&d, verdict), 0))
		report(ctx, &p, &d, reason, verdict);
	return verdict;
}

char _license[] SEC("license") = "Dual BSD/GPL";
