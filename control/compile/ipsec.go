package compile

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sluice/control/config"
	"sluice/crypto/ipsec"
	"sluice/xdp/abi"
)

// natPort is where ESP in UDP goes by default (RFC 3948 section 2.1), ikePort where IKE begins (RFC 7296 section 2).
const natPort, ikePort = 4500, 500

func (c *compiler) ipsec() ipsec.State {
	var s ipsec.State
	numbers := map[uint32]string{}
	for i := range c.cfg.Tunnels {
		t := &c.cfg.Tunnels[i]
		if t.Type != config.TypeIPsec {
			continue
		}
		if other := numbers[ipsec.IfID(t.Name)]; other != "" {
			c.fail(t.Pos, fmt.Sprintf("tunnels[%d].name", i), fmt.Sprintf("the kernel would know %s and %s by one number (if_id)", other, t.Name), "rename one")
		}
		numbers[ipsec.IfID(t.Name)] = t.Name
		own := t.IPsec
		tun := ipsec.Tunnel{
			Name: t.Name, Local: t.Local, Addresses: sortedPrefixes(t.Addresses), MTU: c.tunnelMTU(t), FirewallMark: abi.MarkUnderlay,
			Keying: ipsec.Keying(own.Keying), ID: own.ID, Encapsulation: ipsec.Encapsulation(own.Encapsulation),
			ReplayWindow: own.ReplayWindow, Rekey: own.Rekey, Charon: own.Charon,
			IKEProposals: own.IKEProposals, ESPProposals: own.ESPProposals, Routes: c.routesInto(t),
		}
		if a := own.Auth; a != nil {
			tun.Certificates = &ipsec.Certificates{Certificate: a.CertificateFile, PrivateKey: a.PrivateKeyFile, CAs: a.CAFiles}
		}
		for n := range t.Peers {
			if len(carried(t, &t.Peers[n])) == 0 {
				c.fail(t.Peers[n].Pos, fmt.Sprintf("tunnels[%d].peers[%d]", i, n), "the peer has no prefixes, so that nothing could be sent to it",
					"write prefixes; with routes: false where BGP has the routes")
			}
			if peer, ok := c.ipsecPeer(t, &t.Peers[n]); ok {
				tun.Peers = append(tun.Peers, peer)
			}
		}
		slices.SortFunc(tun.Peers, func(a, b ipsec.Peer) int { return compareNames(a.Name, b.Name) })
		s.Tunnels = append(s.Tunnels, tun)
		c.checkLocal(t, "nothing reaches the tunnel")
	}
	slices.SortFunc(s.Tunnels, func(a, b ipsec.Tunnel) int { return compareNames(a.Name, b.Name) })
	return s
}

// ipsecPeer is not ok where nobody knows yet where the peer is: security associations have both addresses.
func (c *compiler) ipsecPeer(t *config.Tunnel, p *config.Peer) (ipsec.Peer, bool) {
	now := c.peerNow(t, p)
	why := ""
	switch {
	case !now.Endpoint.IsValid():
		why = "no address is known of " + endpointNames(p)
	case now.Endpoint.Addr().Is4() != t.Local.Addr().Is4():
		why = fmt.Sprintf("its endpoint %s and local address %s are of different families", now.Endpoint.Addr(), t.Local.Addr())
	case t.IPsec.Keying == config.KeyingIKE:
		if by, strict := c.strictOver(now.Endpoint.Addr()); strict {
			why = fmt.Sprintf("its endpoint %s is in strict prefix %s, so that IKE itself would be dropped", now.Endpoint.Addr(), by)
		}
	}
	if why != "" {
		c.warn = append(c.warn, fmt.Sprintf("tunnel %s: peer %s is left out for now: %s", t.Name, p.Name, why))
		return ipsec.Peer{}, false
	}
	if now.Endpoint.Port() == 0 && t.IPsec.Keying == config.KeyingStatic && t.IPsec.Encapsulation == config.EncapsulationUDP {
		now.Endpoint = netip.AddrPortFrom(now.Endpoint.Addr(), natPort)
	}
	secret := p.MasterKeyFile
	if t.IPsec.Keying == config.KeyingIKE {
		secret = p.PresharedKeyFile
	}
	return ipsec.Peer{Name: p.Name, ID: p.ID, Endpoint: now.Endpoint, SecretFile: secret, Prefixes: carried(t, p)}, true
}

// strictOver returns a strict prefix, of whatever tunnel, that holds an address.
func (c *compiler) strictOver(a netip.Addr) (netip.Prefix, bool) {
	strict := map[netip.Prefix]bool{}
	for _, b := range c.blackholes().Blackholes {
		strict[b.Prefix] = true
	}
	return covered(a, strict)
}

func endpointNames(p *config.Peer) string {
	var names []string
	for _, e := range p.Endpoints {
		names = append(names, e.Host)
	}
	return strings.Join(names, ", ")
}
