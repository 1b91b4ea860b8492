package bgp

import (
	"net/netip"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

const originIGP = 0

// local is a prefix as a locally originated path: its next hop is unspecified, the session's local address unless the export
// policy says otherwise, and so are all attributes but the tag that the policy knows its way by (see ways).
func local(prefix netip.Prefix, tag uint32) (*apiutil.Path, error) {
	nlri, err := bgp.NewIPAddrPrefix(prefix)
	if err != nil {
		return nil, err
	}
	family := bgp.RF_IPv4_UC
	var nextHop bgp.PathAttributeInterface
	if prefix.Addr().Is4() {
		nextHop, err = bgp.NewPathAttributeNextHop(netip.IPv4Unspecified())
	} else {
		family = bgp.RF_IPv6_UC
		nextHop, err = bgp.NewPathAttributeMpReachNLRI(family, []bgp.PathNLRI{{NLRI: nlri}}, netip.IPv6Unspecified())
	}
	if err != nil {
		return nil, err
	}
	attrs := []bgp.PathAttributeInterface{bgp.NewPathAttributeOrigin(originIGP), nextHop, bgp.NewPathAttributeLocalPref(tag)}
	return &apiutil.Path{Family: family, Nlri: nlri, Attrs: attrs}, nil
}

// unicast returns the prefix of a path of the families that we speak.
func unicast(p *apiutil.Path) (netip.Prefix, bool) {
	nlri, ok := p.Nlri.(*bgp.IPAddrPrefix)
	if !ok || (p.Family != bgp.RF_IPv4_UC && p.Family != bgp.RF_IPv6_UC) {
		return netip.Prefix{}, false
	}
	return nlri.Prefix, true
}

// nextHop returns the address to forward to. A link-local one gets the zone of the session it came by.
func nextHop(p *apiutil.Path) netip.Addr {
	var addr netip.Addr
	for _, a := range p.Attrs {
		switch a := a.(type) {
		case *bgp.PathAttributeNextHop:
			addr = a.Value
		case *bgp.PathAttributeMpReachNLRI:
			// RFC 2545: a global address and perhaps a link-local one.
			if addr = a.Nexthop; !addr.IsValid() || addr.IsUnspecified() {
				addr = a.LinkLocalNexthop
			}
		}
	}
	if addr.Is6() && addr.IsLinkLocalUnicast() {
		return addr.WithZone(p.PeerAddress.Zone())
	}
	return addr.Unmap()
}

func communities(p *apiutil.Path) []uint32 {
	for _, a := range p.Attrs {
		if c, ok := a.(*bgp.PathAttributeCommunities); ok {
			return c.Value
		}
	}
	return nil
}

func asPath(p *apiutil.Path) []uint32 {
	var out []uint32
	for _, a := range p.Attrs {
		if path, ok := a.(*bgp.PathAttributeAsPath); ok {
			for _, segment := range path.Value {
				out = append(out, segment.GetAS()...)
			}
		}
	}
	return out
}
