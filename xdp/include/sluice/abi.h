/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/*
 * What C and Go agree on. Go's mirror in xdp/abi is generated from the BTF of these types. Fields named __be16 and
 * __be32 hold network byte order, everything else the host's. The parts are included at the end.
 */

#include <linux/types.h>

/* An IPv4 address stands in word[3] behind ::ffff:0:0/96, so that both families share keys; see addr_from_ip4. */
union addr {
	__u8 byte[16];
	__be32 word[4];
	__u64 half[2];
};

enum action {
	ACTION_CONTINUE = 0,
	ACTION_ACCEPT = 1,
	ACTION_DROP = 2,
	ACTION_LIMIT = 3,      /* accepts what conforms, drops the rest; argument: index into limiters */
	ACTION_SYN_COOKIE = 4, /* XDP answers a SYN, accepts the rest; elsewhere it accepts */
	ACTION_BYPASS = 5,     /* XDP hands it to a socket, elsewhere it accepts; argument: which socket */
};

enum fragments { FRAGMENTS_DEFAULT = 0, FRAGMENTS_ACCEPT = 1, FRAGMENTS_DROP = 2, FRAGMENTS_TRACK = 3 };

/* In host byte order, inclusive. */
struct port_range {
	__u16 first;
	__u16 last;
};

/* Which fragments a rule is about. */
enum fragment_match {
	FRAGMENT_ANY = 0,     /* whole packets and all fragments */
	FRAGMENT_NO = 1,      /* whole packets */
	FRAGMENT_YES = 2,     /* fragments */
	FRAGMENT_INITIAL = 3, /* fragments with the transport header */
	FRAGMENT_LATER = 4,   /* fragments without */
};

enum role {
	ROLE_NONE = 0,
	ROLE_UPLINK = 1,
	ROLE_DOWNSTREAM = 2,
	ROLE_WORKLOAD = 3,
	ROLE_TUNNEL = 4,
	ROLE_MANAGEMENT = 5,
	ROLE_MAX = 6,
};

/* One counter, per CPU. */
struct counter {
	__u64 packets;
	__u64 bytes;
};

/* What a rule, or a policy's default, matched, per CPU. Layout version 3 of the rule counters: 2 was struct counter. */
struct rule_hit {
	__u64 packets;
	__u64 bytes;
	__u64 last; /* jiffies64 of the last packet; 0: never, for they begin at 2^32 - 300 s */
};

/* Reason counters are one array: interface slot * REASON_SLOTS + reason. Slot 0 is "interface unknown". */
#define INTERFACE_SLOTS 256

struct interface {
	__u32 slot; /* of the reason counters, 1 to INTERFACE_SLOTS - 1 */
	__u8 role;  /* enum role */
	__u8 flags; /* INTERFACE_* */
	__u16 snat; /* tc: index into snat_addresses + 1. Of an uplink its own; 0: none, or that of the uplink */
	__u32 policies; /* tc, of a workload or a LAN: n, where POLICY_WORKLOADS + 2 * (n - 1) judges what goes there and + 1 what it sends; 0: none */
};
#define INTERFACE_JUDGE	    1  /* tcx judges policy.ingress here: tunnels, and uplinks with xdp.mode none */
#define INTERFACE_L3	    2  /* packets have no Ethernet header */
#define INTERFACE_FAIL_OPEN 4  /* what the XDP root does while its slot is empty */
#define INTERFACE_CLAMP	    4  /* tc, of a tunnel: the MSS of SYNs is lowered to what its MTU carries */
#define INTERFACE_STACK	    8  /* path: stack */
#define INTERFACE_SNAT4	    16 /* what it sends out by an uplink is translated: from private IPv4 addresses, */
#define INTERFACE_SNAT6	    32 /* from private IPv6 addresses (RFC 4193); */
#define INTERFACE_SNAT_ALL  64 /* from any address, of the families above */
#define INTERFACE_SNAT	    (INTERFACE_SNAT4 | INTERFACE_SNAT6 | INTERFACE_SNAT_ALL)
#define INTERFACE_PACED	    128 /* bandwidth.egress */
#define INTERFACE_FQ	    128 /* of an uplink, which is never paced itself: fq keeps departure times there */
#define INTERFACE_ENCRYPTED 128 /* of a tunnel, which is neither: what leaves by it is no plaintext */

/* The same where an index finds it: tc's, see find_interface(). */
struct interface_near {
	__u32 ifindex; /* 0: nobody's */
	struct interface interface;
};

/* And its slot: XDP's, see slot_of(). Written as one word. */
struct interface_slot {
	__u32 ifindex; /* 0: nobody's */
	__u32 slot;
} __attribute__((aligned(8)));

/* ---- workloads ---- */

struct workload {
	__u32 ifindex; /* host side of the veth */
	__u32 index;   /* its policies are POLICY_WORKLOADS + 2 * index (ingress) and + 1 (egress) */
	__u32 flags;   /* INTERFACE_STACK, as its interface has it */
};

