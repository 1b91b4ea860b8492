package config

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

const (
	ikePort = 500  // RFC 7296 section 2
	natPort = 4500 // RFC 3948 section 2.1

	defaultReplay replayWindow = 1024
	defaultCharon              = "/run/charon.vici"
	defaultRekey               = 24 * time.Hour
	// minRekey keeps epochs, which begin as minutes since 2020, behind the clock: where their file is lost, the clock alone
	// must give an epoch that never was.
	minRekey = 5 * time.Minute
	maxRekey = 365 * 24 * time.Hour
	// maxESPMTU fits into the largest IP packet with all that ESP may add: 40 of IPv6, 8 of UDP, 16 in front, 2 and 16 behind.
	maxESPMTU = 65450
)

// ipsec fills in what the tunnel has of its own. The peers come later.
func (b *builder) ipsec(r *rawTunnel, out *Tunnel) {
	i := &r.IPsec
	out.IPsec = &IPsec{Keying: string(i.Keying.v), ID: cmp.Or(string(i.ID.v), out.Local.Addr().String()),
		Encapsulation: string(i.Encapsulation.or(EncapsulationAuto)), ReplayWindow: int(i.ReplayWindow.or(defaultReplay)), Rekey: time.Duration(i.Rekey.v)}
	if !i.written() {
		b.add(r.at, bad("`ipsec` is missing").or("write ipsec: {keying: static}, or ipsec: {keying: ike} where strongSwan runs"))
	}
	if w := i.ReplayWindow; w.ok && w.v%32 != 0 {
		b.add(w.at, bad("replay window %d is not a multiple of 32", w.v).or("write %d", (w.v+31)&^31))
	}
	if r.MTU.ok && r.MTU.v > maxESPMTU {
		b.add(r.MTU.at, bad("MTU %d and what ESP adds are more than an IP packet holds", r.MTU.v).or("write %d or less", maxESPMTU))
	}
	switch {
	case !i.Keying.ok:
	case out.IPsec.Keying == KeyingStatic:
		b.static(r, out)
	default:
		b.ike(r, out)
	}
	if d := out.IPsec.Rekey; i.Rekey.ok && d != 0 && (d < minRekey || d > maxRekey) {
		b.add(i.Rekey.at, bad("rekey %s is not allowed", d).or("write 5m to 8760h"))
	}
}

// static is IPsec with keys out of a master key.
func (b *builder) static(r *rawTunnel, out *Tunnel) {
	const elsewhere = "keying: ike"
	i, p := &r.IPsec, out.IPsec
	b.foreign(i.Charon.at, elsewhere)
	b.foreign(i.IKEProposals.at, elsewhere)
	b.foreign(i.ESPProposals.at, elsewhere)
	b.foreign(i.Auth.at, elsewhere)
	if !i.Rekey.written() {
		p.Rekey = defaultRekey
	}
	if p.Encapsulation == EncapsulationAuto {
		p.Encapsulation = EncapsulationNone // nobody is there to find a NAT out
	}
	if p.Encapsulation == EncapsulationUDP && !r.Local.Port.written() {
		out.Local = netip.AddrPortFrom(out.Local.Addr(), natPort)
	}
	if p.Encapsulation == EncapsulationNone && r.Local.Port.written() {
		b.add(r.Local.Port.at, bad("the port is that of UDP encapsulation, which is off").or("remove it, or write ipsec: {encapsulation: udp}"))
	}
}

// ike is IPsec with charon.
func (b *builder) ike(r *rawTunnel, out *Tunnel) {
	i, p := &r.IPsec, out.IPsec
	p.Charon = cmp.Or(string(i.Charon.v), defaultCharon)
	p.IKEProposals, p.ESPProposals = b.proposals(i.IKEProposals), b.proposals(i.ESPProposals)
	p.Auth = b.auth(&i.Auth)
	if p.Encapsulation == EncapsulationNone {
		b.add(i.Encapsulation.at, bad("charon finds out by itself whether there is a NAT between").or("write auto, or udp for always"))
	}
	if r.Local.Port.written() {
		b.add(r.Local.Port.at, bad("charon has ports of its own, 500 and 4500").or("remove it; strongswan.conf has them"))
	}
	if i.Rekey.ok && p.Rekey == 0 {
		b.add(i.Rekey.at, bad("IKE does not go without new keys").or("remove it for one hour, or write 5m to 8760h"))
	}
}

