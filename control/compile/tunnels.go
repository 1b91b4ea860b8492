package compile

import (
	"fmt"
	"net/netip"
	"slices"

	"sluice/control/config"
	"sluice/crypto/path"
	"sluice/crypto/wireguard"
	"sluice/xdp/abi"
)

// tunnels is what both types of tunnel share.
type tunnels struct {
	now map[string]TunnelNow // Runtime.Tunnels
	// aside are prefixes around an endpoint of a tunnel that carries them: their routes stand in path.Table, where encrypted
	// packets do not look.
	aside map[netip.Prefix]bool
	// lost are endpoints that were found behind another tunnel: nobody is sent there.
	lost map[netip.Addr]bool
}

// findTunnels judges the endpoints that were found at run time as the parser judged the file's.
func (c *compiler) findTunnels(now map[string]TunnelNow) {
	c.tunnels = tunnels{now: now, aside: map[netip.Prefix]bool{}, lost: map[netip.Addr]bool{}}
	for i := range c.cfg.Tunnels {
		t := &c.cfg.Tunnels[i]
		for _, p := range t.Around(c.found(t)...) {
			c.tunnels.aside[p] = true
		}
	}
	caught := c.caught()
	for i := range c.cfg.Tunnels {
		t := &c.cfg.Tunnels[i]
		for _, a := range c.found(t) {
			if around, inside := covered(a, caught); inside && !c.tunnels.lost[a] {
				c.tunnels.lost[a] = true
				c.warn = append(c.warn, fmt.Sprintf("tunnel %s: endpoint %s lies inside %s, which goes through a tunnel, and is not used: take it out of that prefix, or out of DNS", t.Name, a, around))
			}
		}
	}
}

// found are the addresses in use of a tunnel's peers that the file does not say itself, in its order.
func (c *compiler) found(t *config.Tunnel) []netip.Addr {
	var out []netip.Addr
	for _, p := range t.Peers {
		a := c.tunnels.now[t.Name].Peers[p.Name].Endpoint.Addr()
		if a.IsValid() && !slices.ContainsFunc(p.Endpoints, func(e config.Endpoint) bool { return e.Addr == a }) {
			out = append(out, a)
		}
	}
	return out
}

// caught are the prefixes that packets, encrypted ones too, go into tunnels for.
func (c *compiler) caught() map[netip.Prefix]bool {
	out := map[netip.Prefix]bool{}
	for _, t := range c.cfg.Tunnels {
		for _, a := range t.Addresses {
			out[a.Masked()] = true
		}
		for _, p := range t.Peers {
			for _, prefix := range p.Prefixes {
				if (p.Routes || t.Strict) && !c.tunnels.aside[prefix] {
					out[prefix] = true
				}
			}
		}
	}
	return out
}

