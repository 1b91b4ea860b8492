package config

import (
	"net/netip"

	"sluice/netdump"
)

// overlaps reports prefixes that two peers of one tunnel claim: each packet goes to one of them only.
func (b *builder) overlaps(t *rawTunnel) {
	type claim struct {
		peer int
		at
	}
	var claims nest[claim]
	for i, p := range t.Peers.items {
		for _, x := range p.Prefixes.items {
			if _, taken := claims.of[x.v.Prefix]; x.ok && !taken {
				claims.put(x.v.Prefix, claim{i, x.at})
			}
		}
	}
	for i, p := range t.Peers.items {
		for _, x := range p.Prefixes.items {
			if !x.ok {
				continue
			}
			claims.around(x.v.Prefix, func(around netip.Prefix, c claim) bool {
				if c.peer != i {
					then := "and the longer prefix is taken"
					if around == x.v.Prefix {
						then = "with another metric"
					}
					b.add(x.at, bad("%s overlaps %s of another peer", x.v, around).
						or("it stands at %s; give one of them a tunnel of its own, %s", place(c.at), then))
				}
				return c.peer == i
			})
		}
	}
}

// nested reports endpoints that would be reached through a tunnel: the encrypted packets would go round in circles. Prefixes
// around an endpoint of their own tunnel have a routing table that encrypted packets do not look into.
func (b *builder) nested(raw []rawTunnel) {
	aside := b.aside()
	var taken nest[at]
	for _, t := range raw {
		for _, a := range t.Addresses.items {
			if a.ok {
				taken.put(a.v.Masked(), a.at)
			}
		}
		for _, p := range t.Peers.items {
			catches := bool(t.Strict.v) || !p.Routes.written() || bool(p.Routes.v)
			for _, x := range p.Prefixes.items {
				if x.ok && catches && !aside[x.v.Prefix] {
					taken.put(x.v.Prefix, x.at)
				}
			}
		}
	}
	for _, t := range raw {
		for _, p := range t.Peers.items {
			for _, e := range p.Endpoints.items {
				if !e.ok || !e.v.Addr.IsValid() {
					continue
				}
				taken.around(netip.PrefixFrom(e.v.Addr, e.v.Addr.BitLen()), func(around netip.Prefix, first at) bool {
					b.add(e.at, bad("endpoint %s lies inside %s, which goes through a tunnel", e.v.Addr, around).
						or("take it out of the prefixes at %s", place(first)))
					return false
				})
			}
		}
	}
}

// aside are the prefixes of all tunnels that Around names, once the tunnels are built.
func (b *builder) aside() map[netip.Prefix]bool {
	if b.around == nil {
		b.around = map[netip.Prefix]bool{}
		for i := range b.cfg.Tunnels {
			for _, p := range b.cfg.Tunnels[i].Around() {
				b.around[p] = true
			}
		}
	}
	return b.around
}

// tunnelRoute is what the kernel knows a route by.
type tunnelRoute struct {
	prefix netip.Prefix
	metric int
}

func routeKey(p netip.Prefix, metric int) tunnelRoute {
	return tunnelRoute{p, netdump.Metric(p, metric)}
}

// tunnelRoutes reports routes to one prefix that the kernel could not choose from: of two tunnels, or of a tunnel and the file.
func (b *builder) tunnelRoutes(raw *rawConfig) {
	type claim struct {
		tunnel int
		at
	}
	taken := map[tunnelRoute]claim{}
	for i, t := range raw.Tunnels.items {
		for _, p := range t.Peers.items {
			if p.Routes.written() && !bool(p.Routes.v) || p.Metric.written() && !p.Metric.ok {
				continue
			}
			for _, x := range p.Prefixes.items {
				k := routeKey(x.v.Prefix, int(p.Metric.v))
				first, twice := taken[k]
				switch {
				case !x.ok:
				case twice && first.tunnel != i: // overlaps has told of one tunnel's
					b.add(x.at, bad("another tunnel has a route to %s of the same metric", x.v).
						or("it stands at %s; write different metrics: the lowest is taken while its probes are answered", place(first.at)))
				case !twice:
					taken[k] = claim{i, x.at}
				}
			}
		}
	}
	aside := b.aside()
	for _, r := range raw.Routes.items {
		first, twice := taken[routeKey(r.Prefix.v.Prefix, int(r.Metric.v))]
		if twice && r.Prefix.ok && (r.Metric.ok || !r.Metric.written()) && !aside[r.Prefix.v.Prefix] {
			b.add(r.Prefix.at, bad("a tunnel has a route to %s of the same metric", r.Prefix.v).
				or("it stands at %s; write another metric", place(first.at)))
		}
	}
	b.probeRoutes(raw)
}

// probeRoutes reports what tunnelRoutes does, of the ways that probes take: they have a table for themselves.
func (b *builder) probeRoutes(raw *rawConfig) {
	taken := map[tunnelRoute]at{}
	for i := range b.cfg.Tunnels {
		t, r := &b.cfg.Tunnels[i], &raw.Tunnels.items[i]
		for n, p := range t.Peers {
			if !p.Probe.IsValid() || t.OnLink(p.Probe) {
				continue
			}
			where := r.Peers.items[n].Probe.at
			if !where.written() {
				where = r.Health.Probe.at
			}
			k := routeKey(netip.PrefixFrom(p.Probe, p.Probe.BitLen()), p.Metric)
			if first, twice := taken[k]; twice {
				b.add(where, bad("another tunnel probes %s, with the same metric", p.Probe).or("it stands at %s; write different metrics at the peers", place(first)))
			}
			taken[k] = where
		}
	}
}
