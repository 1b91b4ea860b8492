/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* Part of abi.h: the tables of the classifier. */

#include "abi.h"

/*
 * ---- classifier ----
 *
 * Addresses go to classes, one number space per direction: a class is the set of a file's address lists that contain
 * the address. Rules become entries of one rule space per object, in order of priority, policy after policy. An entry
 * says all that must hold of a packet, so whoever finds it checks it whole; buckets, leaves and lists only make few
 * entries to be found.
 */

#define MAX_RULES   (1 << 19) /* entries of one rule space; each range of ports takes one */
#define MAX_CLASSES (1 << 22) /* of one direction */
#define MAX_WALK    2048      /* entries of one list */
#define RULE_IDS    131072    /* most of the rule counters; id 0 is nobody's */

/* Keys of the LPM tries that are no part of the classifier. */
struct prefix4_key {
	__u32 prefixlen;
	__be32 addr;
};

struct prefix6_key {
	__u32 prefixlen;
	__u8 addr[16];
};

/*
 * A prefix table is an array of words. Word 0 is a reference, of one of four kinds:
 * - a value: a class and CLASS_* flags, 24 bits; twice, as if it were a pair of one value;
 * - a node of 1 << bits references: the bits of the address from shift on, of 128, choose one. An IPv4 address is the
 *   first 32 bits, the rest is 0;
 * - a pair of values: of the addresses in one prefix and of those around it. IPv4: the prefix is in the reference, as its
 *   part of the last twelve bits and a one behind; IPv6: it stands in three words, upper half, lower half, and
 *   length << 48 | inner << 24 | outer;
 * - runs sorted by their first address, each holding until the next one begins. The first begins before all that come
 *   this way. IPv4: words of first << 32 | value. IPv6: three words each, upper half, lower half, value.
 */
enum ref_kind { REF_IS_RUNS = 0, REF_IS_VALUE = 1, REF_IS_NODE = 2, REF_IS_PAIR = 3 };
#define REF_OFFSET(ref)	     ((__u32)(ref))
#define REF_RUNS(ref)	     ((__u32)((ref) >> 32) & 0xffff)
#define REF_SHIFT(ref)	     ((__u32)((ref) >> 32) & 0xff)
#define REF_BITS(ref)	     ((__u32)((ref) >> 40) & 0xff)
#define REF_KIND_SHIFT	     62
#define REF_KIND(ref)	     ((__u32)((ref) >> REF_KIND_SHIFT)) /* enum ref_kind */
#define REF_LENGTH(ref)	     ((__u32)((ref) >> 48) & 0xff)
#define REF_INNER_BITS	     12
#define REF_INNER(ref)	     ((__u32)((ref) >> 48) & 0x1fff)
#define REF_INNER_VALUE(ref) ((__u32)((ref) >> 24) & 0xffffff)
#define REF_OUTER_VALUE(ref) ((__u32)(ref) & 0xffffff)
#define CLASS_KEYED	     0x800000u /* a bucket of this class alone exists */
#define CLASS_PAIRED	     0x400000u /* a bucket of this class and one of the other direction exists */
#define CLASS_NUMBER	     0x3fffffu
#define MAX_TABLE_DEPTH4     8 /* nodes on the way of an address: each takes at least four bits */
#define MAX_TABLE_DEPTH6     32
#define MAX_TABLE_RUNS	     8 /* of one reference */

/* Classes of one direction, inclusive. */
struct class_range {
	__u32 first;
	__u32 last;
};

/*
 * An entry of the rule space. What is compared beside classes, protocol and destination port is "the rest": its fields
 * come behind source_ports, match_rest() in match.h compares them, and RULE_REST says that there is something to.
 */
struct rule {
	__u32 id;
	__u32 flags;			/* RULE_* */
	__u8 action;			/* enum action */
	__u8 protocol;			/* unless RULE_ANY_PROTOCOL */
	struct port_range ports;	/* destination, where RULE_PORTS */
	__u8 ttl;			/* 0: any */
	__u8 fragment;			/* enum fragment_match */
	struct class_range src;		/* where RULE_SRC */
	struct class_range dst;		/* where RULE_DST */
	struct port_range source_ports; /* where RULE_SOURCE_PORTS */
	__u32 ifindex;			/* where the packet came in, at egress where it leaves; 0: any */
	__u64 dscp;			/* a bit for each code point (RFC 2474); 0: any */
	__u16 vlan_first;		/* outermost VLAN id, 0: untagged; inclusive, where RULE_VLAN */
	__u16 vlan_last;
	__u16 length_first; /* bytes of the IP packet, inclusive, where RULE_LENGTH; 65535 is without end */
	__u16 length_last;
	__u8 icmp_type_first; /* inclusive, where RULE_ICMP */
	__u8 icmp_type_last;
	__u8 icmp_code_first;
	__u8 icmp_code_last;
	__u8 tcp_mask; /* which flags are compared (byte 13 of the TCP header); 0: none */
	__u8 tcp_flags;
	__u8 pad[2];
} __attribute__((aligned(64))); /* a cache line: to look at an entry is one load */
#define RULE_SHADOW	  1
#define RULE_ANY_PROTOCOL 2
#define RULE_PORTS	  4  /* ports are compared */
#define RULE_SOURCE_PORTS 8  /* source ports are compared */
#define RULE_SRC	  16 /* the bucket did not choose by source: its class is compared */
#define RULE_DST	  32
#define RULE_REST	  64
#define RULE_PLAIN	  0x80000000u /* its verdict says no more than id and action */
#define RULE_HIDDEN	  128 /* later fragments end the search here: it acts, and its policy decides */
#define RULE_VLAN	  256
#define RULE_LENGTH	  512
#define RULE_ICMP	  1024
#define RULE_TCP	  2048 /* tcp_mask is set */
#define RULE_LOGGED	  4096 /* of a shadow rule that does more than count: it is logged, or a limit (log.h) */
#define RULE_TRANSPORT	  (RULE_PORTS | RULE_SOURCE_PORTS | RULE_ICMP | RULE_TCP) /* a later fragment hides it */

