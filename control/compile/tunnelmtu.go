package compile

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sluice/control/config"
)

// What encryption adds to a packet, in bytes.
const (
	ipv4Header      = 20
	ipv6Header      = 40
	udpHeader       = 8
	wireguardHeader = 32 // and 8 of UDP. What WireGuard pads is within the MTU
	espFixed        = 32 // SPI, sequence number and IV in front (RFC 4303, RFC 4106), 16 of ICV behind
	espTrailer      = 2  // pad length and next header, behind padding to 4 bytes
)

const (
	defaultMTU = 1500
	leastMTU   = 576  // of IPv4 that anybody uses (RFC 1122 section 3.3.3)
	leastMTU6  = 1280 // below it the kernel has no IPv6 on a device (RFC 8200 section 5)
)

// tunnelMTU is the file's, or what fits into the way to the endpoints in use. As long as nobody has looked for that way it is
// the smallest uplink's.
func (c *compiler) tunnelMTU(t *config.Tunnel) int {
	if t.MTU != 0 {
		return t.MTU
	}
	underlay := c.tunnels.now[t.Name].Underlay
	if underlay == 0 {
		underlay = c.smallestUplink()
	}
	outer := ipv4Header
	if c.overIPv6(t) {
		outer = ipv6Header
	}
	mtu := 0
	switch {
	case t.Type == config.TypeWireGuard:
		mtu = underlay - outer - udpHeader - wireguardHeader
	case t.IPsec.Encapsulation == config.EncapsulationNone:
		mtu = espMTU(underlay - outer)
	case slices.ContainsFunc(t.IPsec.ESPProposals, func(p string) bool { return !isAEAD(p) }):
		mtu = cbcMTU(underlay - outer - udpHeader)
	default: // auto may come to UDP with every new key
		mtu = espMTU(underlay - outer - udpHeader)
	}
	least := leastMTU
	if carries6(t) {
		least = leastMTU6
	}
	if mtu < least {
		c.warn = append(c.warn, fmt.Sprintf("tunnel %s: the way to its peers takes packets of %d bytes, which leaves %d; the MTU is %d all the same, and what is larger than the way is fragmented or lost",
			t.Name, underlay, mtu, least))
	}
	return max(mtu, least)
}

// espMTU is the largest packet that fits, encrypted, into so many bytes of payload.
func espMTU(payload int) int { return (payload-espFixed)&^3 - espTrailer }

// cbcMTU is the same for what a cipher in blocks and the longest ICV leave: 8 and an IV of 16 in front, 32 behind (RFC 4868).
func cbcMTU(payload int) int { return (payload-8-16-32)&^15 - espTrailer }

// isAEAD says of a proposal, in charon's words, that its cipher is one of a stream that authenticates.
func isAEAD(proposal string) bool {
	return strings.Contains(proposal, "gcm") || strings.Contains(proposal, "ccm") || strings.Contains(proposal, "poly1305")
}

func carries6(t *config.Tunnel) bool {
	six := func(p netip.Prefix) bool { return p.Addr().Is6() }
	return slices.ContainsFunc(t.Addresses, six) || slices.ContainsFunc(t.Peers, func(p config.Peer) bool { return slices.ContainsFunc(p.Prefixes, six) })
}

// overIPv6 says whether a peer is reached over IPv6, or may be: one that calls may come by either. IPsec's local address
// says it for all.
func (c *compiler) overIPv6(t *config.Tunnel) bool {
	if t.Type == config.TypeIPsec {
		return t.Local.Addr().Is6()
	}
	for i := range t.Peers {
		if a := c.peerNow(t, &t.Peers[i]).Endpoint.Addr(); !a.IsValid() || a.Is6() {
			return true
		}
	}
	return false
}

func (c *compiler) smallestUplink() int {
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
	return underlay
}
