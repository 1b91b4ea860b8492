package bgp

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"

	"sluice/bgp/flowspec"
	"sluice/plural"
)

var errOffset = errors.New("GoBGP reads a prefix with an offset (RFC 8956) as longer than it is, and what follows cannot be told")

// announcement is a FlowSpec path by its octets. GoBGP has sorted the components by then: one whose order was not
// canonical cannot be told from one whose order was.
func announcement(p *apiutil.Path) (flowspec.Announcement, bool) {
	nlri, ok := p.Nlri.(*bgp.FlowSpecNLRI)
	if !ok {
		return flowspec.Announcement{}, false
	}
	a := flowspec.Announcement{Family: flowspec.IPv4, Origin: origin(p)}
	switch p.Family {
	case bgp.RF_FS_IPv4_UC:
	case bgp.RF_FS_IPv6_UC:
		a.Family = flowspec.IPv6
	default:
		return flowspec.Announcement{}, false
	}
	a.Components, a.Problem = components(nlri)
	for _, attr := range p.Attrs {
		switch attr := attr.(type) {
		case *bgp.PathAttributeExtendedCommunities:
			a.Communities = octets(attr.Value)
		case *bgp.PathAttributeIP6ExtendedCommunities:
			a.Communities6 = octets(attr.Value)
		}
	}
	return a, true
}

// toDiscard is the extended community of a rate of 0 bytes (RFC 8955 section 7.1).
var toDiscard = []byte{0x80, 0x06, 0, 0, 0, 0, 0, 0}

// blackhole is a unicast path as a filter of its destination, and whether it asks for one.
func blackhole(p *apiutil.Path, communities [4]uint32) (a flowspec.Announcement, asks, ok bool) {
	prefix, ok := unicast(p)
	if !ok {
		return a, false, false
	}
	a = flowspec.Announcement{Family: flowspec.IPv4, Origin: origin(p), Communities: toDiscard}
	if prefix.Addr().Is6() {
		a.Family = flowspec.IPv6
	}
	rule := flowspec.Rule{Family: a.Family, Components: []flowspec.Component{{Type: flowspec.Destination, Prefix: prefix.Masked()}}}
	a.Components, a.Problem = rule.MarshalComponents()
	for _, attr := range p.Attrs {
		if list, is := attr.(*bgp.PathAttributeCommunities); is {
			asks = asks || slices.ContainsFunc(list.Value, func(c uint32) bool { return c != 0 && slices.Contains(communities[:], c) })
		}
	}
	return a, asks, true
}

// components puts the octets of an NLRI together again; FlowSpecNLRI.Serialize writes the length over those of a long one.
// What GoBGP cannot read it keeps, up to the end, in one piece: so most prefixes with an offset are whole as well, since it
// expects more octets of them than there are.
func components(nlri *bgp.FlowSpecNLRI) (out []byte, err error) {
	for _, c := range nlri.Value {
		b, e := c.Serialize()
		out, err = append(out, b...), errors.Join(err, e)
		switch c := c.(type) {
		case *bgp.FlowSpecDestinationPrefix6:
			if c.Offset != 0 {
				err = errors.Join(err, errOffset)
			}
		case *bgp.FlowSpecSourcePrefix6:
			if c.Offset != 0 {
				err = errors.Join(err, errOffset)
			}
		}
	}
	return out, err
}

func octets(communities []bgp.ExtendedCommunityInterface) (out []byte) {
	for _, c := range communities {
		if b, err := c.Serialize(); err == nil { // what was read can be written
			out = append(out, b...)
		}
	}
	return out
}

// origin is where a path comes from, in the terms of validation.
func origin(p *apiutil.Path) flowspec.Origin {
	o := flowspec.Origin{Neighbor: p.PeerAddress.Unmap(), External: p.IsFromExternal, FirstAS: firstAS(p.Attrs)}
	o.Originator = o.Neighbor
	for _, a := range p.Attrs {
		if id, ok := a.(*bgp.PathAttributeOriginatorId); ok {
			o.Originator = id.Value
		}
	}
	return o
}

