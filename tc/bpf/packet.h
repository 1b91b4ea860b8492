/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* One packet at a tcx hook: what every stage needs, and the one way out, where reasons are counted. */

#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/if_packet.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <bpf/bpf_helpers.h>

#define PARSE_CTX			    struct __sk_buff
#define load_bytes			    bpf_skb_load_bytes
#define store_bytes(skb, offset, from, len) bpf_skb_store_bytes(skb, offset, from, len, BPF_F_RECOMPUTE_CSUM)

#include <sluice/abi.h>

static __always_inline void tag_beside(const struct __sk_buff *skb, struct capture_event *e)
{
	if (!skb->vlan_present)
		return;
	e->vlan_proto = skb->vlan_proto; /* network byte order, as the kernel has it */
	e->vlan_tci = skb->vlan_tci;
}

/* Sockets of AF_XDP are filled from XDP alone. */
static __always_inline bool hand_over(struct __sk_buff *skb, __u32 socket)
{
	(void)skb;
	(void)socket;
	return false;
}

/* A packet turned round is only asked about. */
#define is_counted(p) (!((p)->flags & PACKET_TURNED))

#include <sluice/bans.h>
#include <sluice/flowspec.h>
#include <sluice/capture.h>
#include <sluice/classify.h>
#include <sluice/flow.h>
#include <sluice/fragments.h>
#include <sluice/link.h>
#include <sluice/log.h>
#include <sluice/tcx.h>

/* The longest chain of headers that is brought into linear memory; longer ones are left to the kernel. */
#define PULL_LEN 192

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, union addr);
	__type(value, struct workload);
} workloads SEC(".maps");

/* Whether an address is the box's own. Most are not, which one bit tells; the hash is asked about the rest. */
static __always_inline bool is_self(const union addr *a)
{
	__u32 zero = 0, bit = SELF_BIT(a->word[2] ^ a->word[3]);
	struct generation_settings *s = bpf_map_lookup_elem(&settings, &zero);

	return s && (s->self_bits[bit / 64] >> bit % 64 & 1) && bpf_map_lookup_elem(&self, a);
}

/* Prefixes of strict tunnels, and those within them that are not: PLAIN_* or an ifindex. */
PREFIX_TRIE(strict4, prefix4_key);
PREFIX_TRIE(strict6, prefix6_key);

/* matrix[from][to]: which roles may forward to which. Set by Go before loading. */
volatile const __u8 matrix[ROLE_MAX][ROLE_MAX] = {};

/* Whether there are prefixes of strict tunnels. Set by Go before loading. */
volatile const __u8 has_strict = 1;

/* interfaces, but found by an index: a lookup in a hash takes as long as parsing does. The hash knows those that share a place. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, INTERFACE_SLOTS);
	__type(key, __u32); /* ifindex % INTERFACE_SLOTS */
	__type(value, struct interface_near);
} interfaces_near SEC(".maps");

/* Fills in an interface, and is false where the file has none: not a pointer, since two maps are two ways for the verifier. */
static __always_inline bool find_interface(__u32 ifindex, struct interface *to)
{
	__u32 index = ifindex % INTERFACE_SLOTS;
	struct interface_near *near = bpf_map_lookup_elem(&interfaces_near, &index);
	struct interface *far;

	if (near && ifindex && near->ifindex == ifindex) {
		*to = near->interface;
		return true;
	}
	far = bpf_map_lookup_elem(&interfaces, &ifindex);
	if (far)
		*to = *far;
	return far;
}

/* Where an entry of a flow stands. */
enum flow_table { IN_NONE = 0, IN_FLOWS = 1, IN_FRESH_OUT = 2, IN_FRESH_IN = 3, FLOW_TABLES = 4 };

/* How the source of what leaves by an uplink is translated: by what its flow has, has since now, or its first fragment had. */
enum nat { NAT_NONE = 0, NAT_KNOWN = 1, NAT_NEW = 2, NAT_FRAGMENT = 3 };

