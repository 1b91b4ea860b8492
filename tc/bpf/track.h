/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/*
 * A packet and its flow. meet() finds it, before anything is judged; track() enters it or moves it on, once the packet has passed
 * for good. Between them v->flow says what was found, or what is to be entered.
 */

#include "state.h"

/*
 * Fills in the key. Link-local addresses mean something else on every link, and a workload may send from any: workload is the
 * index of its interface, or 0, and keeps its flows apart from those of the uplinks' links.
 */
static __always_inline void view_keys(struct view *v, __u32 workload)
{
	v->end = flow_key(&v->p, &v->key);
	v->missed = false;
	if (!flow_tracked(&v->p))
		v->key.protocol = FLOW_NO_PROTOCOL;
	if (workload && v->p.family == 6 && (is_link_local6(&v->p.src) || is_link_local6(&v->p.dst))) {
		v->key.scope[0] = workload;
		v->key.scope[1] = workload >> 8;
		v->key.scope[2] = workload >> 16;
	}
}

/*
 * The entry that meet() found, wherever it is by now, or NULL. What comes of it belongs into a local variable: elements are
 * used again for other flows as soon as they are deleted.
 */
static __always_inline struct flow *find_flow(const struct view *v)
{
	struct flow *flow = NULL;

	if (v->found == IN_FRESH_OUT)
		flow = bpf_map_lookup_elem(&fresh_out, &v->key);
	else if (v->found == IN_FRESH_IN)
		flow = bpf_map_lookup_elem(&fresh_in, &v->key);
	return v->found && !flow ? bpf_map_lookup_elem(&flows, &v->key) : flow;
}

/*
 * Whether an entry is a flow that lives. A SYN of either end on one that was closed begins another: who reuses the port may
 * be judged by other policies.
 */
