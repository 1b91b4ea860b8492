// Package bgp is the speaker: GoBGP behind our own State, without its gRPC listener.
//
// A fresh process holds the zero State, so the first Diff starts everything; what BGP has for adoption is graceful
// restart (RFC 4724): the peers keep our routes, bgp/fib keeps the kernel's, and both are swept after End-of-RIB.
//
// What GoBGP v4.8.0 does that must not surprise the next reader:
//
//   - It gives transit by default. The export policy here ends in reject and accepts locally originated paths
//     alone. The import policy stays at accept: a rejecting one silently drops our own paths as well.
//   - A neighbor is known by its address alone, so Diff matches neighbors by address; the name is a label.
//   - A next hop that is unspecified becomes the session's local address. For IPv6 NLRI in an IPv4 session that is no
//     usable next hop, hence Neighbor.NextHop6, set per neighbor by the export policy.
//   - DeletePeer leaves the MD5 key on the listeners: the password goes by an update first.
//   - StopBgp sends Cease, unless AllowGracefulRestart, and its withdrawals would empty the kernel: the FIB writer is
//     detached before. A Cease ends graceful restart at the peer (no RFC 8538 here).
//   - A restarting speaker defers all announcements until every neighbor has sent End-of-RIB. We announce only what
//     is our own, so there is nothing to wait for: the deferral is one second. Paths are added before neighbors, or
//     the early End-of-RIB would make the peers drop what they kept for us.
//   - UseMultiplePaths is a package global, read when the speaker starts: it is always on, bgp/fib cuts to Learn.ECMP.
//     One process holds one speaker.
//   - DeletePath without a path deletes every local one; the watcher queue is unbounded, so callbacks only note
//     what changed; ConnectRetry defaults to 120 s and is 2 s here; after a lost session it stays idle for 5 s.
//   - A hold time of 0 means its default, 90 s: it cannot be offered, only accepted. What it sends of a shutdown's reason is
//     RFC 8203's 128 bytes.
//   - It takes the end of a session over its prefix limit for a restart of the neighbor, where graceful restart was
//     negotiated, and keeps the routes: such a peer is made anew. A peer's machine drops a change of the admin state,
//     without an error, while an earlier one waits.
//   - Of a NOTIFICATION only its log tells all. Closing a connection that still sends resets it, and the NOTIFICATION may go
//     with it: then the connection just broke.
//   - ListPath with EnableFiltered stores what the import policy made of the received table.
//   - IP_MINTTL is set after accept: what came before, at most a handshake and an OPEN, was taken from any distance.
//   - Sockets are made on any thread: the process must live in the uplinks' network namespace.
package bgp
