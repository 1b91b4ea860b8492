package config

import (
	"net/netip"
	"time"
)

const maxKeepalive = 65535 * time.Second // 16 bits

func (b *builder) tunnels(raw []rawTunnel) {
	names, listeners := map[string]at{}, map[uint16]at{}
	for i := range raw {
		r := &raw[i]
		b.unique(names, string(r.Name.v), r.Name.ok, r.Name.at, "tunnel")
		if first, taken := b.links[string(r.Name.v)]; taken && r.Name.ok {
			b.add(r.Name.at, bad("%s is the interface of a workload", r.Name.v).or("it stands at %s", place(first)))
		}
		if r.Local.Port.ok {
			// WireGuard binds its port on every address.
			if first, taken := listeners[uint16(r.Local.Port.v)]; taken {
				b.add(r.Local.Port.at, bad("duplicate listen port %d", r.Local.Port.v).or("the first stands at %s", place(first)))
			}
			listeners[uint16(r.Local.Port.v)] = r.Local.Port.at
		}
		b.cfg.Tunnels = append(b.cfg.Tunnels, b.tunnel(r))
	}
	for i := range raw {
		if raw[i].Name.ok {
			b.links[string(raw[i].Name.v)] = raw[i].at
		}
	}
	b.nested(raw)
}

func (b *builder) tunnel(r *rawTunnel) Tunnel {
	out := Tunnel{Name: string(r.Name.v), Local: netip.AddrPortFrom(r.Local.Address.v.Addr, uint16(r.Local.Port.v)),
		Addresses: prefixes(r.Addresses), MTU: int(r.MTU.v), Strict: bool(r.Strict.v),
		Backend: string(r.WireGuard.Backend.or("auto")), PrivateKeyFile: string(r.WireGuard.PrivateKeyFile.v), Pos: r.pos}
	if r.Type.ok && !r.WireGuard.written() {
		b.add(r.at, bad("`wireguard` is missing").or("write wireguard: {private_key_file: PATH}"))
	}
	b.addresses(r.Addresses)
	carried := out.Addresses
	names, keys := map[string]at{}, map[publicKey]at{}
	strictOver := false
	for i := range r.Peers.items {
		p := &r.Peers.items[i]
		b.unique(names, string(p.Name.v), p.Name.ok, p.Name.at, "peer")
		for _, k := range p.PublicKeys.items {
			if first, taken := keys[k.v]; k.ok && taken {
				b.add(k.at, bad("duplicate public key").or("the first stands at %s", place(first)))
			}
			keys[k.v] = k.at
		}
		out.Peers = append(out.Peers, b.peer(r, p))
		carried = append(carried[:len(carried):len(carried)], prefixes(p.Prefixes)...)
		strictOver = strictOver || len(p.Prefixes.items) > 0 || p.Prefixes.unsure()
	}
	b.mtuForIPv6(r.MTU.at, int(r.MTU.v), r.MTU.ok, carried)
	if bool(r.Strict.v) && !strictOver && !r.Peers.unsure() {
		b.add(r.Strict.at, bad("strict guards the prefixes of peers, and no peer has any").or("write prefixes, or remove strict"))
	}
	b.overlaps(r)
	return out
}

func (b *builder) peer(t *rawTunnel, r *rawPeer) Peer {
	out := Peer{Name: string(r.Name.v), PresharedKeyFile: string(r.PresharedKeyFile.v), Keepalive: time.Duration(r.Keepalive.v),
		Prefixes: prefixes(r.Prefixes), Routes: !r.Routes.written() || bool(r.Routes.v), Metric: int(r.Metric.v), Pos: r.pos}
	for _, k := range good(r.PublicKeys) {
		out.PublicKeys = append(out.PublicKeys, string(k))
	}
	if keys := r.PublicKeys; keys.empty() || len(keys.items) > 2 {
		b.add(keys.at, bad("a peer has one public key, or two while one is pre-staged"))
	}
	if r.Keepalive.ok && !wholeSeconds(out.Keepalive, maxKeepalive) {
		b.add(r.Keepalive.at, bad("keepalive %s is not allowed", out.Keepalive).or("write whole seconds up to 65535s"))
	}
	if len(r.Endpoints.items) > 1 {
		b.add(r.Endpoints.items[1].at, unavailable("a second endpoint"))
	}
	for _, e := range r.Endpoints.items {
		local := t.Local.Address
		if e.ok && local.ok && familyOf(e.v.Addr()) != familyOf(local.v.Addr) {
			b.add(e.at, bad("endpoint %s and local address %s are of different families", e.v.Addr(), local.v))
		}
		out.Endpoints = append(out.Endpoints, e.v.AddrPort)
	}
	return out
}

// overlaps reports prefixes that two peers of one tunnel claim: WireGuard would send each packet to one of them only.
func (b *builder) overlaps(t *rawTunnel) {
	type claim struct {
		peer int
		at
	}
	claims := map[netip.Prefix]claim{}
	for i, p := range t.Peers.items {
		for _, x := range p.Prefixes.items {
			if _, taken := claims[x.v.Prefix]; x.ok && !taken {
				claims[x.v.Prefix] = claim{i, x.at}
			}
		}
	}
	for i, p := range t.Peers.items {
		for _, x := range p.Prefixes.items {
			if !x.ok {
				continue
			}
			covering(x.v.Prefix, func(around netip.Prefix) bool {
				c, taken := claims[around]
				if taken && c.peer != i {
					b.add(x.at, bad("%s overlaps %s of another peer", x.v, around).or("it stands at %s", place(c.at)))
				}
				return !taken || c.peer == i
			})
		}
	}
}

// nested reports endpoints that would be reached through a tunnel: the encrypted packets would go round in circles.
func (b *builder) nested(raw []rawTunnel) {
	taken := map[netip.Prefix]at{}
	for _, t := range raw {
		for _, a := range t.Addresses.items {
			if a.ok {
				taken[a.v.Masked()] = a.at
			}
		}
		for _, p := range t.Peers.items {
			catches := bool(t.Strict.v) || !p.Routes.written() || bool(p.Routes.v)
			for _, x := range p.Prefixes.items {
				if x.ok && catches {
					taken[x.v.Prefix] = x.at
				}
			}
		}
	}
	for _, t := range raw {
		for _, p := range t.Peers.items {
			for _, e := range p.Endpoints.items {
				if !e.ok {
					continue
				}
				covering(netip.PrefixFrom(e.v.Addr(), e.v.Addr().BitLen()), func(around netip.Prefix) bool {
					first, inside := taken[around]
					if inside {
						b.add(e.at, bad("endpoint %s lies inside %s, which goes through a tunnel", e.v.Addr(), around).
							or("take it out of the prefixes at %s", place(first)))
					}
					return !inside
				})
			}
		}
	}
}
