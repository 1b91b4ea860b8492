// Package config turns the bytes of a Sluice YAML file into a checked, typed Config.
//
// A Config that Parse returned is complete: names resolve, ranges are the right way up, defaults are
// filled in. Nothing here reads the kernel or the network, and the package holds no state.
//
// The shape of the file is one tree of raw structs (raw.go). The reader (read.go) and the JSON Schema (schema.go) both
// walk that tree, so neither knows a key that the other does not. Leaves (leaf_*.go) judge single values; the build_*.go
// files judge what takes more than one value, and fill Config. An error never ends the reading, so all errors of a file
// come at once; a value that is already refused takes no part in later checks.
//
// Decisions where DESIGN.md is silent:
//
//   - Anchors, aliases, merge keys, tags and second documents are refused: the file must read the same for everybody, and
//     an alias is how a small file becomes a large one. Integers are decimal (010 is an error, not 8). A key without a
//     value is an error. The empty mapping {} is a valid file.
//   - An empty list in from, to, not_from, not_to or ports is an error: read literally it would match everything, which is
//     never what emptying a list was for. A set may be empty (a feed may have nothing today); a rule whose sets are
//     empty must match nothing.
//   - Names are [A-Za-z0-9._-], 63 at most, do not begin with a dot or hyphen (they stand in paths and on command lines)
//     and do not read as an address. A tunnel's name is its device's name.
//   - Secrets stand in files of their own, named by an absolute path, because a stored revision has no directory. No error
//     prints the value of a key that names a secret or a key.
//   - policy.ingress or policy.egress, where it has rules or default: drop, needs an interface of role uplink: without one it would protect
//     nothing. BGP alone does not need one (a session may run over a management network).
//   - default: drop in either policy, and xdp.fail: closed, need a management rule: both can lock the operator out.
//   - xdp defaults to {mode: auto, fail: open} on uplinks, and is refused elsewhere.
//   - An interface without a role must carry an address; lo never has a role. A tunnel's device is not listed in
//     interfaces: its addresses and MTU stand with the tunnel.
//   - A management rule must name its protocol (any is a protocol), so that nobody opens everything by forgetting it.
//   - A rule's fragment: is written in words of its own (whole, fragmented, first, later): no and yes are booleans to YAML,
//     and any would read as "does not matter". Ports, tcp_flags and icmp_types are in the transport header, which later
//     fragments lack: a rule that asks for them, and of which all else holds, gives a later fragment to the policy's fragments:.
//     With track that is the fate of the first fragment of its datagram, whichever stage or rule gave it, in that policy.
//   - length counts the IP packet with its headers, as RFC 8955 type 10 does; of a fragment, the fragment. Where tcx judges
//     (tunnels, workloads, egress) the kernel may have joined segments of a stream: there it is the length of all of them.
//   - vlan is the outermost tag as XDP sees it, so it is for policy.ingress alone. A tag that says only a priority is none.
//   - interfaces: are where a packet comes in, in policy.egress where it leaves. A workload's policy is not limited to any.
//   - nic: of a bond is for each of its members, which have no entry. VLAN offloads are not in it: rules with vlan decide. Switches are true and false, and
//     irq_affinity is a list in brackets as ports are: 0-3,8 in a flow mapping would end at the comma.
//   - Neighbour discovery and MLD of the link itself are passed before any rule, so icmp_types do not meet them.
//   - A rule that can never match, because its addresses, or its addresses and ICMP, are of different families, is an error.
//   - bgp.graceful_restart: {} means 120s; bfd: {} means 300ms and 3; hold_time: 0s means no keepalives (RFC 4271 section 4.2), and is not the default.
//   - A peer's endpoint must not lie in a prefix that another tunnel takes over (its addresses, and the prefixes of peers
//     that are routed or strict). Prefixes of a peer with routes: false in a tunnel that is not strict catch nothing. Inside a
//     prefix of its own tunnel it may lie: such prefixes, and default routes, have a routing table of their own, for all
//     tunnels that carry them. IKE's own packets are not marked, so there strict is refused.
//   - Keys of the other type of tunnel, or of the other keying, are errors: a key without effect is one that somebody trusts.
//   - Both ends of an IPsec tunnel have an id, by default the address: static keys of a direction come out of the two, so equal
//     ones would be one key for both directions.
//   - A probe belongs to one peer: that whose prefixes hold it, or the only one where a network of the device does. It counts
//     among what the peer may send, as does a device's network for two where there is one peer.
//   - Static keys are not renewed faster than every 5 minutes: epochs start as minutes, and must stay behind the clock.
//   - Link-local neighbors and next hops are refused: both need an interface, which the file cannot name yet.
//   - The file is at most 16 MiB, a set file 64 MiB (a million prefixes with room to spare).
//   - Columns count characters, not bytes. Errors are sorted by place: those of FILE first, then set files by name.
package config
