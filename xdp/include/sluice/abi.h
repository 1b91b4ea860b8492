/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/*
 * What C and Go agree on. Go's mirror in xdp/abi is generated from the BTF of these types. Fields named __be16 and
 * __be32 hold network byte order, everything else the host's.
 */

#include <linux/types.h>

/* An IPv4 address stands in word[3] behind ::ffff:0:0/96, so that both families share keys; see addr_from_ip4. */
union addr {
	__u8 byte[16];
	__be32 word[4];
	__u64 half[2];
};

enum action { ACTION_CONTINUE = 0, ACTION_ACCEPT = 1, ACTION_DROP = 2 };

enum fragments { FRAGMENTS_DEFAULT = 0, FRAGMENTS_ACCEPT = 1, FRAGMENTS_DROP = 2 };

enum role {
	ROLE_NONE = 0,
	ROLE_UPLINK = 1,
	ROLE_DOWNSTREAM = 2,
	ROLE_WORKLOAD = 3,
	ROLE_TUNNEL = 4,
	ROLE_MANAGEMENT = 5,
	ROLE_MAX = 6,
};

/* One counter, per CPU. */
struct counter {
	__u64 packets;
	__u64 bytes;
};

/* Reason counters are one array: interface slot * REASON_SLOTS + reason. Slot 0 is "interface unknown". */
#define INTERFACE_SLOTS 256

struct interface {
	__u32 slot; /* of the reason counters, 1 to INTERFACE_SLOTS - 1 */
	__u8 role;  /* enum role */
	__u8 flags; /* INTERFACE_* */
	__u16 pad;
	__u32 workload; /* index into workloads + 1; 0: none */
};
#define INTERFACE_JUDGE	    1 /* tcx judges policy.ingress here: tunnels, and uplinks with xdp.mode none */
#define INTERFACE_L3	    2 /* packets have no Ethernet header */
#define INTERFACE_FAIL_OPEN 4 /* what the XDP root does while its slot is empty */

/* ---- classifier: one rule space per object, policies are ranges of it ---- */

#define MAX_RULES	4096 /* entries of one rule space; a rule with many port ranges takes several */
#define RULE_WORDS	(MAX_RULES / 64)
#define MAX_PORT_RANGES 4
#define RULE_IDS	65536 /* size of the rule counters; id 0 is never used */

struct prefix4_key {
	__u32 prefixlen;
	__be32 addr;
};

struct prefix6_key {
	__u32 prefixlen;
	__u8 addr[16];
};

/* Which entries of the rule space a class of addresses can match: bit n is entry n. */
struct class_bits {
	__u64 word[RULE_WORDS];
};

struct port_range { /* host byte order, inclusive */
	__u16 first;
	__u16 last;
};

struct rule {
	__u32 id;
	__u8 action;					 /* enum action */
	__u8 flags;					 /* RULE_* */
	__u8 protocol;					 /* unless RULE_ANY_PROTOCOL */
	__u8 ttl;					 /* 0: any */
	struct port_range ports[MAX_PORT_RANGES];	 /* destination; unused ones are 1-0 */
	struct port_range source_ports[MAX_PORT_RANGES]; /* unused ones are 1-0 */
};
#define RULE_SHADOW	  1
#define RULE_ANY_PROTOCOL 2
#define RULE_PORTS	  4 /* ports are compared */
#define RULE_SOURCE_PORTS 8 /* source ports are compared */

struct policy {
	__u32 first;	     /* first entry of the rule space */
	__u32 count;	     /* entries */
	__u8 default_action; /* enum action */
	__u8 fragments;	     /* enum fragments */
	__u16 pad;
};

/* Indexes into the policies array that both objects share. Workloads' policies follow, two each: ingress, egress. */
enum policy_index {
	POLICY_FAILSAFE = 0,
	POLICY_SYSTEM = 1,
	POLICY_INGRESS = 2,
	POLICY_EGRESS = 3,
	POLICY_WORKLOADS = 4,
};
#define MAX_WORKLOADS 1024
#define MAX_POLICIES  (POLICY_WORKLOADS + 2 * MAX_WORKLOADS)

/* Classes of addresses that no prefix covers. */
enum class_table { CLASS_SRC4 = 0, CLASS_DST4 = 1, CLASS_SRC6 = 2, CLASS_DST6 = 3, CLASS_TABLES = 4 };

/* ---- flows: the minimal table, layout version 1 ---- */

/* Always in the direction of the flow's first packet. ICMP echo: the request has its id in sport and 0 in dport. */
struct flow_key {
	union addr src;
	union addr dst;
	__be16 sport;
	__be16 dport;
	__u8 protocol;
	__u8 scope
		[3]; /* link-local addresses behind a workload: 24 bits of its ifindex, lowest first; else 0 */
};

struct flow {
	__u64 last_ns; /* CLOCK_MONOTONIC of the last packet of either direction */
	__u32 flags;   /* FLOW_* */
	__u32 pad;
};
#define FLOW_REPLIED 1
#define FLOW_CLOSING 2 /* RST, or FIN, was seen */

/* ---- workloads ---- */

struct workload {
	__u32 ifindex; /* host side of the veth */
	__u32 index;   /* its policies are POLICY_WORKLOADS + 2 * index (ingress) and + 1 (egress) */
};

/* ---- explain: what the twin writes instead of counting ---- */

struct explanation {
	__u32 reason;  /* enum reason */
	__u32 rule;    /* stable id; 0: none */
	__u32 policy;  /* index of the policy that decided; valid where rule or a default decided */
	__u32 decided; /* 1: policy is valid; with tc: the last one that was asked */
	__u32 ifindex; /* of the redirect, 0: none */
	__u32 fate;    /* XDP_* or TC_ACT_* as returned */
};

/*
 * skb->mark: bits 0-15 belong to the operator. Bit 16: our tcx ingress judged the packet, the forwarding matrix
 * included. Bit 24: an encrypted packet of a tunnel (WireGuard's fwmark).
 */
#define MARK_JUDGED   0x00010000u
#define MARK_UNDERLAY 0x01000000u
#define MARK_OURS     (MARK_JUDGED | MARK_UNDERLAY)

/*
 * What the root honours while its slot is empty and xdp.fail is closed: management: in its plainest form, because no
 * table of a generation is there. The destination must also be in the pinned map of the box's own addresses.
 */
#define MAX_FAILSAFE 256
#define MAX_SELF     1024 /* own addresses that the root knows */
struct failsafe {
	union addr from; /* network, IPv4 mapped */
	union addr mask;
	struct port_range ports;
	__u8 protocol;
	__u8 any_protocol;
	__u8 used; /* 0 ends the list */
	__u8 pad;
};