/* One packet on its way through one hook. */
struct view {
	struct packet p;
	struct decision d;
	struct interface on; /* of the hook */
	__u32 reason;	     /* enum reason: why it leaves */
	__u32 slot;	     /* of the reason counters */
	__u32 at;	     /* interface of the hook */
	__u32 in;	     /* by which it came in; 0: made here */
	__u32 hook;	     /* enum hook */
	__u32 ifindex;	     /* redirected to; 0: not */
	bool off_link;	     /* looks like link control, but goes elsewhere */
	bool l3;	     /* begins with its IP header */
	bool overlaid;	     /* the overlays let it pass already */
	__u16 mss;	     /* what that of a SYN has become; 0: it stays */

	/* From here on it is written whole by view_keys(). */
	struct flow_key key;
	__u8 end;    /* of the key: who sends the packet */
	bool missed; /* no table had its flow when the short way looked */

	/* From here on for judging, see begin_judging(). */
	struct classes c; /* where classified */
	struct flow
		flow; /* as it was found, or is to be: but for rule and judged, which are of this packet */
	__u64 epoch;  /* of this generation */
	__u64 ended
		[FLOW_TABLES]; /* since_ns of what stands there, has ended, and is in the way of a new flow; 0: nothing */
	union addr wire_dst; /* translated: the destination that it came with */
	__be16 wire_port;
	__u8 nat;	 /* enum nat */
	bool translated; /* its destination is */
	__u32 to;	 /* flow_way.to of the packets behind this one; 0: they are judged as this one is */
	__u8 found;	 /* enum flow_table */
	__u8 per_packet; /* PER_PACKET_* of the policies that were asked, */
	__u8 last_asked; /* and of the last one */
	bool classified;
	bool known;   /* first direction, judged before at this hook: no policy is asked */
	bool reply;   /* to a flow that passed before, and that policy still permits */
	bool doubt;   /* the same, but this generation has not judged its first direction yet */
	bool revoked; /* the same, but policy no longer permits it */
	bool related; /* an ICMP error about a flow */
};

/*
 * The view is too large for the stack beside what judging takes of it. One packet at a time is at a hook on a CPU; the twin has
 * its own, for it runs where it can be interrupted.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32); /* 1: of the explain twin */
	__type(value, struct view);
} views SEC(".maps");

/* What the short way, and what leaves without being judged, does without. */
static __always_inline void begin_judging(struct view *v)
{
	__builtin_memset(&v->c, 0, sizeof(*v) - offsetof(struct view, c));
}

static __always_inline struct view *new_view(void)
{
	__u32 index = !!explain;
	struct view *v = bpf_map_lookup_elem(&views, &index);

	if (!v)
		return NULL;
	__builtin_memset(v, 0, offsetof(struct view, key));
	if (explain)
		begin_judging(v);
	return v;
}

/* A bare IP packet, without an Ethernet header. Test runs always supply one, and so the twin always expects it. */
static __always_inline bool is_l3(const struct interface *i)
{
	return !explain && (i->flags & INTERFACE_L3);
}

static __always_inline int fate_of(enum reason reason)
{
#define FATE_pass     TCX_NEXT
#define FATE_stack    TCX_NEXT
#define FATE_drop     TCX_DROP
#define FATE_answer   TCX_DROP /* XDP alone gives these two */
#define FATE_redirect TCX_DROP
#define FATE_CASE(name, fate, text) \
	case REASON_##name:         \
		return FATE_##fate;
	switch (reason) {
		SLUICE_REASONS(FATE_CASE)
	default:
		return TCX_DROP;
	}
}

/* Says why the packet leaves. fate is what the hook returns. */
static __always_inline int leave(struct view *v, enum reason reason, int fate)
{
	v->reason = reason;
	return fate;
}

static __always_inline int leave_with(struct view *v, enum reason reason)
{
	return leave(v, reason, fate_of(reason));
}

/* The rule that gave the reason, or that let in what passes; 0: none did. */
static __always_inline __u32 rule_of(const struct view *v, int fate)
{
	return fate != TCX_DROP || v->d.reason == v->reason ? v->d.rule : 0;
}

