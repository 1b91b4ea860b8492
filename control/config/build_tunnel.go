package config

import (
	"net/netip"
	"slices"
)

func (b *builder) tunnels(raw []rawTunnel) {
	names := map[string]at{}
	for i := range raw {
		r := &raw[i]
		b.unique(names, string(r.Name.v), r.Name.ok, r.Name.at, "tunnel")
		if first, taken := b.links[string(r.Name.v)]; taken && r.Name.ok {
			b.add(r.Name.at, bad("%s is the interface of a workload", r.Name.v).or("it stands at %s", place(first)))
		}
		b.cfg.Tunnels = append(b.cfg.Tunnels, b.tunnel(r))
	}
	for i := range raw {
		if raw[i].Name.ok {
			b.links[string(raw[i].Name.v)] = raw[i].at
		}
	}
	b.listeners(raw)
	b.identities(raw)
	b.nested(raw)
	b.ikeInside(raw)
}

func (b *builder) tunnel(r *rawTunnel) Tunnel {
	out := Tunnel{Name: string(r.Name.v), Type: string(r.Type.v), Local: netip.AddrPortFrom(r.Local.Address.v.Addr, uint16(r.Local.Port.v)),
		Addresses: prefixes(r.Addresses), MTU: int(r.MTU.v), ClampMSS: !r.ClampMSS.written() || bool(r.ClampMSS.v), Strict: bool(r.Strict.v), Pos: r.pos}
	switch {
	case !r.Type.ok:
	case out.Type == TypeIPsec:
		b.foreign(r.WireGuard.at, "type: wireguard")
		b.ipsec(r, &out)
	default:
		b.foreign(r.IPsec.at, "type: ipsec")
		b.wireguard(r, &out)
	}
	b.addresses(r.Addresses)
	carried := slices.Clone(out.Addresses)
	names, strictOver := map[string]at{}, false
	for i := range r.Peers.items {
		p := &r.Peers.items[i]
		b.unique(names, string(p.Name.v), p.Name.ok, p.Name.at, "peer")
		out.Peers = append(out.Peers, b.peer(r, p))
		carried = append(carried, out.Peers[i].Prefixes...)
		strictOver = strictOver || len(p.Prefixes.items) > 0 || p.Prefixes.unsure()
	}
	b.mtuForIPv6(r.MTU.at, int(r.MTU.v), r.MTU.ok, carried)
	if bool(r.Strict.v) && !strictOver && !r.Peers.unsure() {
		b.add(r.Strict.at, bad("strict guards the prefixes of peers, and no peer has any").or("write prefixes, or remove strict"))
	}
	b.overlaps(r)
	b.health(r, &out)
	return out
}

// foreign reports a key that belongs to another type of tunnel, or to another keying.
func (b *builder) foreign(key at, belongs string) {
	if key.written() {
		b.add(key, bad("this key is for %s", belongs).or("remove it"))
	}
}

func (b *builder) wireguard(r *rawTunnel, out *Tunnel) {
	out.Backend, out.PrivateKeyFile = string(r.WireGuard.Backend.or("auto")), string(r.WireGuard.PrivateKeyFile.v)
	out.PrivateKeyPos = r.WireGuard.PrivateKeyFile.pos
	if !r.WireGuard.written() {
		b.add(r.at, bad("`wireguard` is missing").or("write wireguard: {private_key_file: PATH}"))
	}
	if r.Local.Address.written() && !r.Local.Port.written() {
		b.add(r.Local.at, bad("`port` is missing").or("write the UDP port that WireGuard listens on, such as 51820"))
	}
	keys := map[publicKey]at{}
	for _, p := range r.Peers.items {
		for _, k := range p.PublicKeys.items {
			if first, taken := keys[k.v]; k.ok && taken {
				b.add(k.at, bad("duplicate public key").or("the first stands at %s", place(first)))
			}
			keys[k.v] = k.at
		}
	}
}

// listener is who receives at a UDP port.
type listener struct {
	at
	by string
}

// listeners reports UDP ports that two kinds of tunnel would listen on. WireGuard binds its own on every address, and charon
// 500 and 4500; UDP encapsulation with static keys binds the local address, for all its tunnels there.
func (b *builder) listeners(raw []rawTunnel) {
	const wireguard, charon, static = "WireGuard", "charon", "UDP encapsulation"
	binds := map[string]string{wireguard: ": WireGuard listens on every address", charon: ": charon has 500 and 4500 on every address"}
	taken := map[uint16]listener{}
	claim := func(port uint16, a at, by string) {
		first, twice := taken[port]
		if !twice {
			taken[port] = listener{a, by}
		} else if first.by != by || by == wireguard {
			b.add(a, bad("duplicate listen port %d", port).
				or("the first stands at %s (%s); write another port%s", place(first.at), first.by, binds[first.by]))
		}
	}
	for i := range raw {
		r := &raw[i]
		switch t := &b.cfg.Tunnels[i]; {
		case !r.Type.ok:
		case t.Type == TypeWireGuard:
			if r.Local.Port.ok {
				claim(t.Local.Port(), r.Local.Port.at, wireguard)
			}
		case t.IPsec.Keying == KeyingIKE:
			claim(ikePort, r.IPsec.Keying.at, charon)
			claim(natPort, r.IPsec.Keying.at, charon)
		case t.IPsec.Encapsulation == EncapsulationUDP:
			where := r.IPsec.Encapsulation.at
			if r.Local.Port.written() {
				where = r.Local.Port.at
			}
			claim(t.Local.Port(), where, static)
		}
	}
}

// Around returns the prefixes of peers that hold an endpoint of the same tunnel: one of the file's, or one of those given,
// which names stand for. Encrypted packets that follow a route to such a prefix would go round in circles. A default route
// holds every endpoint of its family, and counts for the other family too. Prefixes without routes and blackholes do not.
func (t *Tunnel) Around(found ...netip.Addr) []netip.Prefix {
	var carried nest[bool] // false: not, or named already
	var out []netip.Prefix
	for _, p := range t.Peers {
		for _, x := range p.Prefixes {
			caught := p.Routes || t.Strict
			carried.put(x, caught && x.Bits() > 0)
			if caught && x.Bits() == 0 {
				out = append(out, x)
			}
		}
	}
	around := func(a netip.Addr) {
		if a.IsValid() {
			carried.around(netip.PrefixFrom(a, a.BitLen()), func(p netip.Prefix, yes bool) bool {
				if yes {
					carried.put(p, false)
					out = append(out, p)
				}
				return true
			})
		}
	}
	for _, p := range t.Peers {
		for _, e := range p.Endpoints {
			around(e.Addr)
		}
	}
	for _, a := range found {
		around(a)
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out)
}
