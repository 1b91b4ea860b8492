package config

import (
	"net/netip"
	"strings"
)

// looksLikeAddress tells an address or prefix, right or wrong, from a name.
func looksLikeAddress(s string) bool {
	return strings.ContainsAny(s, ":/") || strings.Contains(s, ".") && strings.Trim(s, "0123456789.") == ""
}

// parseAddr reads a plain address: no zone, no IPv4 in IPv6 clothes. Those would compare unequal to the same address
// written plainly, so a rule would not match.
func parseAddr(s string) (netip.Addr, problem) {
	a, err := netip.ParseAddr(s)
	switch {
	case err != nil && looksLikeRange(s):
		return a, bad("%q is a range", s).or("write it as prefixes")
	case err != nil:
		return a, bad("%q is not an IP address", s)
	case a.Zone() != "" && a.IsLinkLocalUnicast():
		return a, bad("%q has a zone, and no interface can be named with an address", s).or("write %s where addresses are compared, a global one where packets are sent", a.WithZone(""))
	case a.Zone() != "":
		return a, bad("%q has a zone", s).or("write %s", a.WithZone(""))
	case a.Is4In6():
		return a, bad("%s is an IPv4-mapped IPv6 address", s).or("write %s", a.Unmap())
	}
	return a, problem{}
}

// parsePrefix reads a prefix, host bits and all.
func parsePrefix(s string) (netip.Prefix, problem) {
	p, err := netip.ParsePrefix(s)
	if err == nil && p.Addr().Is4In6() {
		mapped := bad("%s is an IPv4-mapped IPv6 prefix", s)
		if p.Bits() < 96 {
			return p, mapped.or("write it as IPv4")
		}
		return p, mapped.or("write %s", netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96))
	}
	if err == nil {
		return p, problem{}
	}
	if s == "default" {
		return p, bad("default is not a prefix").or("write 0.0.0.0/0 or \"::/0\"")
	}
	if a, bare := parseAddr(s); bare.none() {
		return p, bad("%s has no prefix length", s).or("write %s", netip.PrefixFrom(a, a.BitLen()))
	} else if a.IsValid() {
		return p, bare
	}
	return p, bad("%q is not a prefix", s)
}

// parseNetwork reads a prefix whose host bits are zero.
func parseNetwork(s string) (netip.Prefix, problem) {
	p, wrong := parsePrefix(s)
	if wrong.none() && p != p.Masked() {
		return p, bad("%s has host bits set", s).or("write %s", p.Masked())
	}
	return p, wrong
}

// parseTarget reads a network or a single address.
func parseTarget(s string) (netip.Prefix, problem) {
	if strings.Contains(s, "/") {
		return parseNetwork(s)
	}
	a, wrong := parseAddr(s)
	if !wrong.none() {
		return netip.Prefix{}, wrong
	}
	return netip.PrefixFrom(a, a.BitLen()), wrong
}

func checkUnicast(a netip.Addr) problem {
	if a.IsUnspecified() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return bad("%s is not a unicast address", a)
	}
	return problem{}
}

// network is a masked prefix that is written with its length.
type network struct{ netip.Prefix }

func (n *network) takes() takes        { return text }
func (n *network) describe() schema    { return schema{"description": "prefix without host bits"} }
func (n network) prefix() netip.Prefix { return n.Prefix }
func (n *network) parse(s string) (p problem) {
	n.Prefix, p = parseNetwork(s)
	return p
}

// target is a masked prefix or a single address.
type target struct{ netip.Prefix }

func (t *target) takes() takes { return text }
func (t *target) describe() schema {
	return schema{"description": "address, or prefix without host bits"}
}
func (t target) prefix() netip.Prefix { return t.Prefix }
func (t *target) parse(s string) (p problem) {
	t.Prefix, p = parseTarget(s)
	return p
}

// addressPrefix is the address of an interface with the length of its network: host bits stay.
type addressPrefix struct{ netip.Prefix }

