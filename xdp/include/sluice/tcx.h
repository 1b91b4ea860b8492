/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

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
