/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* What the tcx roots share with the programs of a generation. */

#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"

/* Kernel 6.6, missing from the headers of Debian 12. TCX_NEXT lets other tcx programs of the hook have their say. */
#ifndef TCX_NEXT
#define TCX_NEXT     (-1)
#define TCX_PASS     0
#define TCX_DROP     2
#define TCX_REDIRECT 7
#endif

/* Kernel 6.3: the answer of the routing table alone; the redirect resolves the neighbour. */
#ifndef BPF_FIB_LOOKUP_SKIP_NEIGH
#define BPF_FIB_LOOKUP_SKIP_NEIGH (1U << 2)
#endif

/*
 * Whether what leaves was passed where it came in. The mark says so once, where it was counted for: what is below that interface, or
 * behind it in this namespace, looks for itself. And only of what did come in: the kernel's own may bear the mark of what it is about.
 */
static __always_inline bool take_pass(struct __sk_buff *skb)
{
	if (!(skb->mark & MARK_PASSED))
		return false;
	skb->mark &= ~MARK_PASSED;
	return skb->ingress_ifindex;
}