/* The one way out: counts and tells who looks on, or in the twin explains. */
static __always_inline int finish(struct __sk_buff *skb, const struct view *v, int fate)
{
	__u32 zero = 0;
	struct explanation *e;

	if (!explain) {
		count_reason(v->slot, v->reason, v->p.len);
		if (fate == TCX_DROP && watched(WATCH_DROPS))
			report_drop(&v->p, v->hook, v->at, v->reason, rule_of(v, fate));
		if (watched(WATCH_CAPTURE))
			report_capture(skb, &v->p, v->hook, v->at, v->l3 ? CAPTURE_L3 : 0, v->reason,
				       rule_of(v, fate));
		return fate;
	}
	e = bpf_map_lookup_elem(&explained, &zero);
	if (e) {
		e->reason = v->reason;
		e->rule = v->d.rule;
		e->policy = v->d.policy;
		e->decided = v->d.reason != REASON_NONE && !of_flowspec(v->reason);
		e->ifindex = v->ifindex;
		e->fate = fate;
		e->nat = v->nat ? EXPLAINED_SOURCE : v->translated ? EXPLAINED_DESTINATION : EXPLAINED_NO_NAT;
		e->nat_addr = v->nat ? v->flow.nat_addr : v->p.dst;
		e->nat_port = v->nat ? v->flow.nat_port : v->p.dport;
		e->mss = v->mss;
	}
	return fate;
}

static __always_inline void cursor_of(struct cursor *c, struct __sk_buff *skb)
{
	c->start = (void *)(long)skb->data;
	c->pos = c->start;
	c->end = (void *)(long)skb->data_end;
}

/* Volatile, or the compiler takes numbers of 32 bits for the pointers as well, which they are not to the verifier. */
static __always_inline __u32 linear_len(const struct __sk_buff *skb)
{
	return *(volatile const __u32 *)&skb->data_end - *(volatile const __u32 *)&skb->data;
}

/*
 * Whether all that is to be read lies in linear memory, as the kernel's own stacks make packets: headers there, payload elsewhere.
 * To pull a byte of that copies the whole of what is linear, because a copy waits to be sent again.
 */
static __always_inline bool has_linear_headers(const struct __sk_buff *skb, __u32 l3)
{
	void *ip = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct iphdr *ip4;
	struct ipv6hdr *ip6;
	__u8 protocol;

	asm volatile(
		""
		: "+r"(ip)); /* or the compiler copies it as the 32 bits that it was: no pointer to the verifier */
	ip += l3;
	ip4 = ip;
	ip6 = ip;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (ip + sizeof(*ip4) + sizeof(struct tcphdr) > end || ip4->ihl != 5)
			return false;
		protocol = ip4->protocol;
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		if (ip + sizeof(*ip6) + sizeof(struct tcphdr) > end)
			return false;
		protocol = ip6->nexthdr;
	} else {
		return false;
	}
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP;
}

/* Parses a frame, or with l3 a bare packet. */
static __always_inline enum reason parse(struct __sk_buff *skb, struct packet *p, bool l3)
{
	struct cursor c;
	enum reason reason;
	__u32 want = skb->len < PULL_LEN ? skb->len : PULL_LEN;

	if (linear_len(skb) < want && !has_linear_headers(skb, l3 ? 0 : ETH_HLEN))
		bpf_skb_pull_data(skb, want); /* a failure shows as a truncated packet */
	cursor_of(&c, skb);
	if (l3) {
		p->ethertype = skb->protocol;
	} else {
		reason = parse_ethernet(&c, p);
		if (reason != REASON_NONE)
			return reason;
	}
	return parse_l3(skb, &c, p);
}

static __always_inline bool is_multicast(const struct packet *p)
{
	if (p->family == 4)
		return p->dst.byte[12] >= 224; /* 224.0.0.0/4, and class E with the broadcast */
	return p->dst.byte[0] == 0xff;
}

static __always_inline bool is_link_local6(const union addr *a)
{
	return a->byte[0] == 0xfe && (a->byte[1] & 0xc0) == 0x80;
}

static __always_inline bool may_forward(__u32 from, __u32 to)
{
	return from < ROLE_MAX && to < ROLE_MAX && matrix[from][to];
}
