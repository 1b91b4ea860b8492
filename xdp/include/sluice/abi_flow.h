/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* Part of abi.h: flows, layout version 3. */

#include "abi.h"

/*
 * One key for both directions. End 0 is the smaller one of (addr.half[0], addr.half[1], port), each compared as the number
 * that the machine loads: in Go on little endian binary.LittleEndian of the bytes. ICMP echo: who asked has the id as
 * port, the other end 0. A protocol without ports has 0 twice.
 */
struct flow_key {
	union addr addr[2];
	__be16 port[2];
	__u8 protocol;
	__u8 scope
		[3]; /* link-local addresses behind a workload: 24 bits of its ifindex, lowest first; else 0 */
};

struct flow_side {
	__u64 packets; /* that one buffer stands for are one */
	__u64 bytes;   /* of frames */
};

enum flow_state {
	FLOW_NEW = 0,	      /* packets of one direction were seen */
	FLOW_REPLIED = 1,     /* of both */
	FLOW_ESTABLISHED = 2, /* proven: who opened it sees what is answered */
	FLOW_CLOSING = 3,     /* TCP: one end has sent its FIN */
	FLOW_CLOSED = 4,      /* TCP: both have, or there was a RST */
};

/*
 * How a direction of a flow goes on that policy let pass, for the packets behind (tc/bpf/way.h). Written by one CPU at a time:
 * whoever claims it by FLOW_WAY_BUSY.
 */
struct flow_way {
	__u64 epoch;   /* generation that judged it so; 0: none */
	__u64 leads;   /* from where to where, sealed by key and direction: see way_seal() */
	__u32 rule[2]; /* of this direction, as flow.rule: what counts its packets */
};
#define FLOW_WAY_BUSY (~0ull)	  /* of epoch */
#define FLOW_TO_PEER  0x80000000u /* of where it leads: into the namespace behind; else to the next hop */

/*
 * Written by tc alone, what several CPUs count atomically. An element of flows begins 8 bytes into a slab of 256 bytes and its
 * value at 96, which that fills: so what a packet of one direction writes is in one cache line, which the other leaves alone.
 */
struct flow {
	__u64 last_ns; /* CLOCK_MONOTONIC of the last packet that passed, give or take a second */
	__u64 epoch; /* generation whose policies judged the first direction last; 0: each packet is judged */
	__u32 at;    /* hook that judges and tracks the first direction: ifindex, and FLOW_AT_EGRESS */
	__u32 in;    /* ifindex by which the first direction comes in; 0: the node's own */
	__be16 nat_port; /* FLOW_NAT */
	__u8 state;	 /* enum flow_state */
	__u8 flags;	 /* FLOW_INSIDE to FLOW_ASK */
	__u8 opener;	 /* the end of the key that sent the first packet: 0 or 1 */
	__u8 judged;	 /* enum reason: what judging gave, or FLOW_REVOKED: both directions are dropped */
	__u8 pad[2];
	struct flow_side sent; /* from the opener */
	struct flow_way there;
	__u64 since_ns;		   /* of the first packet: with the key it identifies the flow */
	union addr nat_addr;	   /* FLOW_NAT: source of the first direction on the wire */
	struct flow_side answered; /* to it */
	struct flow_way back;
	__u32 seq;   /* FLOW_SEQ: what the opener must acknowledge, host byte order */
	__u32 owner; /* in where it is a workload's or a LAN's; 0: the node or the outside opened it */
	__u32 rule
		[2]; /* stable ids of what let it in, defaults too: of who sends, of who receives; 0: none */
};
_Static_assert(sizeof(struct flow) == 152,
	       "a slab of 256 bytes holds 8, struct htab_elem's 48, the key and this");
#define FLOW_AT_EGRESS	0x80000000u
#define FLOW_INSIDE	1  /* the node, a workload or a LAN opened it */
#define FLOW_NAT	2  /* it is translated */
#define FLOW_SEQ	4  /* TCP: the answer to its SYN was seen */
#define FLOW_FIN_OPENER 8  /* TCP: who opened it has sent a FIN */
#define FLOW_FIN_OTHER	16 /* the other end has */
#define FLOW_RST	32
#define FLOW_ASK	64 /* rule and judged are not for the next packet: policies are asked again */

/* Unproven flows are apart, in two tables of this part of the size of flows each, or as many as the least. */
#define FRESH_PART  8
#define FRESH_LEAST 4096

/* How flows run out of room, per CPU. */
struct flow_pressure {
	__u64 full;    /* proven, and no room in flows: tried once a second for each such flow */
	__u64 crowded; /* proven, and its owner has its share of flows: the same */
	__u64 unmade;  /* a new one could not be entered at all: its packet passed untracked */
};
#define MAX_FLOW_OWNERS 2048 /* of flow_shares */

/* The way back of a translated flow. It holds only while the flow of inner lives with these very values. */
struct translation {
	struct flow_key inner;
	__u64 since_ns;	 /* of the flow */
	union addr addr; /* flow.nat_addr */
	__be16 port;	 /* flow.nat_port */
	__u8 pad[6];
};

/*
 * A translation that may lose its flow without a word: unproven flows are pushed out. The queue of them has room for YOUNG_PART times the
 * unproven flows of the inside, and the table of translations for it beside all flows. Layout version 1.
 */
struct young_translation {
	struct flow_key wire;
	__u64 since_ns; /* of the translation */
};
#define YOUNG_PART 2

/* What a generation knows beside its tables: one element. */
struct generation_settings {
	__u64 epoch; /* of flow.epoch: the beginning of a hash of what the generation is, never 0 */
	__u32 share; /* flows that one owner may have in flows */
	__u16 snat_first; /* ports that sources are translated to, host byte order, inclusive; 0: nothing is translated */
	__u16 snat_last;
	__u64 self_bits[SELF_BITS / 64]; /* SELF_BIT of each own address is set */
};

/* ---- the sweep (tc/bpf/sweep.c): what it found ---- */

enum swept_table { SWEPT_FLOWS = 0, SWEPT_FRESH_OUT = 1, SWEPT_FRESH_IN = 2, SWEPT_TABLES = 3 };
#define SWEPT_REVOKED 5 /* beside the values of enum flow_state */
#define SWEPT_STATES  6

struct swept {
	__u32 entries[SWEPT_TABLES]; /* left, by enum swept_table */
	__u32 states[SWEPT_STATES];  /* of them, by enum flow_state, or SWEPT_REVOKED */
	__u32 translations;	     /* left */
	__u32 expired;		     /* flows that were deleted */
	__u32 orphans;		     /* translations that were, for want of their flow */
};
