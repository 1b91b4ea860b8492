package flowmodel

import (
	"net/netip"

	"sluice/xdp/abi"
	"sluice/xdp/classify"
)

// Hook is a tcx hook of an interface.
type Hook struct {
	Interface string
	Egress    bool
}

// String is "uplink ingress".
func (h Hook) String() string {
	if h.Egress {
		return h.Interface + " egress"
	}
	return h.Interface + " ingress"
}

// Interface is what a generation knows of one.
type Interface struct {
	Role  abi.Role
	Judge bool // ingress judges policy.ingress
	SNAT  SNAT // of what it sends out by an uplink
	Own4  netip.Addr
	Own6  netip.Addr // an uplink's own addresses, for snat: auto
}

// SNAT is `snat:` of a workload or a LAN.
type SNAT struct {
	V4, V6 bool       // whether the family is translated at all
	All    bool       // whatever the source; else private ones only
	To4    netip.Addr // invalid: the uplink's own
	To6    netip.Addr
}

// Workload is a namespace with its policies.
type Workload struct {
	Interface       string
	Addresses       []netip.Addr
	Ingress, Egress classify.Policy
}

// Generation is what the data path was told.
type Generation struct {
	Name                              string
	Interfaces                        map[string]Interface
	Self                              map[netip.Addr]bool
	Workloads                         []Workload
	Failsafe, System, Ingress, Egress classify.Policy
	Matrix                            [abi.RoleMax][abi.RoleMax]bool
	FirstPort, LastPort               uint16 // of translated sources
}

// Route is where a destination leaves.
type Route struct {
	Prefix    netip.Prefix
	Interface string
}

// World is what a sequence runs in: generations to switch between, and the routing table.
type World struct {
	Generations []Generation
	Routes      []Route // no prefix within another
	MaxFlows    int     // conntrack.max_entries
	Fresh       int     // of each table of unproven flows, which evict the least recently used
}

func (w *World) route(to netip.Addr) (string, bool) {
	for _, r := range w.Routes {
		if r.Prefix.Contains(to) {
			return r.Interface, true
		}
	}
	return "", false
}

// workload finds whose address it is.
func (g *Generation) workload(a netip.Addr) *Workload {
	for i := range g.Workloads {
		for _, own := range g.Workloads[i].Addresses {
			if own == a {
				return &g.Workloads[i]
			}
		}
	}
	return nil
}

func (g *Generation) behind(iface string) *Workload {
	for i := range g.Workloads {
		if g.Workloads[i].Interface == iface {
			return &g.Workloads[i]
		}
	}
	return nil
}

func (g *Generation) local(a netip.Addr) bool {
	return g.Self[a] || a.Is6() && a.IsLinkLocalUnicast()
}

func (g *Generation) mayForward(from, to abi.Role) bool { return g.Matrix[from][to] }

// translates says whether what an interface sends from an address needs another source on an uplink.
func (g *Generation) translates(iface string, src netip.Addr) bool {
	s := g.Interfaces[iface].SNAT
	if src.Is4() && !s.V4 || src.Is6() && !s.V6 {
		return false
	}
	return s.All || isPrivate(src)
}

// source is the address that an uplink gives it.
func (g *Generation) source(iface, uplink string, src netip.Addr) netip.Addr {
	s, up := g.Interfaces[iface].SNAT, g.Interfaces[uplink]
	to, own := s.To4, up.Own4
	if src.Is6() {
		to, own = s.To6, up.Own6
	}
	if to.IsValid() {
		return to
	}
	return own
}

var shared = netip.MustParsePrefix("100.64.0.0/10") // RFC 6598

// isPrivate: RFC 1918, RFC 6598, 169.254/16, fc00::/7.
func isPrivate(a netip.Addr) bool {
	return a.IsPrivate() || shared.Contains(a) || a.Is4() && a.IsLinkLocalUnicast()
}

// perPacket says whether a policy looks at more than 5-tuple, interface and ICMP type, or does more than accept and drop:
// then no packet's verdict holds for another's. Fragments: of the policy is no such thing, since no fragment's verdict counts.
func perPacket(p classify.Policy) bool {
	for _, r := range p.Rules {
		if r.TCPMask != 0 || r.Lengths != nil || r.DSCP != 0 || r.TTL != 0 || r.Fragment != classify.FragmentAny || r.VLANs != nil ||
			r.Action == classify.Limit || r.Shadow || r.Sample != 0 {
			return true
		}
	}
	return false
}
