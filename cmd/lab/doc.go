// Package lab builds a virtual site of network namespaces on one machine, with netlink and in this process: a ToR
// router, a client and an attacker behind it, the gateway with two workloads, and a peer node at the other end of a
// tunnel. The gateway and the peer are real daemons: a binary that the lab starts, and an API that it calls. The demo
// proves what the gateway is for, line by line; tests build on the same site.
//
//	client   198.51.100.10 ──┐
//	                         ├── tor ── eth0 gateway ─┬─ web-1  203.0.113.10
//	attacker 192.0.2.66 ─────┤     AS 65000  AS 65010 └─ web-2  203.0.113.11
//	                         │                  ║ WireGuard
//	                         └──────── eth0   peer      10.20.0.1
//
// Every address is of a range for documentation, benchmarks or private use, and nothing leaves the namespaces.
package lab
