/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/*
 * The listeners that rules with syn_cookie protect, and what XDP and tcx both need to read of TCP. tcx learns here how a
 * listener answers a SYN; XDP (bpf/syncookie.h) answers in its name.
 */

#include "flow.h"
#include "iter.h"
#include "parse.h"

#define TCPOPT_END	  0
#define TCPOPT_NOP	  1
#define TCPOPT_MSS	  2
#define TCPOPT_WSCALE	  3
#define TCPOPT_SACK	  4 /* permitted */
#define TCPOPT_TIMESTAMPS 8
#define TCPOPT_MD5	  19
#define TCPOPT_AO	  29
#define MAX_TCP_OPTIONS	  40 /* bytes */

/* Room behind the options, so that an option's value may be read wherever the option begins. */
struct tcp_option_bytes {
	__u8 byte[MAX_TCP_OPTIONS + 16];
};

/* What they say. */
struct tcp_options {
	__be32 tsval;
	__u16 mss; /* 0: none */
	__u8 window_scale;
	__u8 flags; /* LISTENER_*, OPTION_* */
};
#define OPTION_SIGNED 128 /* MD5 or TCP-AO (RFC 2385, 5925): only who has the key may answer */

/* State: a new generation goes on with what is known. Go keeps it to the listeners of the live one. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_SYN_LISTENERS);
	__type(key, struct syn_listener_key);
	__type(value, struct syn_listener);
} syn_listeners SEC(".maps");

static __always_inline void tcp_option(const struct tcp_option_bytes *in, __u64 at, __u8 kind, __u8 size,
				       struct tcp_options *out)
{
	const __u8 *value = in->byte + at + 2;

	if (kind == TCPOPT_MSS && size == 4) {
		out->mss = value[0] << 8 | value[1];
	} else if (kind == TCPOPT_WSCALE && size == 3) {
		out->window_scale = value[0] > 14 ? 14 : value[0]; /* RFC 7323 section 2.3 */
		out->flags |= LISTENER_WINDOW_SCALE;
	} else if (kind == TCPOPT_SACK && size == 2) {
		out->flags |= LISTENER_SACK;
	} else if (kind == TCPOPT_TIMESTAMPS && size == 10) {
		__builtin_memcpy(&out->tsval, value, sizeof(out->tsval));
		out->flags |= LISTENER_TIMESTAMPS;
	} else if (kind == TCPOPT_MD5 || kind == TCPOPT_AO) {
		out->flags |= OPTION_SIGNED;
	}
}

/*
 * Reads length bytes of options into out, which the caller has cleared. What does not parse ends the list, as in the
 * kernel. Global: verified once, for any bytes.
 */
__noinline int parse_tcp_options(const struct tcp_option_bytes *in, __u32 length, struct tcp_options *out)
{
	struct bpf_iter_num it;
	__u64 at = 0;

	if (!in || !out || length > MAX_TCP_OPTIONS)
		return 0;
	bpf_iter_num_new(&it, 0, MAX_TCP_OPTIONS);
	while (bpf_iter_num_next(&it)) {
		__u8 kind, size;

		if (at >= length)
			break;
		asm volatile("" : "+r"(at)); /* what is known of length does not bound it for the verifier */
		if (at >= MAX_TCP_OPTIONS)
			break;
		kind = in->byte[at];
		if (kind == TCPOPT_END)
			break;
		if (kind == TCPOPT_NOP) {
			at++;
			continue;
		}
		size = in->byte[at + 1];
		if (size < 2 || at + size > length)
			break;
		tcp_option(in, at, kind, size, out);
		at += size;
	}
	bpf_iter_num_destroy(&it);
	return 0;
}

static __always_inline void syn_listener_key(struct syn_listener_key *key, const union addr *addr,
					     __be16 port)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->addr = *addr;
	key->port = port;
}

/*
 * What a SYN-ACK that left says of its listener: copies its options, and the window. A client that offered less, or whose path
 * is narrow, is no reason to know less at once; what no client was given for a while is forgotten, and its SYNs pass until it
 * is seen again. Written word by word: readers bear a mix.
 */
static __always_inline void learn(struct syn_listener *l, const struct tcp_options *o, __u16 window)
{
	__u64 now = bpf_ktime_get_ns();

	if ((__s64)(now - l->since_ns) > LISTENER_PERIOD_NS) {
		l->flags = l->fresh;
		l->mss = l->fresh_mss;
		l->fresh = 0;
		l->fresh_mss = 0;
		l->since_ns = now;
	}
	if (o->mss > l->mss)
		l->mss = o->mss;
	if (o->mss > l->fresh_mss)
		l->fresh_mss = o->mss;
	l->window = window;
	if (o->flags & LISTENER_WINDOW_SCALE)
		l->window_scale = o->window_scale;
	l->flags |= o->flags;
	l->fresh |= o->flags;
	l->answered_ns = now;
}