/* Frames of a VLAN that Sluice made an interface for, on an interface where XDP runs: they are judged at that one. */
struct vlan_child {
	__u32 ifindex; /* where they come in */
	__u32 vlan;    /* outermost id */
};

/* ---- strict tunnels: where plaintext to a prefix may leave the box all the same ---- */

/* Values of the maps of strict prefixes; another one is the ifindex of the one interface that it may leave by. */
#define PLAIN_NOWHERE  0
#define PLAIN_ANYWHERE 0xffffffffu /* what no router forwards */

/* ---- explain: what the twin writes instead of counting ---- */

#define EXPLAINED_FILTERS 16

/* Go empties it before a run. */
struct explanation {
	__u32 reason;  /* enum reason */
	__u32 rule;    /* stable id; 0: none */
	__u32 policy;  /* index of the policy that decided; valid where rule or a default decided */
	__u32 decided; /* 1: policy is valid; with tc: the last one that was asked */
	__u32 ifindex; /* of the redirect, 0: none */
	__u32 fate;    /* XDP_* or TC_ACT_* as returned */
	__u32 nat;     /* enum explained_nat: what nat_addr and nat_port are instead of */
	union addr nat_addr;
	__be16 nat_port;		 /* 0: any of the range, or of a protocol without */
	__u16 mss;			 /* what a SYN's becomes; 0: it stays */
	__u32 filters;			 /* entries of FlowSpec that held for it, in their order */
	__u32 filter[EXPLAINED_FILTERS]; /* slots of the first of them: one of two entries stands twice */
};
enum explained_nat { EXPLAINED_NO_NAT = 0, EXPLAINED_SOURCE = 1, EXPLAINED_DESTINATION = 2 };

/*
 * skb->mark: bits 24 to 28 are ours, and no other is touched. The others belong to the operator and to who else is on the box: bits 14 and 15
 * are Kubernetes', 13 the CNI's port mapper's, 16 to 23 Tailscale's and OpenWrt's pbr's, 31 Antrea's. Calico (16 to 31, its
 * iptablesMarkMask) and Cilium (nearly all) take ours too.
 *
 * Bit 24: an encrypted packet of a tunnel (WireGuard's fwmark, XFRMA_SET_MARK of ESP). Bit 25: our tcx ingress judged the packet, the forwarding
 * matrix included. Bit 26: to be paced at the uplink, by where it came in. Bit 27: as bit 25, on its way into a workload: anywhere
 * else it was not judged for. Bit 28: with bit 25, until it leaves: it was counted as such for there, where nothing is to be asked.
 */
#define MARK_UNDERLAY 0x01000000u
#define MARK_JUDGED   0x02000000u
#define MARK_PACED    0x04000000u
#define MARK_DELIVER  0x08000000u
#define MARK_PASSED   0x10000000u
#define MARK_OURS     (MARK_JUDGED | MARK_PACED | MARK_DELIVER | MARK_PASSED | MARK_UNDERLAY)

/*
 * What the root honours while its slot is empty and xdp.fail is closed: management: in its plainest form, because no
 * table of a generation is there. The destination must also be in the pinned map of the box's own addresses.
 */
#define MAX_FAILSAFE 256
#define MAX_SELF     1024 /* own addresses that the root knows */
#define SELF_BITS    256  /* bits that tell whose address is certainly not the box's own */
#define SELF_BIT(a) \
	((__u32)(a) * 0x9e3779b1u >> 24) /* of the last two words of union addr, by exclusive or */
struct failsafe {
	union addr from; /* network, IPv4 mapped */
	union addr mask;
	struct port_range ports;
	__u8 protocol;
	__u8 any_protocol;
	__u8 used; /* 0 ends the list */
	__u8 pad;
};

/* ---- bans: sources that an operator shuts out for a while, beside any generation ---- */

#define MAX_BANS 100000

/* An address stands in a hash, a shorter prefix in a longest-prefix map; the value is the same. */
struct ban {
	__u64 until_ns; /* CLOCK_BOOTTIME; 0: until it is lifted. The program compares, so that it ends without a daemon */
	__u32 slot; /* of ban_hits, 1 to MAX_BANS */
	__u8 bits;  /* length of the prefix */
	__u8 pad[3];
};

/* How many there are, so that none costs nothing. */
struct ban_state {
	__u32 addresses;
	__u32 prefixes4;
	__u32 prefixes6;
	__u32 loaded; /* 1: the maps hold all bans; 0: they are new, and the daemon is to fill them from its file */
};

/* One counter, per CPU. */
struct ban_hit {
	__u64 packets;
	__u64 last_ns; /* CLOCK_BOOTTIME of the last one */
};

#include "abi_classify.h"
#include "abi_actions.h"
#include "abi_flowspec.h"
#include "abi_flow.h"
#include "abi_snat.h"
#include "abi_pace.h"
#include "abi_watch.h"
