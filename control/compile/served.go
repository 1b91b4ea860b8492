package compile

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sluice/control/config"
)

// mostNamed bounds how many prefixes of an entry a note names.
const mostNamed = 5

// checkAdvertised tells of prefixes that draw packets here which nobody of this box is for. It may be meant: the next router knows
// more, or somebody outside the file serves them.
func (c *compiler) checkAdvertised() {
	if c.cfg.BGP == nil {
		return
	}
	served := c.served()
	for n := range c.cfg.BGP.Advertise {
		e := &c.cfg.BGP.Advertise[n]
		var foreign []string
		unheard := map[config.Family]bool{}
		for _, p := range e.Prefixes {
			if name := unicastOf(p); !c.carried(e, name) && !unheard[name] {
				unheard[name] = true
				c.note("bgp.advertise[%d]: no neighbor that it goes to carries %s, so nobody is told of %s and others of that family", n, name, p)
			}
			switch {
			case e.NextHop.IsValid() && e.NextHop.Is4() == p.Addr().Is4(): // another box is
			case p.Bits() == 0:
				c.note("bgp.advertise[%d]: with %s neighbors send here what they have no other route for", n, p)
			case !slices.ContainsFunc(served, p.Overlaps):
				foreign = append(foreign, p.String())
			}
		}
		if more := len(foreign) - mostNamed; more > 0 {
			foreign = append(foreign[:mostNamed], fmt.Sprintf("%d more", more))
		}
		if len(foreign) > 0 {
			c.note("bgp.advertise[%d]: nothing of this box is in %s: no address, workload, tunnel or route; what neighbors send here for it goes by whatever route there is, or is dropped",
				n, strings.Join(foreign, ", "))
		}
	}
}

func unicastOf(p netip.Prefix) config.Family {
	if p.Addr().Is4() {
		return config.IPv4Unicast
	}
	return config.IPv6Unicast
}

// carried says whether a neighbor that an entry goes to has a family. Where there is none yet, one is to come.
func (c *compiler) carried(e *config.Advertise, f config.Family) bool {
	return len(c.neighbors()) == 0 || slices.ContainsFunc(c.neighbors(), func(n config.Neighbor) bool {
		return (e.To == nil || slices.Contains(e.To, n.Name)) && slices.Contains(n.Families, f)
	})
}

// served are the prefixes that this box has, forwards to, or answers for.
func (c *compiler) served() []netip.Prefix {
	out := append(c.nearby(), hostPrefixes(c.self)...)
	for _, w := range c.cfg.Workloads {
		out = append(out, hostPrefixes(w.Addresses)...)
	}
	for _, t := range c.cfg.Tunnels {
		for _, p := range t.Peers {
			out = append(out, p.Prefixes...)
		}
	}
	for i := range c.cfg.Policy.Ingress.Rules { // whoever reads from a socket has its own idea of addresses
		r := &c.cfg.Policy.Ingress.Rules[i]
		if r.Action == config.Bypass && len(r.To) == 0 {
			return append(out, netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0))
		}
		if r.Action == config.Bypass {
			out = append(out, c.resolve(r.To)...)
		}
	}
	return out
}

// checkMetrics warns of an address that is not this box's: nobody can listen there.
func (c *compiler) checkMetrics() {
	a := c.cfg.Telemetry.Metrics.Addr()
	if !a.IsValid() || a.IsUnspecified() || a.IsLoopback() || slices.Contains(c.self, a) {
		return
	}
	c.warn = append(c.warn, fmt.Sprintf("telemetry.metrics: %s is not an address of this box now: apply fails until it is", a))
}