/* What an entry does, apart from the rest of it: all of these together fit where a processor finds them fast. */
struct verdict {
	__u32 id;
	__u8 action; /* enum action */
	__u8 pad[3];
	__u32 argument; /* of the action */
	__u32 sample;	/* one in so many packets is logged; 0: none */
};

/*
 * A found reference, 32 bits: 0 is nothing; with LEAF_ENTRY it is an entry; else the word of a leaf or list in leaves.
 * ENTRY_SURE on an entry, in a reference or list, says that who came this way need not compare it: it acts.
 * A leaf is a word with the number of its runs, and in the upper half the greatest power of two below it; then the runs,
 * start << 32 | found, sorted by start: the packet's port key chooses. A list is words of entries in ascending order, with LIST_MORE on all but the last.
 */
#define LEAF_ENTRY   0x80000000u
#define ENTRY_SURE   0x40000000u
#define ENTRY_NUMBER 0x3fffffffu
#define LIST_MORE    0x100000000ull
#define LEAF_SEARCH  21 /* halvings that find a run: a leaf has at most 1 << LEAF_SEARCH */

/* The port key: protocol << 16 | destination port (0 where none is to be seen), or, of a later fragment, this. */
#define PORT_KEY_HIDDEN 0x1000000u /* | protocol */
#define PORT_KEY_END	0x2000000u

/*
 * Which leaf: of a policy, by one class, both, or the ancestors of one. Most leaves begin with an entry of which nothing but
 * protocol and ports is left to compare: that head stands in the slot itself, with what it does, so that finding it and
 * being decided by it is one load. Of an unused slot, leaf is 0.
 */
struct bucket_slot {
	__u32 src; /* class or NO_CLASS */
	__u32 dst;
	__u32 leaf;		 /* a found reference: all entries, the head too */
	__u32 first;		 /* entry: where an earlier one matched, there is nothing to find here */
	__u32 id;		 /* of the head, as are the following */
	struct port_range ports; /* destination; all where not RULE_PORTS */
	struct port_range source_ports; /* all where not RULE_SOURCE_PORTS */
	__u16 kind;			/* policy | BUCKET_* */
	__u8 flags;			/* HEAD_*, and RULE_* as far as HEAD_RULE_FLAGS */
	__u8 protocol;			/* unless RULE_ANY_PROTOCOL */
};
#define BUCKET_SHADOW	0x8000u /* rules that only count */
#define BUCKET_WIDE	0x4000u /* of an ancestor: holds for all classes below it */
#define NO_CLASS	0xffffffffu
#define HEAD_DROPS	1  /* where HEAD_PLAIN; else it accepts */
#define HEAD_HERE	16 /* the first entry is the head */
#define HEAD_ALONE	32 /* and there is no other */
#define HEAD_PLAIN	64 /* its verdict says no more than id, and accept or drop */
#define HEAD_RULE_FLAGS (RULE_ANY_PROTOCOL | RULE_PORTS | RULE_SOURCE_PORTS | RULE_HIDDEN)

#define BUCKET_SLOTS 2
struct bucket { /* one cache line; a full one overflows into the next */
	struct bucket_slot slot[BUCKET_SLOTS];
};
#define MAX_BUCKET_PROBES 32
#define MAX_ANCESTORS	  256 /* with wide buckets, above one class */

/* Where to look, for the rules that act or for those in shadow mode. */
struct search_plan {
	__u32 everywhere; /* found reference: entries that no bucket holds */
	__u32 keys;	  /* KEY_* that have buckets */
};
#define KEY_BOTH     1
#define KEY_SRC	     2
#define KEY_DST	     4
#define KEY_WIDE_SRC 8
#define KEY_WIDE_DST 16

struct policy {
	struct search_plan act;
	struct search_plan shadow;
	__u8 default_action; /* enum action */
	__u8 fragments;	     /* enum fragments */
	__u8 per_packet;     /* PER_PACKET_*: what it says of a packet need not hold for the flow */
	__u32 default_id;    /* stable id of what its default counts as; 0: it is not counted */
};
#define PER_PACKET_SEES 1 /* a rule looks at more than addresses, protocol, ports, interface and ICMP type */
#define PER_PACKET_DOES 2 /* a rule limits, logs or only counts */

/*
 * Whether a policy is to be asked about a packet: never, for it is empty; where its plan for rules that act has keys of the
 * packet's classes, for there is nothing else to it; always.
 */
enum ask { ASK_NEVER = 0, ASK_BY_KEYS = 1, ASK_ALWAYS = 2 };

/* XDP's memory of recent flows: how many on each CPU, a power of two, and what its key needs (recent.h). */
#define RECENT_FLOWS	 1024
#define RECENT_TCP_FLAGS 1
#define RECENT_TTL	 2
#define RECENT_DSCP	 4
#define RECENT_VLAN	 8
#define RECENT_LENGTH	 16
#define RECENT_OFF	 128 /* none: rules in shadow mode count, and no memory counts for them */

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

/* The prefix tables. */
enum class_table { CLASS_SRC4 = 0, CLASS_DST4 = 1, CLASS_SRC6 = 2, CLASS_DST6 = 3, CLASS_TABLES = 4 };
