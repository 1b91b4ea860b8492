// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/* Marks, at the far end of a lane, which of the numbered frames arrived. It stands in front of the sink that drops them. */

#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define FRAMES	(1 << 23) /* a power of two; frames of Go */
#define PAYLOAD 42	  /* behind Ethernet, IPv4 without options, UDP */
#define MAGIC	0x534c4643

__u8 seen[FRAMES];

SEC("tcx/ingress")
int watch(struct __sk_buff *skb)
{
	__be32 words[2]; /* MAGIC, number */

	if (!bpf_skb_load_bytes(skb, PAYLOAD, words, sizeof(words)) && words[0] == bpf_htonl(MAGIC))
		seen[bpf_ntohl(words[1]) & (FRAMES - 1)] = 1;
	return -1; /* TCX_NEXT */
}

char _license[] SEC("license") = "Dual BSD/GPL";
