/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* What a SYN-ACK on its way out tells XDP of its listener, so that it can answer in its name. */

#include <linux/tcp.h>
#include <sluice/syncookie.h>

#include "packet.h"

__noinline int learn_from(struct __sk_buff *skb, const struct packet *p, struct syn_listener *l)
{
	struct tcp_option_bytes bytes = {};
	struct tcp_options says = {};
	struct tcphdr tcp;
	__u64 options;

	if (!p || !l || bpf_skb_load_bytes(skb, p->l4, &tcp, sizeof(tcp)))
		return 0;
	options = (tcp.doff * 4 - sizeof(tcp)) & 0x3f;
	asm volatile("" : "+r"(options));
	if (!options || options > MAX_TCP_OPTIONS ||
	    bpf_skb_load_bytes(skb, p->l4 + sizeof(tcp), &bytes, options))
		return 0;
	parse_tcp_options(&bytes, options, &says);
	if (says.mss && !(says.flags & OPTION_SIGNED))
		learn(l, &says, bpf_ntohs(tcp.window));
	return 0;
}

/* Looks at SYN-ACKs that leave: those of the box itself, and those of workloads that were let through. */
static __always_inline void learn_listener(struct __sk_buff *skb, const struct packet *p)
{
	struct syn_listener_key key;
	struct syn_listener *l;

	if (explain || p->protocol != IPPROTO_TCP || !p->l4 ||
	    (p->tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) != (TCP_SYN | TCP_ACK))
		return;
	syn_listener_key(&key, &p->src, p->sport);
	l = bpf_map_lookup_elem(&syn_listeners, &key);
	if (l)
		learn_from(skb, p, l);
}
