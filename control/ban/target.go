package ban

import (
	"fmt"
	"net/netip"
	"strings"
)

// Shortest prefixes that are banned without being forced to: a ban is for a source, not for a part of the world.
const (
	ShortestIPv4 = 8
	ShortestIPv6 = 16
)

// ParseTarget reads an address or a prefix. An IPv4 address in IPv6's clothes (::ffff:192.0.2.7) is that IPv4 address.
// Refused are prefixes with host bits, zones, the default route, and addresses that no packet has as its source.
func ParseTarget(text string) (netip.Prefix, error) {
	bad := func(why string) (netip.Prefix, error) { return netip.Prefix{}, fmt.Errorf("%q: %s", text, why) }
	var p netip.Prefix
	if strings.Contains(text, "/") {
		var err error
		if p, err = netip.ParsePrefix(text); err != nil {
			return bad("want an address or a prefix, as 192.0.2.7 or 2001:db8::/64")
		}
	} else {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return bad("want an address or a prefix, as 192.0.2.7 or 2001:db8::/64")
		}
		if a.Zone() != "" {
			return bad("a ban holds on every interface: leave the zone out")
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return bad("write IPv4 prefixes as IPv4")
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	if p.Bits() == 0 {
		return bad("that is everyone: use policy.ingress.default: drop")
	}
	if p.Masked() != p {
		return bad(fmt.Sprintf("its host bits are set: %s, or %s", p.Masked(), p.Addr()))
	}
	if a := p.Addr(); a.IsMulticast() || a.IsUnspecified() && p.IsSingleIP() || a.IsLoopback() {
		return bad("no packet on the wire has such a source")
	}
	return p, nil
}

// Text is a target as it is shown: an address without its length.
func Text(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// IsWide says whether a prefix is so short that a slip of the finger is likelier than a wish.
func IsWide(p netip.Prefix) bool {
	if p.Addr().Is4() {
		return p.Bits() < ShortestIPv4
	}
	return p.Bits() < ShortestIPv6
}
