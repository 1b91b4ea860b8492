/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* Part of abi.h: SNAT. The translations themselves stand with the flows. */

#include "abi.h"
#include "abi_flow.h"

/* What sources are translated to, by family; zero: no address of that family. */
struct snat_address {
	union addr v4;
	union addr v6;
};

/* The fragments of a translated datagram, as they come to be translated. Layout version 1. */
#define SNAT_FRAGMENTS 16384

struct snat_fragment_key {
	union addr src;
	union addr dst;
	__u64 id; /* with family and, of IPv4, protocol: fragment_id() */
};

struct snat_fragment {
	union addr to; /* of what leaves its source, of what comes in its destination; zero: it stays */
	__u64 ns;      /* CLOCK_MONOTONIC of the first fragment */
};

/* The last flow that found no port, and how many packets did. Layout version 1. */
struct snat_exhaustion {
	__u64 packets;
	struct flow_key key;
	union addr addr; /* that its source was to become */
	__u32 in;	 /* ifindex by which it came in */
	__u8 end;	 /* of the key: who sent it */
	__u8 pad[3];
};