func (b *builder) proposals(raw list[val[proposal]]) []string {
	var out []string
	seen := map[string]at{}
	for _, p := range raw.items {
		b.unique(seen, string(p.v), p.ok, p.at, "proposal")
		out = append(out, string(p.v))
	}
	if raw.empty() {
		b.add(raw.at, bad("the list is empty").or("remove it for AES-256-GCM, over IPsec with extended sequence numbers"))
	}
	return out
}

func (b *builder) ipsecPeer(t *rawTunnel, r *rawPeer, out *Peer) {
	for _, key := range []at{r.PublicKeys.at, r.Keepalive.at} {
		b.foreign(key, "type: wireguard")
	}
	if !r.Endpoints.any() && !r.Endpoints.unsure() {
		where := r.at
		if r.Endpoints.written() {
			where = r.Endpoints.at
		}
		b.add(where, bad("a peer of IPsec needs an endpoint").or(`write endpoints: ["198.51.100.7"], or a DNS name`))
	}
	if out.ID == "" && len(out.Endpoints) > 0 {
		out.ID = out.Endpoints[0].Host
	}
	keying := t.IPsec.Keying
	switch {
	case !keying.ok:
	case keying.v == KeyingStatic:
		b.foreign(r.PresharedKeyFile.at, "keying: ike, and for type: wireguard")
		if !r.MasterKeyFile.written() {
			b.add(r.at, bad("`master_key_file` is missing").or("static keys come out of a master key that both ends have: `sluice key master FILE` makes one"))
		}
	default:
		b.foreign(r.MasterKeyFile.at, "keying: static")
		b.ikeSecret(&t.IPsec.Auth, r)
	}
	for _, e := range r.Endpoints.items {
		if e.ok && e.v.Port != 0 && keying.ok && keying.v == KeyingStatic && t.IPsec.Encapsulation.v != EncapsulationUDP {
			b.add(e.at, bad("ESP has no ports").or("write %s, or ipsec: {encapsulation: udp}", e.v.Host))
		}
	}
}

// ikeInside reports endpoints that strict, of whatever tunnel, would cut off: charon's own packets to them are plaintext to the
// guard. Those that names stand for are seen by compile; those in prefixes that are not set aside are reported by nested.
func (b *builder) ikeInside(raw []rawTunnel) {
	var ends []netip.Addr
	for i, t := range b.cfg.Tunnels {
		for _, p := range t.Peers {
			for _, e := range p.Endpoints {
				if raw[i].IPsec.Keying.ok && t.IPsec != nil && t.IPsec.Keying == KeyingIKE && e.Addr.IsValid() {
					ends = append(ends, e.Addr)
				}
			}
		}
	}
	aside := b.aside()
	for _, t := range raw {
		for _, p := range t.Peers.items {
			for _, x := range p.Prefixes.items {
				n := slices.IndexFunc(ends, x.v.Contains)
				if bool(t.Strict.v) && x.ok && n >= 0 && aside[x.v.Prefix] {
					b.add(x.at, bad("strict would drop IKE itself, whose packets to endpoint %s go in the open", ends[n]).
						or("take the endpoint out of the prefix, or write keying: static, or remove strict"))
				}
			}
		}
	}
}

// identities reports ends that nobody could tell apart. With static keys both directions, or two tunnels, would have one key.
func (b *builder) identities(raw []rawTunnel) {
	type pair struct{ secret, one, other string }
	seen := map[pair]at{}
	for i := range raw {
		t := &b.cfg.Tunnels[i]
		if t.IPsec == nil || !raw[i].IPsec.Keying.ok {
			continue
		}
		for n, p := range t.Peers {
			r := &raw[i].Peers.items[n]
			where := r.at
			if r.ID.written() {
				where = r.ID.at
			}
			secret, hint := p.MasterKeyFile, "write another id: or another master_key_file, the same on both ends"
			if t.IPsec.Keying == KeyingIKE {
				// charon, told of a first contact between two identities, closes all else that they have.
				secret, hint = t.IPsec.Charon, "write another id: at the tunnel or at a peer"
			}
			key := pair{secret, min(t.IPsec.ID, p.ID), max(t.IPsec.ID, p.ID)}
			switch first, twice := seen[key]; {
			case p.ID == "" || (r.ID.written() && !r.ID.ok):
			case p.ID == t.IPsec.ID:
				b.add(where, bad("%s is the id of this node", p.ID).or("write the peer's, as the peer has it"))
			case twice:
				b.add(where, bad("these two ids have a tunnel already").or("it stands at %s; %s", place(first), hint))
			default:
				seen[key] = where
			}
		}
	}
}
