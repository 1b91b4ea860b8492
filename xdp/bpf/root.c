// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/*
 * The root: attached once per interface through a pinned link, and hardly ever replaced. It hands every packet to the
 * generation in slot 0. What stands behind the tail call runs only while that slot is empty.
 */

#include "stages.h"
#include "sluice/iter.h"

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} slot SEC(".maps"); /* pinned, one per interface */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_FAILSAFE);
	__type(key, __u32);
	__type(value, struct failsafe);
} failsafe SEC(".maps"); /* pinned */

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_SELF);
	__type(key, union addr);
	__type(value, __u8);
} self_root SEC(".maps"); /* pinned: the box's own addresses */

static __always_inline bool failsafe_matches(const struct failsafe *f, const struct packet *p)
{
	__u16 port = bpf_ntohs(p->dport);

	if ((p->src.half[0] & f->mask.half[0]) != f->from.half[0] ||
	    (p->src.half[1] & f->mask.half[1]) != f->from.half[1])
		return false;
	if (!f->any_protocol && f->protocol != p->protocol)
		return false;
	if (f->ports.first == 0 && f->ports.last == 0xffff)
		return true; /* any, and so what has no ports to show */
	return (p->flags & PACKET_PORTS) && port >= f->ports.first && port <= f->ports.last;
}

static __always_inline bool failsafe_accepts(const struct packet *p)
{
	struct bpf_iter_num it;
	bool accepts = false;
	int *next;

	if (!bpf_map_lookup_elem(&self_root, &p->dst))
		return false;
	bpf_iter_num_new(&it, 0, MAX_FAILSAFE);
	while ((next = bpf_iter_num_next(&it))) {
		__u32 index = *next;
		struct failsafe *f = bpf_map_lookup_elem(&failsafe, &index);

		if (!f || !f->used)
			break;
		if (failsafe_matches(f, p)) {
			accepts = true;
			break;
		}
	}
	bpf_iter_num_destroy(&it);
	return accepts;
}

/* xdp.fail: closed. Even so the link stays up and the box can be reached over management:. */
static __always_inline enum reason closed(struct xdp_md *ctx)
{
	struct packet p = {};
	struct cursor c = {};
	enum reason reason = parse_frame(ctx, &c, &p);

	if (reason == REASON_NONE)
		reason = link_control(&p);
	if (reason == REASON_NONE)
		reason = failsafe_accepts(&p) ? REASON_FAILSAFE : REASON_NO_GENERATION_DROP;
	return reason;
}

SEC("xdp.frags")
int root(struct xdp_md *ctx)
{
	__u32 ifindex = ctx->ingress_ifindex;
	struct interface *interface;
	enum reason reason;

	bpf_tail_call(ctx, &slot, 0);

	interface = bpf_map_lookup_elem(&interfaces, &ifindex);
	if (interface && (interface->flags & INTERFACE_FAIL_OPEN))
		reason = REASON_NO_GENERATION_PASS;
	else
		reason = closed(ctx);
	count_reason(interface ? interface->slot : 0, reason, bpf_xdp_get_buff_len(ctx));
	return verdict_of(reason);
}

char _license[] SEC("license") = "Dual BSD/GPL";
