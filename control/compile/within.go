package compile

import (
	"fmt"
	"net/netip"

	"sluice/control/config"
)

// checkWorkloadAddresses warns of workloads in networks that others take for theirs.
func (c *compiler) checkWorkloadAddresses() {
	for _, w := range c.cfg.Workloads {
		for _, a := range w.Addresses {
			if what := c.elsewhere(a); what != "" {
				c.warn = append(c.warn, fmt.Sprintf("workload %s: %s is inside %s", w.Name, a, what))
			}
		}
	}
}

// elsewhere says whose network an address is in, and what follows; "": nobody's.
func (c *compiler) elsewhere(a netip.Addr) string {
	for _, i := range c.cfg.Interfaces {
		if i.Role != config.RoleDownstream {
			continue
		}
		for _, p := range c.addresses(i) {
			if !p.IsSingleIP() && p.Contains(a) {
				return fmt.Sprintf("%s of downstream %s, whose hosts look for it on their own wire and find it only where this box answers there (proxy_arp, proxy_ndp)",
					p.Masked(), i.Name)
			}
		}
	}
	for _, t := range c.cfg.Tunnels {
		for _, peer := range t.Peers {
			for _, p := range peer.Prefixes {
				if t.Strict && p.Contains(a) {
					return fmt.Sprintf("strict prefix %s of tunnel %s: what is sent to it goes there while its interface is away, and the peer may have it as well", p, t.Name)
				}
			}
		}
	}
	return ""
}
