/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* Part of abi.h: FlowSpec (RFC 8955, RFC 8956), filters that BGP neighbors sent. An overlay beside any generation. */

#include "abi.h"
#include "abi_actions.h"
#include "abi_classify.h"

/*
 * All filters together are one of two halves of the maps: a new one is written whole beside the one that is live, and one
 * word switches. Entries stand in the order of RFC 8955 section 5.1. A filter takes one for each combination of its ranges.
 */
#define MAX_FLOWSPEC   2048 /* entries of a half; filters have slots 1 to MAX_FLOWSPEC */
#define FLOWSPEC_WORDS (MAX_FLOWSPEC / 64)

/*
 * What is live; 0: nothing, and nobody looks further. BY_SRC, BY_DST: some entry has a prefix of that side, so its tries are asked; each
 * has a /0 then. IN_USE: words of the sets that are in use.
 */
#define FLOWSPEC_HALF	      1ull
#define FLOWSPEC_BY_SRC	      2ull
#define FLOWSPEC_BY_DST	      4ull
#define FLOWSPEC_IN_USE(live) ((__u32)((live) >> 8))

/* A set of entries: entry n is bit n % 64 of word n / 64. */
struct flowspec_set {
	__u64 word[FLOWSPEC_WORDS];
};

/* Longest prefix: its set holds all entries whose prefix contains it. The half counts as the first 32 bits. */
struct flowspec_key4 {
	__u32 prefixlen; /* 32 and the length */
	__u32 half;
	__be32 addr;
};

struct flowspec_key6 {
	__u32 prefixlen;
	__u32 half;
	__u8 addr[16];
};

/* Entries by family and protocol: half << 9 | (family is IPv6) << 8 | protocol. */
#define FLOWSPEC_PROTOCOLS		       1024
#define FLOWSPEC_PROTOCOL(half, six, protocol) ((half) << 9 | (six) << 8 | (protocol))

struct flowspec_entry {
	struct rule rule; /* what it matches beside addresses and protocol; id is the slot */
	struct limiter limiter
		[2];	/* with FLOWSPEC_LIMITS, in packets and in bytes; mult 0: none. rule is the bucket */
	__u64 until_ns; /* CLOCK_BOOTTIME; 0: until it is withdrawn. The program compares */
	__u64 key;	/* of the filter, to find it again: never 0 */
	__u8 does;	/* FLOWSPEC_*; 0: it counts, and lets pass */
	__u8 dscp;	/* with FLOWSPEC_MARKS */
	__u8 pad[42];
	__u32 socket; /* with FLOWSPEC_REDIRECTS: the argument of ACTION_BYPASS */
};
/*
 * BLACKHOLES: as DROPS, for a blackhole community (RFC 7999). GOES_ON: what comes behind it is asked, too (RFC 8955 section 7.3). SAMPLES:
 * who looks on is shown the packet. REDIRECTS: what passes all filters goes to a socket, if a program has registered for it.
 */
#define FLOWSPEC_DROPS	    1
#define FLOWSPEC_BLACKHOLES 2
#define FLOWSPEC_LIMITS	    4
#define FLOWSPEC_MARKS	    8
#define FLOWSPEC_GOES_ON    16
#define FLOWSPEC_SAMPLES    32
#define FLOWSPEC_REDIRECTS  64

/* What a filter matched, per CPU. */
struct flowspec_hit {
	__u64 packets;
	__u64 bytes;
	__u64 dropped; /* of the packets: dropped, or beyond the rate */
	__u64 last_ns; /* CLOCK_BOOTTIME of the last one */
};