static __always_inline bool lives(const struct view *v, const struct flow *flow, __u64 now)
{
	if (flow_expired(v->key.protocol, flow, now))
		return false;
	return !(v->key.protocol == IPPROTO_TCP && flow->state == FLOW_CLOSED &&
		 (v->p.tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN);
}

/* The live entry in one table. Notes where it stands, or that one is in the way that has ended. */
static __always_inline struct flow *look(void *table, struct view *v, enum flow_table where, __u64 now)
{
	struct flow *flow = bpf_map_lookup_elem(table, &v->key);

	if (!flow)
		return NULL;
	if (lives(v, flow, now)) {
		v->found = where;
		return flow;
	}
	v->ended[where] = flow->since_ns;
	return NULL;
}

static __always_inline void touch(struct flow *flow, __u64 now)
{
	if (!explain && (__s64)(now - flow->last_ns) > (__s64)SECOND)
		flow->last_ns = now;
}

/* The hook, as flow.at has it. */
static __always_inline __u32 hook_of(const struct view *v)
{
	return v->at | (v->hook == HOOK_TC_EGRESS ? FLOW_AT_EGRESS : 0);
}

/* What is known of the packet from the entry of its flow. */
static __always_inline void read_flow(struct view *v, const struct flow *flow)
{
	v->flow = *flow;
	v->flow.opener &= 1;
	if (v->flow.opener == v->end) {
		v->known = !explain && flow->epoch == v->epoch && flow->at == hook_of(v) &&
			   flow->in == v->in && !(flow->flags & FLOW_ASK) &&
			   flow->judged != REASON_FLOW_REVOKED && !(v->p.flags & PACKET_FRAGMENT);
	} else if (flow->epoch != v->epoch && flow->epoch) {
		v->doubt = true;
	} else if (flow->judged == REASON_FLOW_REVOKED) {
		v->revoked = true;
	} else {
		v->reply = true;
	}
	if (!v->known) {
		v->flow.rule[0] = 0;
		v->flow.rule[1] = 0;
		v->flow.judged = REASON_NONE;
	}
}

/* Whether what was read of a translated flow is its own: the element may have been given to another while it was read. */
static __always_inline bool is_still(const struct view *v)
{
	struct flow *flow = find_flow(v);

	return flow && flow->since_ns == v->flow.since_ns && flow->nat_port == v->flow.nat_port;
}

/*
 * Finds the flow of a packet. Global, as track() is, because each place where an entry may come from would be another way for
 * the verifier through all that comes behind.
 */
__noinline int meet(struct view *v)
{
	struct generation_settings *s;
	struct flow *flow;
	__u32 zero = 0;
	__u64 now;

	if (!v || v->key.protocol == FLOW_NO_PROTOCOL)
		return 0;
	s = bpf_map_lookup_elem(&settings, &zero);
	if (s)
		v->epoch = s->epoch;
	now = bpf_ktime_get_coarse_ns();
	flow = look(&flows, v, IN_FLOWS, now); /* where it may have gone since it was missed */
	if (!flow && !v->missed)
		flow = look(&fresh_out, v, IN_FRESH_OUT, now);
	if (!flow && !v->missed)
		flow = look(&fresh_in, v, IN_FRESH_IN, now);
	if (!flow)
		return 0;
	read_flow(v, flow);
	if ((v->flow.flags & FLOW_NAT) && !is_still(v)) {
		__builtin_memset(&v->flow, 0, sizeof(v->flow));
		v->found = IN_NONE;
		v->known = v->reply = v->doubt = v->revoked = false;
	}
	return 0;
}

/*
 * Whether the judgement of a packet that came in elsewhere than its flow did is about the flow. Where another policy judges, it is not: who
 * forges the packet would give the flow another policy, and take a revocation back. A workload's source was checked.
 */
static __always_inline bool may_move(const struct view *v, const struct flow *flow)
{
	__u32 from = flow->in, to = v->in;
	struct interface was = {}, is = {};

	if (from == to || !to)
		return true;
	find_interface(to, &is);
	if (is.role == ROLE_WORKLOAD)
		return true;
	if (!find_interface(from, &was))
		return from; /* its interface has gone; but the node does not */
	return is.role == was.role && !is.policies && !was.policies;
}

/* What this packet's judgement says of the first direction, into its entry, where that does not say so yet. */
static __always_inline void record(const struct view *v, struct flow *flow)
{
	const struct flow *now = &v->flow;
	__u8 flags = (flow->flags & ~FLOW_ASK) | (v->per_packet ? FLOW_ASK : 0);
	__u64 epoch = v->per_packet & PER_PACKET_SEES ? 0 : v->epoch;

	if ((v->p.flags & PACKET_FRAGMENT) || !may_move(v, flow)) /* a fragment's fate is its own */
		return;
	if (flow->flags != flags)
		flow->flags = flags;
	if (flow->rule[0] != now->rule[0] || flow->rule[1] != now->rule[1] || flow->judged != now->judged ||
	    flow->at != hook_of(v) || flow->in != now->in || flow->owner != now->owner) {
		flow->rule[0] = now->rule[0];
		flow->rule[1] = now->rule[1];
		flow->judged = now->judged;
		flow->at = hook_of(v);
		flow->in = now->in;
		flow->owner = now->owner;
	}
	if (flow->epoch != epoch)
		flow->epoch = epoch;
}

/* Removes what was seen to have ended from one table; but not the flow that another CPU has entered in its place since. */
static __always_inline void clear(void *table, const struct view *v, enum flow_table where)
{
	struct flow *flow;

	if (!v->ended[where])
		return;
	flow = bpf_map_lookup_elem(table, &v->key);
	if (flow && flow->since_ns == v->ended[where])
		bpf_map_delete_elem(table, &v->key);
}

/*
 * An element may be another flow's by the time that a way is written into it, or read. So what a way says is one word, and only the key
 * and the direction of its flow open it: with others it begins at no hook.
 */
static __always_inline __u64 way_seal(const struct view *v)
{
	const __u64 *word = (const __u64 *)&v->key;
	__u64 hash = v->end;

	_Static_assert(sizeof(v->key) == 5 * sizeof(*word), "the whole key");
#pragma unroll
	for (int i = 0; i < 5; i++)
		hash = (hash ^ word[i]) * 0x9e3779b97f4a7c15ull;
	return hash ^ hash >> 32; /* products mix upwards alone */
}

static __always_inline __u64 way_word(const struct view *v, __u32 to, __u64 seal)
{
	return ((__u64)to << 32 | v->at) ^ seal;
}

/* Where a way leads that begins at this hook: an ifindex, and FLOW_TO_PEER. 0: it is none of this flow and this hook. */
static __always_inline __u32 way_leads(const struct view *v, const struct flow_way *way, __u64 seal)
{
	__u64 word = *(volatile const __u64 *)&way->leads ^ seal;

	return (__u32)word == v->at ? word >> 32 : 0;
}

/* Whether what is known of this packet holds for those behind it, by which the flow that it is of was judged in epoch. */
static __always_inline bool is_exemplary(const struct view *v, __u64 epoch)
{
	return v->to && epoch == v->epoch && !v->per_packet && !(v->p.flags & PACKET_FRAGMENT) &&
	       v->flow.judged != REASON_SYSTEM && v->flow.judged != REASON_FAILSAFE;
}

/*
 * Notes how this direction goes on, for way.h: rules that only look at flows say the same of each packet behind this one, as long
 * as the generation is the same. What ranks above the operator's rules is not asked about bans, and stays here. A flow takes what is
 * noted along when it is proven; what was being noted at that moment it never learns, and is judged as ever.
 */
static __always_inline void note_way(const struct view *v, struct flow *flow)
{
	struct flow_way *way = v->reply ? &flow->back : &flow->there;
	__u64 seen = *(volatile __u64 *)&way->epoch, seal;

	if (!is_exemplary(v, flow->epoch))
		return;
	seal = way_seal(v);
	if (seen == v->epoch && way_leads(v, way, seal) == v->to)
		return;
	if (seen == FLOW_WAY_BUSY || __sync_val_compare_and_swap(&way->epoch, seen, FLOW_WAY_BUSY) != seen)
		return;
	*(volatile __u64 *)&way->leads = way_word(v, v->to, seal);
	way->rule[0] = v->flow.rule[0];
	way->rule[1] = v->flow.rule[1];
	__sync_lock_test_and_set(&way->epoch, v->epoch); /* behind the others, on every processor */
}

/*
 * Enters a new flow. False where another CPU was first with it: then the packet is one more of that flow, and v->found says
 * where it is; else v->found remains IN_NONE. A RST opens nothing.
 */
static __always_inline bool enter_flow(struct view *v, __u64 now)
{
	struct flow_pressure *pressure;
	struct flow *flow = &v->flow;
	__u32 zero = 0;
	long err;

	if (v->key.protocol == IPPROTO_TCP && (v->p.tcp_flags & TCP_RST))
		return true;
	clear(&flows, v, IN_FLOWS);
	clear(&fresh_out, v, IN_FRESH_OUT);
	clear(&fresh_in, v, IN_FRESH_IN);
	flow->last_ns = now;
	if (!(flow->flags & FLOW_NAT))		     /* its translation bears the same time already */
		flow->since_ns = bpf_ktime_get_ns(); /* tells it from others of its key */
	flow->epoch = v->per_packet & PER_PACKET_SEES ? 0 : v->epoch;
	flow->at = hook_of(v);
	flow->opener = v->end;
	flow->flags &= FLOW_INSIDE | FLOW_NAT;
	if (v->per_packet || (v->p.flags & PACKET_FRAGMENT))
		flow->flags |= FLOW_ASK;
	if (is_exemplary(v, flow->epoch)) {
		flow->there.leads = way_word(v, v->to, way_seal(v));
		flow->there.rule[0] = flow->rule[0];
		flow->there.rule[1] = flow->rule[1];
		flow->there.epoch = v->epoch;
	}
	flow->sent.packets = 1;
	flow->sent.bytes = v->p.len;
	if (v->key.protocol == IPPROTO_TCP && (v->p.tcp_flags & TCP_FIN)) {
		flow->flags |= FLOW_FIN_OPENER;
		flow->state = FLOW_CLOSING;
	}
	if (flow->flags & FLOW_INSIDE)
		err = bpf_map_update_elem(&fresh_out, &v->key, flow, BPF_NOEXIST);
	else
		err = bpf_map_update_elem(&fresh_in, &v->key, flow, BPF_NOEXIST);
	if (err == -EEXIST) {
		v->found = flow->flags & FLOW_INSIDE ? IN_FRESH_OUT : IN_FRESH_IN;
		return false;
	}
	if (!err) {
		tell(v, flow, FLOW_EVENT_NEW);
		return true;
	}
	pressure = bpf_map_lookup_elem(&flow_pressure, &zero);
	if (pressure)
		pressure->unmade++;
	return true;
}

/*
 * The packet passed for good: its flow is entered or moved on. Called once on its way through the box. A flow that was
 * found and is gone by now is not entered again: the next packet does. Returns 1 where another CPU entered the flow in the
 * meantime: v->flow is then what stands there.
 */
__noinline int track(struct __sk_buff *skb, struct view *v)
{
	struct flow *flow;
	bool raced;
	__u64 now;

	if (!v || explain || v->key.protocol == FLOW_NO_PROTOCOL)
		return 0;
	now = bpf_ktime_get_coarse_ns();
	raced = !v->found && !enter_flow(v, now);
	if (!v->found)
		return 0;
	flow = find_flow(v);
	if (!flow)
		return 0;
	v->reply = (flow->opener & 1) != v->end;
	if (raced)
		v->flow = *flow;
	else if (!v->reply && !v->known)
		record(v, flow);
	if (!raced)
		note_way(v, flow);
	move_on(skb, v, flow, now);
	return raced;
}

/* By whom the packet's flow was opened, if this is its first direction: the role where it came in. */
static __always_inline void opened_by(struct view *v, enum role role, bool inside)
{
	v->flow.in = v->in;
	if (v->found) /* its first direction may come another way by now; it is whose it was */
		return;
	v->flow.owner = role == ROLE_WORKLOAD || role == ROLE_DOWNSTREAM ? v->in : 0;
	if (inside)
		v->flow.flags |= FLOW_INSIDE;
}

/*
 * The key of the packet that an ICMP error quotes. Returns the end that sent that, to which the error goes (anything else is
 * forged), or FLOW_UNQUOTED. Global: verified once.
 */
__noinline int quoted_key(struct __sk_buff *skb, const struct packet *p, struct flow_key *key)
{
	const union addr *sender;
	struct cursor c;
	__u8 end;

	if (!p || !key || !(p->flags & PACKET_ICMP_ERROR) || p->l4 > MAX_L4_OFFSET)
		return FLOW_UNQUOTED;
	cursor_of(&c, skb);
	c.pos += (p->l4 & MAX_L4_OFFSET) + sizeof(struct icmp_header);
	if (c.pos > c.end)
		return FLOW_UNQUOTED;
	end = flow_quoted(skb, &c, p, key);
	if (end == FLOW_UNQUOTED)
		return FLOW_UNQUOTED;
	sender = end ? &key->addr[1] : &key->addr[0];
	if (sender->half[0] != p->dst.half[0] || sender->half[1] != p->dst.half[1])
		return FLOW_UNQUOTED;
	return end;
}

/*
 * Whether an ICMP error quotes a packet of a tracked flow, of either direction. A workload is no router (host): what it
 * complains about was sent to itself, or it could say what it likes to any party of any flow. Global, too.
 */
__noinline int quotes_tracked_flow(struct __sk_buff *skb, const struct packet *p, bool host)
{
	const union addr *other;
	struct flow_key key;
	struct flow *flow;
	__u8 end;

	if (!p)
		return 0;
	end = quoted_key(skb, p, &key);
	if (end == FLOW_UNQUOTED)
		return 0;
	other = end ? &key.addr[0] : &key.addr[1];
	if (host && (other->half[0] != p->src.half[0] || other->half[1] != p->src.half[1]))
		return 0;
	flow = flow_find(&flows, &key);
	if (!flow)
		flow = flow_find(&fresh_out, &key);
	if (!flow)
		flow = flow_find(&fresh_in, &key);
	return flow && flow->judged != REASON_FLOW_REVOKED;
}
