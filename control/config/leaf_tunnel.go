package config

import (
	"net/netip"
	"strings"
)

// peerEndpoint is where a peer may be found: an address or a DNS name, with or without a port.
type peerEndpoint struct{ Endpoint }

func (e *peerEndpoint) takes() takes { return text }
func (e *peerEndpoint) describe() schema {
	return schema{"description": "address or DNS name, and a port; IPv6 with a port as [address]:port", "minLength": 1}
}
func (e *peerEndpoint) parse(s string) problem {
	host, port, whole := cutPort(s)
	if port != "" || !whole {
		n, wrong := decimal(port, 1, 65535)
		if !wrong.none() {
			return bad("%q has no port behind its last colon", s).or("write it as 198.51.100.7:51820 or [2001:db8::7]:51820")
		}
		e.Port = uint16(n)
	}
	e.Host = strings.ToLower(host)
	if isDNSName(e.Host) {
		return problem{}
	}
	a, wrong := parseAddr(host)
	switch {
	case !a.IsValid():
		return bad("%q is neither an address nor a DNS name", s).or("write it as 198.51.100.7:51820, [2001:db8::7]:51820 or fra1.example.net:51820")
	case !wrong.none():
		return wrong
	}
	e.Addr, e.Host = a, a.String()
	return checkUnicast(a)
}

// cutPort splits at the colon of a port. An IPv6 address alone has many colons, and none of a port; whole says so of anything
// without a port.
func cutPort(s string) (host, port string, whole bool) {
	if inside, rest, ok := strings.Cut(strings.TrimPrefix(s, "["), "]"); ok && s[0] == '[' && strings.Contains(inside, ":") {
		port, ok = strings.CutPrefix(rest, ":")
		return inside, port, !ok && rest == ""
	}
	if _, err := netip.ParseAddr(s); err == nil || !strings.Contains(s, ":") {
		return s, "", true
	}
	i := strings.LastIndexByte(s, ':')
	return s[:i], s[i+1:], false
}

// isDNSName knows host names (RFC 1123 section 2.1): a last label of digits alone would read as an address.
func isDNSName(s string) bool {
	labels := strings.Split(s, ".")
	for _, l := range labels {
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' || strings.Trim(l, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return false
		}
	}
	return len(s) <= 253 && !digits(labels[len(labels)-1])
}

// proposal is a set of algorithms in charon's words, such as aes256gcm16-prfsha384-ecp384.
type proposal string

const proposalPattern = `^[a-z0-9_]+(-[a-z0-9_]+)*$`

func (p *proposal) takes() takes     { return text }
func (p *proposal) describe() schema { return schema{"pattern": proposalPattern} }
func (p *proposal) parse(s string) problem {
	*p = proposal(s)
	wrong := bad("%q is not a proposal", s)
	switch {
	case strings.ContainsAny(s, ", "):
		return wrong.or("write one proposal an item, its algorithms joined by hyphens")
	case strings.ToLower(s) != s:
		return wrong.or("write it in small letters")
	}
	for _, word := range strings.Split(s, "-") {
		if word == "" || strings.Trim(word, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
			return wrong.or("write algorithms joined by hyphens, such as aes256gcm16-prfsha384-ecp384")
		}
	}
	return problem{}
}
