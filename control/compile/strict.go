package compile

import (
	"net/netip"

	"sluice/control/config"
)

// checkStrict warns of a strict tunnel that would cut off what the box cannot do without: the guard at uplink egress
// drops every plaintext packet to a strict prefix, answers to management and BGP included.
func (c *compiler) checkStrict() {
	for _, t := range c.cfg.Tunnels {
		if !t.Strict {
			continue
		}
		for _, p := range t.Peers {
			for _, prefix := range p.Prefixes {
				c.warnStrict(t.Name, prefix)
			}
		}
	}
}

func (c *compiler) warnStrict(tunnel string, strict netip.Prefix) {
	warn := func(what string) {
		c.warn = append(c.warn, "tunnel "+tunnel+": strict prefix "+strict.String()+" covers "+what+
			": what the box sends there by an uplink is dropped")
	}
	for _, m := range c.cfg.Management {
		for _, from := range c.resolve(m.From) {
			if from.Overlaps(strict) {
				warn("management source " + from.String())
			}
		}
	}
	for _, n := range c.neighbors() {
		if strict.Contains(n.Address) {
			warn("BGP neighbor " + n.Name)
		}
	}
}

func (c *compiler) neighbors() []config.Neighbor {
	if c.cfg.BGP == nil {
		return nil
	}
	return c.cfg.BGP.Neighbors
}
