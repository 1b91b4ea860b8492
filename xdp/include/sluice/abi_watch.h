/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* Part of abi.h: who looks on. */

#include "abi.h"
#include "abi_flow.h"

/* ---- who looks on: monitor, the logs of rules, capture ---- */

enum hook { HOOK_XDP = 0, HOOK_TC_INGRESS = 1, HOOK_TC_EGRESS = 2, HOOK_MAX = 3 };

/* Who looks on. Each has an element of watches and of watch_budgets, and a ring. */
enum watcher { WATCH_DROPS = 0, WATCH_LOGS = 1, WATCH_CAPTURE = 2, WATCH_FLOWS = 3, WATCH_MAX = 4 };
#define WATCH_WINDOW_NS 100000000

/* Whether somebody does, and how much. Written by the daemon. */
struct watch {
	__u64 until_ns; /* CLOCK_BOOTTIME; 0: nobody. A lease, so that it ends when the daemon is killed */
	__u32 burst;	/* packets per CPU and window of WATCH_WINDOW_NS */
	__u32 pad;
};

/* What one CPU has spent on it. All but window and used since ever. */
struct watch_budget {
	__u64 window;	   /* number of the present one */
	__u64 used;	   /* in this window */
	__u64 wanted;	   /* packets that were asked for */
	__u64 suppressed;  /* of them: beyond the burst */
	__u64 lost;	   /* of them: the ring had no room */
	__u64 passed_over; /* by sampling, since the last one that was taken */
};

/* What became of a packet, or would have if the rule acted. FILTER_*: what FlowSpec said; the slot of a filter stands for the rule. */
enum event_fate {
	EVENT_PASSED = 0,
	EVENT_DROPPED = 1,
	EVENT_SHADOW = 2,
	EVENT_FILTER_PASSED = 3,
	EVENT_FILTER_DROPPED = 4
};

/* A sample of the dropped packets, or of those that a rule logs. */
struct packet_event {
	__u64 time_ns;	/* CLOCK_BOOTTIME */
	union addr src; /* zero where family is 0 */
	union addr dst;
	__u32 ifindex;
	__u32 len;    /* bytes of the frame */
	__u32 reason; /* enum reason; of a logged packet REASON_NONE */
	__u32 rule;   /* stable id; 0: none decided */
	__be16 sport; /* with EVENT_PORTS */
	__be16 dport;
	__u16 vlan; /* outermost id; 0: none */
	__u8 hook;  /* enum hook */
	__u8 family;
	__u8 protocol;
	__u8 tcp_flags;
	__u8 icmp_type;
	__u8 flags; /* EVENT_* */
	__u8 fate;  /* enum event_fate */
	__u8 pad[3];
};
#define EVENT_PORTS	1
#define EVENT_FRAGMENT	2      /* a later one, whose ports cannot be seen */
#define EVENT_RING_SIZE 262144 /* bytes: 2900 events */

/* ---- capture: whole packets ---- */

#define CAPTURE_RULES	     8
#define CAPTURE_SNAPLEN	     9216    /* bytes of a frame at most */
#define CAPTURE_RING_SIZE    4194304 /* bytes: 2700 frames of 1500 bytes */
#define CAPTURE_REASON_WORDS 2	     /* words of 64 reasons: as many as REASON_SLOTS */

/* Which packets. A packet must be of a reason, and of all else that is asked for. Written while nobody captures. */
struct capture_filter {
	__u64 reasons[CAPTURE_REASON_WORDS]; /* bit r % 64 of word r / 64: reason r */
	union addr host;		     /* source or destination, where host_family */
	union addr mask;
	__u32 rules[CAPTURE_RULES]; /* stable ids, any of them; a 0 ends the list; none: any packet */
	__u32 session;	  /* goes into every event: the ring may hold what an earlier capture left */
	__u32 ifindex;	  /* 0: any */
	__u32 sample;	  /* one in so many, on each CPU; at least 1 */
	__u32 snaplen;	  /* bytes, 1 to CAPTURE_SNAPLEN */
	__be16 port;	  /* source or destination; 0: any */
	__u8 protocol;	  /* where CAPTURE_PROTOCOL */
	__u8 host_family; /* 4, 6; 0: any packet */
	__u8 hooks;	  /* bit h: enum hook */
	__u8 flags;	  /* CAPTURE_PROTOCOL */
	__u8 pad[2];
};
#define CAPTURE_PROTOCOL 1

/* In the ring, with the bytes of the frame behind it. */
struct capture_event {
	__u64 time_ns; /* CLOCK_BOOTTIME */
	__u32 session;
	__u32 ifindex;
	__u32 len;	   /* bytes of the frame */
	__u32 captured;	   /* bytes of it that follow */
	__u32 reason;	   /* enum reason */
	__u32 rule;	   /* stable id; 0: none decided */
	__be16 vlan_proto; /* of a tag that stands beside the frame; 0: none does */
	__u16 vlan_tci;
	__u8 hook;  /* enum hook */
	__u8 flags; /* CAPTURE_L3 */
	__u8 pad[2];
};
#define CAPTURE_L3 1 /* begins with its IP header */

/* ---- flows: what became of one ---- */

enum flow_change { FLOW_EVENT_NEW = 0, FLOW_EVENT_PROVEN = 1, FLOW_EVENT_CLOSED = 2, FLOW_EVENT_REVOKED = 3 };

struct flow_event {
	__u64 time_ns; /* CLOCK_BOOTTIME */
	struct flow_key key;
	struct flow flow; /* as it is now */
	__u8 change;	  /* enum flow_change */
	__u8 pad[7];
};