// firstAS is the left-most AS of the path without its confederation's own; 0: there is none.
func firstAS(attrs []bgp.PathAttributeInterface) uint32 {
	for _, a := range attrs {
		path, ok := a.(*bgp.PathAttributeAsPath)
		if !ok {
			continue
		}
		for _, segment := range path.Value {
			own := segment.GetType() == bgp.BGP_ASPATH_ATTR_TYPE_CONFED_SEQ || segment.GetType() == bgp.BGP_ASPATH_ATTR_TYPE_CONFED_SET
			if as := segment.GetAS(); !own && len(as) > 0 {
				return as[0]
			}
		}
	}
	return 0
}

// unicastRIB is GoBGP's table of best routes.
type unicastRIB struct{ bgp *server.BgpServer }

func (r unicastRIB) Best(p netip.Prefix) (best flowspec.Route, found bool) {
	r.list(p, apiutil.LOOKUP_SHORTER, func(route flowspec.Route) {
		if !found || route.Prefix.Bits() > best.Prefix.Bits() {
			best, found = route, true
		}
	})
	return best, found
}

func (r unicastRIB) Inside(p netip.Prefix, yield func(flowspec.Route) bool) {
	more := true
	r.list(p, apiutil.LOOKUP_LONGER, func(route flowspec.Route) {
		if more && route.Prefix.Bits() > p.Bits() {
			more = yield(route)
		}
	})
}

// list gives the best path of each destination. An error is an empty table: without routes no rule is feasible.
func (r unicastRIB) list(p netip.Prefix, how apiutil.LookupOption, give func(flowspec.Route)) {
	req := apiutil.ListPathRequest{TableType: api.TableType_TABLE_TYPE_GLOBAL, Family: familyOf(p),
		Prefixes: []*apiutil.LookupPrefix{{Prefix: p.String(), LookupOption: how}}}
	_ = r.bgp.ListPath(req, func(_ bgp.NLRI, paths []*apiutil.Path) {
		for _, path := range paths {
			if prefix, ok := unicast(path); ok && path.Best {
				o := origin(path)
				give(flowspec.Route{Prefix: prefix, Originator: o.Originator, FirstAS: o.FirstAS})
				return
			}
		}
	})
}

// carries says which FlowSpec families a session has.
func (n Neighbor) carries(f flowspec.Family) bool {
	return f == flowspec.IPv4 && n.FlowSpec4 || f == flowspec.IPv6 && n.FlowSpec6
}

// blackholeFamily is that of the routes of GoBGP's family.
func blackholeFamily(f bgp.Family) (flowspec.Family, bool) {
	switch f {
	case bgp.RF_IPv4_UC:
		return flowspec.IPv4, true
	case bgp.RF_IPv6_UC:
		return flowspec.IPv6, true
	}
	return 0, false
}

// flowSpecFamily is GoBGP's family as ours.
func flowSpecFamily(f bgp.Family) (flowspec.Family, bool) {
	switch f {
	case bgp.RF_FS_IPv4_UC:
		return flowspec.IPv4, true
	case bgp.RF_FS_IPv6_UC:
		return flowspec.IPv6, true
	}
	return 0, false
}

func (f FlowSpec) String() string {
	out := fmt.Sprintf("trust %s with FlowSpec, at most %s, kept for %v", plural.Of(len(f.AcceptFrom), "neighbor", "neighbors"), plural.Of(f.MaxRules, "rule", "rules"), f.Keep)
	if b := f.Blackholes; len(b.AcceptFrom) > 0 {
		out += fmt.Sprintf("; %d with at most %s inside %s, kept for %v", len(b.AcceptFrom), plural.Of(b.Max, "blackhole", "blackholes"), plural.Of(len(b.Within), "prefix", "prefixes"), b.Keep)
	}
	return out
}
