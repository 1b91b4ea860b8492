/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* Part of abi.h: what rules do beside accept and drop. */

#include "abi.h"

/*
 * ---- limits ----
 *
 * A token bucket is one number, its theoretical arrival time (GCRA, ITU-T I.371 annex A): now is full, later is in debt.
 * Times are CLOCK_MONOTONIC in ticks of 1/64 ns, so that 100 Gbps and 100 Mpps keep their fractions; they wrap after nine
 * years of uptime, so only their differences mean something.
 */
#define MAX_LIMITERS	4096
#define LIMIT_TICK_BITS 6
#define LIMIT_PACKETS	128    /* what one packet is charged at most: segments, */
#define LIMIT_BYTES	131072 /* or bytes */

struct limiter {
	__u32 rule;   /* stable id: its buckets */
	__u32 beyond; /* id of the counter of what it drops, in rule_hits */
	__u64 burst;  /* ticks that a bucket may be ahead of now */
	__u64 mark;   /* of what the limit allows: buckets of another mark are another's. Never 0 */
	__u64 mult;   /* ticks of a packet or byte: mult >> shift */
	__u8 shift;
	__u8 flags; /* LIMIT_* */
	__u8 pad[2];
	__be32 mask4; /* of sources */
	union addr mask6;
} __attribute__((aligned(64)));
#define LIMIT_BY_BYTES	1
#define LIMIT_BY_SOURCE 2

/* The bucket of a rule; with LIMIT_BY_SOURCE, of the sources that found no way. */
struct limit_bucket {
	__u64 tat;
	__u64 mark;		/* of the limit that it is of; 0: of none yet */
} __attribute__((aligned(64))); /* CPUs that write one do not slow those that write the next */

/*
 * Buckets of sources: a table of fixed size, shared by all rules. owner is a tag in the upper half, and below it how often
 * the owner was seen, up to LIMIT_PROVEN. Layout version 1.
 */
struct limit_way {
	__u64 tat;
	__u64 owner; /* 0: nobody's */
};
#define LIMIT_WAYS 4
struct limit_set { /* one cache line */
	struct limit_way way[LIMIT_WAYS];
};
#define LIMIT_SETS   65536
#define LIMIT_PROVEN 4

/* How full the table of sources is, per CPU. */
struct limit_pressure {
	__u64 forgotten; /* debts of unproven sources, to make room for others */
	__u64 shared;	 /* packets whose source found no way: they share the bucket of the rule */
};

/* ---- bypass: packets to AF_XDP sockets of another program ---- */

#define MAX_SOCKETS   256 /* pairs of socket and interface */
#define SOCKET_QUEUES 256 /* receive queues of one interface */

/* Which XSKMAP. It is keyed by the receive queue, and the program that owns the sockets fills it. */
struct socket_key {
	__u32 socket; /* the argument of ACTION_BYPASS: FNV-1a of the socket's name */
	__u32 ifindex;
};

/* Packets that the kernel could not put into a socket, per CPU, by the errno that it gave. */
struct socket_losses {
	__u64 no_frame; /* ENOMEM, ENOSPC: the fill ring is empty (copy mode), or the frame is too large for a chunk */
	__u64 ring_full; /* ENOBUFS: the receive ring is full */
	__u64 wrong_place; /* EINVAL: the socket is bound to another interface or queue than it is registered for */
	__u64 other;
};

/* ---- syn_cookie: whose SYNs are answered, and how ---- */

#define MAX_SYN_LISTENERS 4096

struct syn_listener_key {
	union addr addr;
	__be16 port;
	__u8 pad[6];
};

/*
 * A protected (address, port). Go makes the entry; XDP writes passed_ns, tcx the rest, from the listener's own
 * SYN-ACKs. So an answer says what the listener itself would, whatever its socket options and sysctls are. 0: not seen.
 */
struct syn_listener {
	__u64 passed_ns;   /* CLOCK_MONOTONIC of the last SYN that was passed to it in its turn */
	__u64 answered_ns; /* of its last SYN-ACK */
	__u64 since_ns;	   /* begin of the present period: what was not seen in two of them is forgotten */
	__u16 mss;	   /* the largest */
	__u16 fresh_mss;   /* the same of this period */
	__u16 window;	   /* of its SYN-ACK: never scaled (RFC 7323 section 2.2) */
	__u8 window_scale; /* valid with LISTENER_WINDOW_SCALE */
	__u8 flags;	   /* LISTENER_* */
	__u8 fresh;	   /* those of this period */
	__u8 refused;	   /* those that its namespace is set not to take: Go's */
	__u8 pad[6];
};
#define LISTENER_PERIOD_NS    5000000000ll
#define LISTENER_TIMESTAMPS   1
#define LISTENER_SACK	      2
#define LISTENER_WINDOW_SCALE 4
