package compile

import (
	"fmt"
	"slices"

	"sluice/control/config"
	"sluice/crypto/wireguard"
	"sluice/xdp/abi"
)

// What WireGuard adds to a packet: 32 bytes of its own, 8 of UDP, and the outer IP header.
const (
	wireguardOverIPv4 = 60
	wireguardOverIPv6 = 80
)

const defaultMTU = 1500

func (c *compiler) wireguard() wireguard.State {
	var s wireguard.State
	for at, t := range c.cfg.Tunnels {
		public := c.facts.PublicKeys[t.PrivateKeyFile]
		tun := wireguard.Tunnel{
			Name: t.Name, Backend: wireguard.Backend(t.Backend),
			PrivateKeyFile: t.PrivateKeyFile, PublicKey: public,
			ListenPort: t.Local.Port(), Addresses: sortedPrefixes(t.Addresses),
			MTU: c.tunnelMTU(t), FirewallMark: abi.MarkUnderlay,
		}
		for n, p := range t.Peers {
			if public != "" && slices.Contains(p.PublicKeys, public) {
				c.fail(p.Pos, fmt.Sprintf("tunnels[%d].peers[%d].public_keys", at, n), "this is the node's own key",
					"give the peer's public key: `sluice key show` on the peer prints it")
			}
			addPeer(&tun, t, p)
		}
		slices.SortFunc(tun.Peers, func(a, b wireguard.Peer) int { return compareNames(a.PublicKey, b.PublicKey) })
		slices.SortFunc(tun.Routes, func(a, b wireguard.Route) int { return comparePrefixes(a.Prefix, b.Prefix) })
		tun.Blackholes = sortedPrefixes(tun.Blackholes)
		s.Tunnels = append(s.Tunnels, tun)
	}
	slices.SortFunc(s.Tunnels, func(a, b wireguard.Tunnel) int { return compareNames(a.Name, b.Name) })
	return s
}

func addPeer(tun *wireguard.Tunnel, t config.Tunnel, p config.Peer) {
	peer := wireguard.Peer{
		Name: p.Name, PublicKey: p.PublicKeys[0], PresharedKeyFile: p.PresharedKeyFile,
		Keepalive: p.Keepalive, AllowedIPs: sortedPrefixes(p.Prefixes),
	}
	if len(p.Endpoints) > 0 {
		peer.Endpoint = p.Endpoints[0]
	}
	tun.Peers = append(tun.Peers, peer)
	if p.Routes {
		for _, prefix := range p.Prefixes {
			tun.Routes = append(tun.Routes, wireguard.Route{Prefix: prefix, Metric: p.Metric})
		}
	}
	if t.Strict {
		tun.Blackholes = append(tun.Blackholes, p.Prefixes...)
	}
}

// tunnelMTU is the file's, or what fits into the smallest uplink.
func (c *compiler) tunnelMTU(t config.Tunnel) int {
	if t.MTU != 0 {
		return t.MTU
	}
	underlay := 0
	for _, i := range c.cfg.Interfaces {
		if i.Role != config.RoleUplink {
			continue
		}
		mtu := i.MTU
		if link := c.link(i.Name); mtu == 0 && link != nil {
			mtu = link.MTU
		}
		if mtu != 0 && (underlay == 0 || mtu < underlay) {
			underlay = mtu
		}
	}
	if underlay == 0 {
		underlay = defaultMTU
	}
	overhead := wireguardOverIPv4
	for _, p := range t.Peers {
		if len(p.Endpoints) == 0 || p.Endpoints[0].Addr().Is6() {
			overhead = wireguardOverIPv6 // a roaming peer may come by either
		}
	}
	return underlay - overhead
}
