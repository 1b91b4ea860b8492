package compile

import (
	"fmt"
	"net/netip"

	"sluice/netdump"
)

// connected6 is the metric of the kernel's own route to an IPv6 address's network (IP6_RT_PRIO_ADDRCONF). IPv4's have 0.
const connected6 = 256

// holder is who has a route to a network before tunnels and routes of the file do.
type holder struct {
	what   string
	metric int // of its route
}

// holders are the networks that interfaces and tunnels' devices are in, and workloads.
func (c *compiler) holders() map[netip.Prefix]holder {
	out := map[netip.Prefix]holder{}
	network := func(what string, a netip.Prefix) {
		h := holder{what: "the network of " + what}
		if a.Addr().Is6() {
			h.metric = connected6
		}
		if _, taken := out[a.Masked()]; !taken && !a.IsSingleIP() && !a.Addr().IsLinkLocalUnicast() {
			out[a.Masked()] = h
		}
	}
	for _, i := range c.cfg.Interfaces {
		for _, a := range i.Addresses {
			if i.Name != "lo" { // the kernel keeps its networks in the table local
				network(i.Name, a)
			}
		}
	}
	for _, t := range c.cfg.Tunnels {
		for _, a := range t.Addresses {
			network("tunnel "+t.Name, a)
		}
	}
	for _, w := range c.cfg.Workloads[:c.ofFile] {
		for _, p := range hostPrefixes(w.Addresses) {
			out[p] = holder{"the address of workload " + w.Name, netdump.Metric(p, 0)}
		}
	}
	return out
}

// checkTwice refuses routes to what the box has a route to by itself: the kernel refuses a second one of the same metric, or, where
// the address comes last, takes it and sends nothing there. One of another metric stands, and one of the two does nothing.
func (c *compiler) checkTwice() {
	held := c.holders()
	look := func(p netip.Prefix, metric int, what, hint string, at place) {
		h, taken := held[p]
		switch {
		case !taken:
		case netdump.Metric(p, metric) == h.metric:
			c.failNew(at.pos, at.path, fmt.Sprintf("%s is %s, which has a route of the same metric", p, h.what), hint)
		default:
			c.warn = append(c.warn, fmt.Sprintf("%s: %s is %s, too, and only the route of the lower metric is used", what, p, h.what))
		}
	}
	for i := range c.cfg.Tunnels {
		t := &c.cfg.Tunnels[i]
		for n, p := range t.Peers {
			for k, prefix := range p.Prefixes {
				if p.Routes && c.table(prefix) == 0 && !connects(t, prefix) {
					look(prefix, p.Metric, "tunnel "+t.Name, "take it out of prefixes, or write routes: false",
						place{p.Pos, fmt.Sprintf("tunnels[%d].peers[%d].prefixes[%d]", i, n, k)})
				}
			}
		}
	}
	for n, r := range c.cfg.Routes {
		look(r.Prefix, r.Metric, fmt.Sprintf("routes[%d]", n), "remove the route, or write another metric", place{r.Pos, fmt.Sprintf("routes[%d].prefix", n)})
	}
}
