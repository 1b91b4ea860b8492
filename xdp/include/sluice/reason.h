/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/*
 * Every verdict has one reason. This list is the only source: the enum, the Go constants, the labels of the metrics
 * and the texts of `show drops` and `explain` are made from it (xdp/abi). Append only: a number is stored in pinned
 * counters and must never change its meaning.
 *
 *   X(NAME, fate, "text")     fate: pass | drop | stack | answer | redirect
 *
 * The label is NAME in lower case with dashes. "stack" means passed to the kernel's own path for a reason that an
 * operator may want to know, because the fast path could not do it; "answer" means that XDP sent it back where it came
 * from, as an answer; "redirect" that it went to an AF_XDP socket.
 */
#define SLUICE_REASONS(X)                                                                                    \
	X(NONE, pass, "not judged")                                                                          \
	X(LINK_CONTROL, pass, "link control: ARP, LLDP, LACP, STP, neighbour discovery, MLD")                \
	X(UNKNOWN_ETHERTYPE, pass, "an EtherType that Sluice does not judge")                                \
	X(FAILSAFE, pass, "management: lets it in")                                                          \
	X(SYSTEM, pass, "a system rule, made from the file itself")                                          \
	X(ICMP_ERROR, pass, "an ICMP error that quotes a tracked flow")                                      \
	X(RULE_ACCEPT, pass, "a rule accepts it")                                                            \
	X(RULE_DROP, drop, "a rule drops it")                                                                \
	X(ESTABLISHED, pass, "a reply to a tracked flow")                                                    \
	X(DEFAULT_ACCEPT, pass, "no rule acted and the default is accept")                                   \
	X(DEFAULT_DROP, drop, "no rule accepts it and the default is drop")                                  \
	X(FRAGMENT_DEFAULT_ACCEPT, pass,                                                                     \
	  "a later fragment that a port rule could match; the default is accept")                            \
	X(FRAGMENT_DEFAULT_DROP, drop, "a later fragment that a port rule could match; the default is drop") \
	X(FRAGMENT_ACCEPT, pass, "a later fragment, and fragments: accept")                                  \
	X(FRAGMENT_DROP, drop, "a fragment, and fragments: drop")                                            \
	X(NO_GENERATION_PASS, pass, "no generation is loaded and xdp.fail is open")                          \
	X(NO_GENERATION_DROP, drop, "no generation is loaded and xdp.fail is closed")                        \
	X(ETH_TRUNCATED, drop, "the frame ends inside its Ethernet header")                                  \
	X(VLAN_TRUNCATED, drop, "the frame ends inside a VLAN tag")                                          \
	X(VLAN_TOO_DEEP, drop, "more than two VLAN tags")                                                    \
	X(IP4_TRUNCATED, drop, "the packet ends inside its IPv4 header")                                     \
	X(IP4_MALFORMED, drop, "IPv4 version, header length or total length is wrong")                       \
	X(IP6_TRUNCATED, drop, "the packet ends inside its IPv6 header")                                     \
	X(IP6_MALFORMED, drop, "IPv6 version or payload length is wrong")                                    \
	X(IP6_EXT_TRUNCATED, drop, "the packet ends inside an IPv6 extension header")                        \
	X(IP6_EXT_TOO_MANY, drop, "more IPv6 extension headers than Sluice follows")                         \
	X(L4_TRUNCATED, drop, "the packet ends inside its transport header")                                 \
	X(L4_MALFORMED, drop, "a transport header with impossible lengths")                                  \
	X(FRAGMENT_TINY, drop, "a first fragment too short for its transport header (RFC 1858)")             \
	X(LOCAL, pass, "to the box itself")                                                                  \
	X(MULTICAST, pass, "multicast or link-local: left to the kernel")                                    \
	X(DELIVERED, pass, "redirected into the workload's namespace")                                       \
	X(FORWARDED, pass, "redirected to the next hop")                                                     \
	X(JUDGED, pass, "judged already when it entered the box")                                            \
	X(FORWARD_DENIED, drop, "forwarding between these roles is not permitted (forward:)")                \
	X(WORKLOAD_SPOOFED, drop, "a workload sent from an address that is not its own")                     \
	X(WORKLOAD_UNKNOWN, drop, "the interface belongs to no workload of this generation")                 \
	X(STRICT_TUNNEL, drop, "plaintext to a prefix of a strict tunnel")                                   \
	X(NO_ROUTE, drop, "a blackhole route leads there")                                                   \
	X(STACK_TTL, stack, "TTL or hop limit is spent: the kernel answers")                                 \
	X(STACK_MTU, stack, "larger than the next hop's MTU: the kernel answers or fragments")               \
	X(STACK_NO_ROUTE, stack, "no usable route: the kernel answers")                                      \
	X(STACK_NEIGHBOUR, stack, "the kernel resolves the next hop")                                        \
	X(STACK_L3, stack, "no Ethernet header to redirect with: the kernel forwards")                       \
	X(STACK_UNMANAGED, stack, "to an interface that the file does not name: the kernel forwards")        \
	X(STACK_FRAGMENTED, stack, "headers are not in linear memory: the kernel forwards")                  \
	X(INTERNAL, drop, "an internal table is missing an entry; report this as a bug")                     \
	X(VLAN_CHILD, pass, "tagged: judged at its VLAN interface")                                          \
	X(STACK_FORWARD, stack, "the kernel forwards, and the next interface judges it")                     \
	X(OTHER_HOST, pass, "to another host's MAC address: the kernel drops it")                            \
	X(MARTIAN_SOURCE, drop, "from outside, with an address of the box or of a workload as its source")   \
	X(IP6_MAPPED, drop,                                                                                  \
	  "an IPv6 header with an IPv4-mapped address, which none on a wire has (RFC 4942 section 2.2)")     \
	X(WORKLOAD_ROUTER, drop, "a router advertisement or a redirect from a workload, which is no router") \
	X(UNROUTABLE, drop, "to a workload from a source, or in a group's frame, that no router forwards")   \
	X(BANNED, drop, "its source is banned (`sluice show bans`)")                                         \
	X(LIMIT_ACCEPT, pass, "within the limit of a rule")                                                  \
	X(LIMIT_DROP, drop, "beyond the limit of a rule")                                                    \
	X(SYN_COOKIE, answer, "a SYN, answered with a cookie")                                               \
	X(SYN_COOKIE_PASS, pass, "a rule with syn_cookie: no SYN, or one of the few that its listener sees") \
	X(BYPASS, redirect, "handed to a bypass socket")                                                     \
	X(BYPASS_STACK, stack, "no program has registered for its bypass socket: the kernel takes it")       \
	X(FRAGMENT_TRACKED, pass, "a later fragment of a datagram whose first one passed")                   \
	X(FRAGMENT_TRACKED_DROP, drop, "a later fragment of a datagram whose first one was dropped")         \
	X(STACK_PATH, stack, "path: stack keeps the workload on the kernel's path")                          \
	X(FLOW_REVOKED, drop, "of a flow that policy no longer permits")                                     \
	X(SNAT_EXHAUSTED, drop, "no port is left to translate its source to")                                \
	X(SNAT_NO_ADDRESS, drop, "the uplink has no address to translate its source to")                     \
	X(SNAT_UNTRACKED, drop, "its source must be translated, and it belongs to no flow")                  \
	X(SNAT_FRAGMENT, drop, "a later fragment to be translated, whose first one was not seen")            \
	X(SNAT_FAILED, drop, "it must be translated, and its headers cannot be rewritten")                   \
	X(SNAT_CLASH, drop, "the box's own packet, with the addresses and ports of a translated flow")       \
	X(PACED_DROP, drop, "beyond the bandwidth of its workload")                                          \
	X(STACK_OPTIONS, stack, "IPv4 options: the kernel heeds or refuses them")                            \
	X(SNAT_FULL, drop, "the table of translations is full (conntrack.max_entries)")                      \
	X(FLOWSPEC_DROP, drop, "a FlowSpec filter of a BGP neighbor drops it (`sluice show flowspec`)")      \
	X(FLOWSPEC_LIMIT, drop, "beyond the rate of a FlowSpec filter of a BGP neighbor")                    \
	X(BLACKHOLE, drop, "a BGP neighbor asked for a blackhole for its destination")                       \
	X(FLOWSPEC_BYPASS, redirect, "a FlowSpec filter of a BGP neighbor hands it to a bypass socket")

#define SLUICE_REASON_ENUM(name, fate, text) REASON_##name,
enum reason { SLUICE_REASONS(SLUICE_REASON_ENUM) REASON_MAX };

/* Counters leave room for reasons to come, so that the pinned array keeps its shape. */
#define REASON_SLOTS 128
_Static_assert(REASON_MAX <= REASON_SLOTS, "enlarge REASON_SLOTS and the layout version of the counters");
