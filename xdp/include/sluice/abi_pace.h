/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* Part of abi.h: bandwidth.egress of workloads and LANs. */

#include "abi.h"

/* Times are CLOCK_MONOTONIC in ticks of 1/64 ns, as those of limits. */
#define PACE_TICK_BITS 6

/* How far a flow may be ahead of its share while others wait, where its packets wait and no sender knows of it; */
#define PACE_BURST_NS 50000000
/* and where nothing waits (policing): as long as TCP sits still after a loss, so that it loses no more than that. */
#define PACE_POLICED_NS 200000000
/* How long a packet may wait where fq keeps it and its sender knows (the skb has its socket). fq refuses what is 10 s ahead. */
#define PACE_HORIZON_NS 2000000000

#define MAX_PACERS 4096
#define PACE_WAYS  4
#define PACE_SETS  16
#define PACE_FLOWS 64 /* bits of pacer.active */

struct pacer_flow {
	__u64 next; /* when the flow has had its share of all that it sent; past: it is idle, and anybody may have its place */
	__u32 tag; /* hash of the flow */
	__u32 pad;
};

/* State of one source, by the ifindex that it comes in by. Layout version 1. */
struct pacer {
	__u64 next;    /* when the rate has room again */
	__u64 active;  /* bits of the flows that were not idle when they were looked at last */
	__u64 turn;    /* whose turn it is to be looked at */
	__u64 dropped; /* packets */
	__u64 marked;  /* packets: ECN, congestion experienced */
	struct pacer_flow flow[PACE_FLOWS];
};