// covered returns the longest of the prefixes that hold an address.
func covered(a netip.Addr, by map[netip.Prefix]bool) (netip.Prefix, bool) {
	for bits := a.BitLen(); bits >= 0; bits-- {
		if p, err := a.Prefix(bits); err == nil && by[p] {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// peerNow is how a peer is to be reached: what is known of it, and where that is nothing what the file says first.
func (c *compiler) peerNow(t *config.Tunnel, p *config.Peer) PeerNow {
	now := c.tunnels.now[t.Name].Peers[p.Name]
	if c.tunnels.lost[now.Endpoint.Addr()] {
		now.Endpoint = netip.AddrPort{}
	}
	for _, e := range p.Endpoints {
		if !now.Endpoint.IsValid() && e.Addr.IsValid() {
			now.Endpoint = e.AddrPort()
		}
	}
	if !slices.Contains(p.PublicKeys, now.PublicKey) && len(p.PublicKeys) > 0 {
		now.PublicKey = p.PublicKeys[0]
	}
	return now
}

// table is where routes to a prefix stand; 0: main.
func (c *compiler) table(prefix netip.Prefix) int {
	if c.tunnels.aside[prefix] {
		return path.Table
	}
	return 0
}

// carried are the prefixes of a peer as its tunnel takes them: the file's, the address that is probed, and the network of a
// device with one peer where that is for two alone, so that the ends reach each other.
func carried(t *config.Tunnel, p *config.Peer) []netip.Prefix {
	out := slices.Clone(p.Prefixes)
	add := func(more netip.Prefix) {
		if !within(more, out) {
			out = append(out, more)
		}
	}
	for _, a := range t.Addresses {
		if ends := a.Addr().BitLen() - a.Bits(); len(t.Peers) == 1 && (ends == 1 || ends == 2) {
			add(a.Masked())
		}
	}
	if p.Probe.IsValid() {
		add(netip.PrefixFrom(p.Probe, p.Probe.BitLen()))
	}
	return sortedPrefixes(out)
}

// routesInto are the routes into a tunnel's device. Those of a peer whose probes are lost are withdrawn, but not the way that
// the probes take, which is the prober's alone.
func (c *compiler) routesInto(t *config.Tunnel) []path.Route {
	var out []path.Route
	for i := range t.Peers {
		p := &t.Peers[i]
		if p.Routes && !c.tunnels.now[t.Name].Peers[p.Name].Down {
			for _, prefix := range p.Prefixes {
				if c.table(prefix) != 0 || !connects(t, prefix) {
					out = append(out, path.Route{Prefix: prefix, Metric: p.Metric, Table: c.table(prefix)})
				}
			}
		}
		if p.Probe.IsValid() && !t.OnLink(p.Probe) {
			out = append(out, path.Route{Prefix: netip.PrefixFrom(p.Probe, p.Probe.BitLen()), Metric: p.Metric, Table: path.ProbeTable})
		}
	}
	slices.SortFunc(out, path.Route.Compare)
	return out
}

// connects says whether a prefix is a network of the tunnel's device: the kernel has a route there, and refuses ours beside it.
func connects(t *config.Tunnel, p netip.Prefix) bool {
	return slices.ContainsFunc(t.Addresses, func(a netip.Prefix) bool { return a.Masked() == p && !a.IsSingleIP() })
}

// blackholes stand behind the prefixes of strict tunnels, whatever became of the device.
func (c *compiler) blackholes() path.State {
	var s path.State
	for _, t := range c.cfg.Tunnels {
		if !t.Strict {
			continue
		}
		for _, p := range t.Peers {
			for _, prefix := range p.Prefixes {
				s.Blackholes = append(s.Blackholes, path.Blackhole{Prefix: prefix, Table: c.table(prefix)})
			}
		}
	}
	slices.SortFunc(s.Blackholes, path.Blackhole.Compare)
	s.Blackholes = slices.Compact(s.Blackholes)
	return s
}

// checkKeys tells of the files of secrets. Where the file was accepted before, by a release that did not look or before a directory
// changed, its tunnels go on.
func (c *compiler) checkKeys() {
	for _, e := range c.facts.Secrets {
		c.failNew(e.Pos, e.Path, e.Msg, e.Hint)
	}
	c.warn = append(c.warn, c.facts.Certificates...)
}

func (c *compiler) wireguard() wireguard.State {
	var s wireguard.State
	for at := range c.cfg.Tunnels {
		t := &c.cfg.Tunnels[at]
		if t.Type != config.TypeWireGuard {
			continue
		}
		public := c.facts.PublicKeys[t.PrivateKeyFile]
		tun := wireguard.Tunnel{
			Name: t.Name, Backend: wireguard.Backend(t.Backend),
			PrivateKeyFile: t.PrivateKeyFile, PublicKey: public,
			ListenPort: t.Local.Port(), Addresses: sortedPrefixes(t.Addresses),
			MTU: c.tunnelMTU(t), FirewallMark: abi.MarkUnderlay, Routes: c.routesInto(t),
		}
		if a := t.Local.Addr(); !a.IsUnspecified() {
			tun.Local = a
			c.checkLocal(t, "packets come from whatever address their route has")
		}
		for n := range t.Peers {
			p := &t.Peers[n]
			tun.Peers = append(tun.Peers, c.wireguardPeers(t, p)...)
		}
		slices.SortFunc(tun.Peers, func(a, b wireguard.Peer) int { return compareNames(a.PublicKey, b.PublicKey) })
		s.Tunnels = append(s.Tunnels, tun)
	}
	c.errs = append(c.errs, OwnKeys(c.cfg, c.facts.PublicKeys)...)
	slices.SortFunc(s.Tunnels, func(a, b wireguard.Tunnel) int { return compareNames(a.Name, b.Name) })
	return s
}

// OwnKeys are the peers that have the key of their tunnel itself. public are the public halves of private key files.
func OwnKeys(cfg *config.Config, public map[string]string) config.Errors {
	var out config.Errors
	for at, t := range cfg.Tunnels {
		own := public[t.PrivateKeyFile]
		for n, p := range t.Peers {
			if i := slices.Index(p.PublicKeys, own); i >= 0 && own != "" {
				out = append(out, config.Error{Pos: p.Pos, Path: fmt.Sprintf("tunnels[%d].peers[%d].public_keys[%d]", at, n, i), Msg: "this is the node's own key",
					Hint: "give the peer's public key: `sluice key show` on the peer prints it"})
			}
		}
	}
	return out
}

// checkLocal warns of a local address that the box has neither now nor by the file. then is what comes of it.
func (c *compiler) checkLocal(t *config.Tunnel, then string) {
	if a := t.Local.Addr(); a.IsValid() && !slices.Contains(c.self, a) {
		c.warn = append(c.warn, fmt.Sprintf("tunnel %s: local address %s is not an address of this box now: %s until it is", t.Name, a, then))
	}
}

// wireguardPeers are one for each public key. The one that is not in use may shake hands and carries nothing; it is not
// kept alive, because nobody answers to a key that is not there yet.
func (c *compiler) wireguardPeers(t *config.Tunnel, p *config.Peer) []wireguard.Peer {
	now := c.peerNow(t, p)
	var out []wireguard.Peer
	for _, key := range p.PublicKeys {
		peer := wireguard.Peer{Name: p.Name, PublicKey: key, Endpoint: now.Endpoint, PresharedKeyFile: p.PresharedKeyFile}
		if key == now.PublicKey {
			peer.Keepalive, peer.AllowedIPs = p.Keepalive, carried(t, p)
		}
		out = append(out, peer)
	}
	return out
}