func (a *addressPrefix) takes() takes        { return text }
func (a *addressPrefix) describe() schema    { return schema{"description": "address with prefix length"} }
func (a addressPrefix) prefix() netip.Prefix { return a.Prefix }
func (a *addressPrefix) parse(s string) (p problem) {
	if a.Prefix, p = parsePrefix(s); !p.none() {
		return p
	}
	if p = checkUnicast(a.Addr()); p.none() {
		p = checkHost(a.Prefix)
	}
	return p
}

// checkHost reports what stands for a network or for all in it. A network of two addresses has neither (RFC 3021, RFC 6164).
func checkHost(p netip.Prefix) problem {
	first := p.Masked().Addr()
	switch {
	case p.Addr().BitLen()-p.Bits() <= 1:
	case p.Addr() == first && p.Addr().Is4():
		return bad("%s is the network itself", p).or("write an address in it, such as %s", netip.PrefixFrom(first.Next(), p.Bits()))
	case p.Addr() == first: // RFC 4291 section 2.6.1
		return bad("%s is every router's in this network", p).or("write an address of this box, such as %s", netip.PrefixFrom(first.Next(), p.Bits()))
	case p.Addr().Is4() && !p.Contains(p.Addr().Next()):
		return bad("%s is the broadcast address of its network", p)
	}
	return problem{}
}

// unicast is an address that one machine can have.
type unicast struct{ netip.Addr }

func (u *unicast) takes() takes     { return text }
func (u *unicast) describe() schema { return schema{"description": "unicast address"} }
func (u *unicast) parse(s string) (p problem) {
	if u.Addr, p = parseAddr(s); !p.none() {
		return p
	}
	return checkUnicast(u.Addr)
}

// singleAddress is an address that may be written as /32 or /128.
type singleAddress struct{ netip.Addr }

func (v *singleAddress) takes() takes { return text }
func (v *singleAddress) describe() schema {
	return schema{"description": "single address; /32 or /128 may be written"}
}
func (v *singleAddress) parse(s string) problem {
	p, wrong := parsePrefix(s)
	if !strings.Contains(s, "/") {
		p, wrong = parseTarget(s)
	}
	if !wrong.none() {
		return wrong
	}
	if !p.IsSingleIP() {
		return bad("%s is not a single address", s).or("write %s", netip.PrefixFrom(p.Addr(), p.Addr().BitLen()))
	}
	v.Addr = p.Addr()
	return checkUnicast(v.Addr)
}

// routerID is an IPv4 address that need not be anybody's (RFC 6286), but not zero.
type routerID struct{ netip.Addr }

func (v *routerID) takes() takes     { return text }
func (v *routerID) describe() schema { return schema{"description": "IPv4 address", "format": "ipv4"} }
func (v *routerID) parse(s string) problem {
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is4() || a.IsUnspecified() {
		return bad("%q is not a router id", s).or("write an IPv4 address of this box")
	}
	v.Addr = a
	return problem{}
}

// endpoint is an address with a port.
type endpoint struct{ netip.AddrPort }

func (e *endpoint) takes() takes { return text }
func (e *endpoint) describe() schema {
	return schema{"description": "address:port; IPv6 as [address]:port"}
}
func (e *endpoint) parse(s string) problem {
	v, err := netip.ParseAddrPort(s)
	if err != nil || v.Port() == 0 {
		return bad("%q is not an address with a port", s).or("write it as 198.51.100.7:51820 or [2001:db8::7]:51820")
	}
	if _, wrong := parseAddr(v.Addr().String()); !wrong.none() {
		return wrong
	}
	e.AddrPort = v
	return problem{}
}

// ref is an element of from, to, not_from or not_to. A name stays in Set until it is known whose it is.
type ref struct{ Ref }

func (r *ref) takes() takes { return text }
func (r *ref) describe() schema {
	return schema{"description": "prefix, address, set, workload or self", "minLength": 1}
}
func (r *ref) parse(s string) (p problem) {
	switch {
	case s == "self":
		r.Self = true
	case looksLikeAddress(s):
		r.Prefix, p = parseTarget(s)
	case !isWord(s, 63):
		p = bad("%q is neither a prefix nor a name", s)
	default:
		r.Set = s
	}
	return p
}
