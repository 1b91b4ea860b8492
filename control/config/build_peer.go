package config

import (
	"time"
)

const maxKeepalive = 65535 * time.Second // 16 bits

func (b *builder) peer(t *rawTunnel, r *rawPeer) Peer {
	out := Peer{Name: string(r.Name.v), PresharedKeyFile: string(r.PresharedKeyFile.v), MasterKeyFile: string(r.MasterKeyFile.v),
		PresharedKeyPos: r.PresharedKeyFile.pos, MasterKeyPos: r.MasterKeyFile.pos,
		ID: string(r.ID.v), Keepalive: time.Duration(r.Keepalive.v), Prefixes: prefixes(r.Prefixes),
		Routes: !r.Routes.written() || bool(r.Routes.v), Metric: int(r.Metric.v), Probe: r.Probe.v.Addr, Pos: r.pos}
	for _, k := range good(r.PublicKeys) {
		out.PublicKeys = append(out.PublicKeys, string(k))
	}
	for _, e := range good(r.Endpoints) {
		out.Endpoints = append(out.Endpoints, e.Endpoint)
	}
	b.endpoints(t, r)
	switch {
	case !t.Type.ok:
	case t.Type.v == TypeIPsec:
		b.ipsecPeer(t, r, &out)
	default:
		b.wireguardPeer(r, &out)
	}
	return out
}

func (b *builder) endpoints(t *rawTunnel, r *rawPeer) {
	seen := map[string]at{}
	for _, e := range r.Endpoints.items {
		local := t.Local.Address
		b.unique(seen, e.v.String(), e.ok, e.at, "endpoint")
		if e.ok && e.v.Addr.IsValid() && local.ok && familyOf(e.v.Addr) != familyOf(local.v.Addr) {
			b.add(e.at, bad("endpoint %s and local address %s are of different families", e.v.Addr, local.v))
		}
	}
}

func (b *builder) wireguardPeer(r *rawPeer, out *Peer) {
	b.foreign(r.MasterKeyFile.at, "type: ipsec")
	b.foreign(r.ID.at, "type: ipsec")
	if !r.PublicKeys.written() {
		b.add(r.at, bad("`public_keys` is missing"))
	}
	if keys := r.PublicKeys; keys.empty() || len(keys.items) > 2 {
		b.add(keys.at, bad("a peer has one public key, or two while one is pre-staged"))
	}
	if r.Keepalive.ok && !wholeSeconds(out.Keepalive, maxKeepalive) {
		b.add(r.Keepalive.at, bad("keepalive %s is not allowed", out.Keepalive).or("write whole seconds up to 65535s"))
	}
	for _, e := range r.Endpoints.items {
		if with := (Endpoint{Host: e.v.Host, Port: 51820}); e.ok && e.v.Port == 0 {
			b.add(e.at, bad("%s has no port", e.v.Host).or("write the one that the peer listens on, such as %s", with))
		}
	}
}
