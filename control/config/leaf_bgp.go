package config

import (
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// community is an RFC 1997 community, ASN in the high half, or a well-known one by its name.
type community uint32

// wellKnown are names of IANA's registry of well-known communities, those that a neighbor's import may look at.
func wellKnown() map[string]community {
	return map[string]community{
		"graceful-shutdown": 0xffff0000, "accept-own": 0xffff0001, "llgr-stale": 0xffff0006, "no-llgr": 0xffff0007,
		"blackhole": 0xffff029a, "no-export": 0xffffff01, "no-advertise": 0xffffff02, "no-export-subconfed": 0xffffff03, "no-peer": 0xffffff04,
	}
}

func wellKnownNames() []string { return slices.Sorted(maps.Keys(wellKnown())) }

func (c *community) takes() takes { return text }
func (c *community) describe() schema {
	return schema{"pattern": `^([0-9]{1,5}:[0-9]{1,5}|` + strings.Join(wellKnownNames(), "|") + `)$`}
}
func (c *community) parse(s string) problem {
	if known, ok := wellKnown()[s]; ok {
		*c = known
		return problem{}
	}
	high, low, ok := strings.Cut(s, ":")
	h, badHigh := decimal(high, 0, 65535)
	l, badLow := decimal(low, 0, 65535)
	if ok && badHigh.none() && badLow.none() {
		*c = community(h<<16 | l)
		return problem{}
	}
	p := bad("%q is not a community", s)
	if near := nearest(s, wellKnownNames()); near != "" {
		return p.or("did you mean %s?", near)
	}
	if strings.Count(s, ":") == 2 {
		return p.or("write it under large_communities")
	}
	return p.or("write two numbers up to 65535, such as \"65010:100\", or a name: %s", strings.Join(wellKnownNames(), ", "))
}

// redirectTarget is where a FlowSpec rule redirects to, as it is shown: a route target (RFC 8955 section 7.4, RFC 8956 section 6.1) or an address.
type redirectTarget string

func (r *redirectTarget) takes() takes { return text }
func (r *redirectTarget) describe() schema {
	return schema{"pattern": `^([0-9]{1,10}:[0-9]{1,10}|[0-9.]+(:[0-9]{1,5})?|[0-9a-fA-F:.]+|\[[0-9a-fA-F:.]+\]:[0-9]{1,5})$`}
}
func (r *redirectTarget) parse(s string) problem {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		*r = redirectTarget(a.String())
		return problem{}
	}
	if a, err := netip.ParseAddrPort(s); err == nil && a.Addr().Zone() == "" {
		*r = redirectTarget(a.String())
		return problem{}
	}
	high, low, _ := strings.Cut(s, ":")
	as, badAS := decimal(high, 0, 1<<32-1)
	most := int64(1<<32 - 1)
	if as > 65535 { // six octets in all
		most = 65535
	}
	if n, badNumber := decimal(low, 0, most); badAS.none() && badNumber.none() {
		*r = redirectTarget(fmt.Sprintf("%d:%d", as, n))
		return problem{}
	}
	return bad("%q is nothing that a FlowSpec rule redirects to", s).or("write a route target, such as \"65000:100\" or \"192.0.2.1:100\", or an address")
}

// LargeCommunity is an RFC 8092 community: global administrator and two parts of local data.
type LargeCommunity [3]uint32

func (l LargeCommunity) String() string { return fmt.Sprintf("%d:%d:%d", l[0], l[1], l[2]) }

type largeCommunity struct{ LargeCommunity }

func (c *largeCommunity) takes() takes { return text }
func (c *largeCommunity) describe() schema {
	return schema{"pattern": `^[0-9]{1,10}:[0-9]{1,10}:[0-9]{1,10}$`}
}
func (c *largeCommunity) parse(s string) problem {
	parts := strings.Split(s, ":")
	good := len(parts) == len(c.LargeCommunity)
	for i := range c.LargeCommunity {
		if !good {
			break
		}
		n, p := decimal(parts[i], 0, 1<<32-1)
		c.LargeCommunity[i], good = uint32(n), p.none()
	}
	if !good {
		return bad("%q is not a large community", s).or("write three numbers up to 4294967295, such as \"65010:1:100\"")
	}
	return problem{}
}

// nextHop is an address of ours or of another box; invalid: self, what the session says.
type nextHop struct{ netip.Addr }

func (h *nextHop) takes() takes     { return text }
func (h *nextHop) describe() schema { return schema{"description": "self, or an IPv4 or IPv6 address"} }
func (h *nextHop) parse(s string) problem {
	if s == "self" {
		return problem{}
	}
	if !looksLikeAddress(s) {
		return bad("%q is not a next hop", s).or("write self or an address")
	}
	var one unicast
	if p := one.parse(s); !p.none() {
		return p
	}
	if one.IsLinkLocalUnicast() {
		return bad("%s is link-local: a neighbor does not know on which link", one.Addr).or("write a global address")
	}
	h.Addr = one.Addr
	return problem{}
}

// routeTable is a table of the kernel; 0: main.
type routeTable int

// The kernel's own tables, and those that Sluice keeps for tunnels and probes.
const (
	tableDefault, tableMain, tableLocal = 253, 254, 255
	tableAside, tableProbes             = 187, 188
)

func (t *routeTable) takes() takes { return text | integer }
func (t *routeTable) describe() schema {
	return schema{"pattern": "^main$", "minimum": 1, "maximum": 1<<32 - 1}
}
func (t *routeTable) parse(s string) problem {
	if s == "main" {
		return problem{}
	}
	if s == "" || !digits(s) {
		return bad("%q is not a table", s).or("write main or a number")
	}
	i, p := decimal(s, 1, 1<<32-1)
	switch i {
	case tableMain:
		i = 0
	case tableDefault, tableLocal:
		return bad("table %d is the kernel's own", i).or("write main or another number")
	case tableAside, tableProbes:
		return bad("table %d is what Sluice keeps for tunnels", i).or("write main or another number")
	}
	*t = routeTable(i)
	return p
}

// asPath is a regular expression over an AS path as `65000 65001 {65002}`, with _ for the end of an AS number.
type asPath string

// maxASPath bounds an expression: every path is held against it.
const maxASPath = 255

// asPathBoundary is what GoBGP puts in the place of _.
const asPathBoundary = "(^|[,{}() ]|$)"

var asPathCharacters = regexp.MustCompile(`^[0-9 _^$.*+?|(){},\[\]\\-]*$`)

func (e *asPath) takes() takes     { return text }
func (e *asPath) describe() schema { return schema{"pattern": "^.{1,255}$"} } // maxASPath
func (e *asPath) parse(s string) problem {
	*e = asPath(s)
	switch {
	case s == "":
		return bad("the expression is empty").or("write ^$ for paths of our own AS, or remove the key")
	case len(s) > maxASPath:
		return bad("%d characters of expression are too long", len(s)).or("write at most %d, or several entries", maxASPath)
	case !asPathCharacters.MatchString(s):
		return bad("%q cannot match an AS path, which is numbers and blanks", s).or("write it as Junos and IOS do, such as _65001_ or ^65000 .*$")
	}
	if _, err := regexp.Compile(strings.ReplaceAll(s, "_", asPathBoundary)); err != nil {
		why := strings.ReplaceAll(strings.TrimPrefix(err.Error(), "error parsing regexp: "), asPathBoundary, "_")
		return bad("%q is not a regular expression: %s", s, why).or("write one such as _65001_ or ^65000 .*$")
	}
	return problem{}
}
