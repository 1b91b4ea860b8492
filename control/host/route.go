package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/netdump"
)

// mainTable is RT_TABLE_MAIN.
const mainTable = unix.RT_TABLE_MAIN

var routeTypes = map[RouteType]int{
	Unicast: unix.RTN_UNICAST, Prohibit: unix.RTN_PROHIBIT, Blackhole: unix.RTN_BLACKHOLE,
}

// kernelRoute is a route of any owner, with what Route does not say.
type kernelRoute struct {
	Route
	protocol int
}

func (h *Host) observeRoutes(links []netlink.Link) ([]Route, error) {
	protocols := []int{RouteProtocol}
	for _, c := range h.ledger.Routes {
		if c.Adopted && !slices.Contains(protocols, c.Protocol) {
			protocols = append(protocols, c.Protocol)
		}
	}
	var out []Route
	for _, protocol := range protocols {
		found, err := h.dumpRoutes(links, netlink.Route{Protocol: netlink.RouteProtocol(protocol)}, netlink.RT_FILTER_PROTOCOL)
		if err != nil {
			return nil, err
		}
		for _, r := range found {
			c := h.ledger.route(r.key())
			if protocol != RouteProtocol && (c == nil || !c.Adopted || c.Protocol != protocol) {
				continue
			}
			if c != nil {
				r.Keep, r.Adopted = c.Keep, c.Adopted && protocol != RouteProtocol
			}
			out = append(out, r.Route)
		}
	}
	slices.SortFunc(out, func(a, b Route) int {
		return cmp.Or(cmp.Compare(a.Table, b.Table), comparePrefix(a.Prefix, b.Prefix), cmp.Compare(a.Metric, b.Metric))
	})
	return out, nil
}

// LeavesBy is the link by which the kernel would forward what comes in by another, with its MTU; "": it is the box's own, or goes nowhere.
// Where the kernel refuses, the error is a *Refusal.
func (h *Host) LeavesBy(ctx context.Context, in string, src, dst netip.Addr) (name string, mtu int, err error) {
	if err := ctx.Err(); err != nil {
		return "", 0, err
	}
	routes, err := h.nl.RouteGetWithOptions(dst.AsSlice(), &netlink.RouteGetOptions{Iif: in, SrcAddr: src.AsSlice()})
	var refused unix.Errno
	if errors.As(err, &refused) {
		return "", 0, &Refusal{refused}
	}
	if err != nil {
		return "", 0, fmt.Errorf("route from %s to %s: %w", src, dst, err)
	}
	for _, r := range routes {
		if r.Type != unix.RTN_UNICAST {
			continue
		}
		link, err := h.nl.LinkByIndex(r.LinkIndex)
		if err != nil {
			return "", 0, fmt.Errorf("route from %s to %s: %w", src, dst, err)
		}
		return link.Attrs().Name, link.Attrs().MTU, nil
	}
	return "", 0, nil
}

// dumpRoutes dumps both families through the strict socket: the kernel filters by protocol and table, so that a million
// routes of BGP do not come this way.
func (h *Host) dumpRoutes(links []netlink.Link, f netlink.Route, mask uint64) ([]kernelRoute, error) {
	names := linkNames(links)
	var out []kernelRoute
	for _, fam := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		found, err := netdump.Routes(h.strict, fam, &f, mask|netlink.RT_FILTER_TABLE)
		if err != nil && !errors.Is(err, unix.ENOENT) { // ENOENT: no such table yet
			return nil, fmt.Errorf("list routes: %w", err)
		}
		for _, r := range found {
			out = append(out, fromKernel(r, names))
		}
	}
	return out, nil
}

// fromKernel translates; a type that we never make is kept as "type N", so that it equals nothing wanted.
func fromKernel(r netlink.Route, names map[int]string) kernelRoute {
	out := Route{Prefix: prefixOf(r.Dst), Type: RouteType(fmt.Sprintf("type %d", r.Type)), Metric: r.Priority, Table: r.Table}
	for t, number := range routeTypes {
		if number == r.Type {
			out.Type = t
		}
	}
	hops := r.MultiPath
	if len(hops) == 0 {
		hops = []*netlink.NexthopInfo{{LinkIndex: r.LinkIndex, Gw: r.Gw, Via: r.Via}}
	}
	if out.Type == Unicast { // IPv6 puts prohibit and blackhole routes on lo
		out.Link = names[hops[0].LinkIndex]
	}
	for _, hop := range hops {
		if hop.LinkIndex != hops[0].LinkIndex {
			out.Link = ""
		}
		gateway := hop.Gw
		if via, ok := hop.Via.(*netlink.Via); ok && via != nil {
			gateway = via.Addr
		}
		if a, ok := netip.AddrFromSlice(gateway); ok {
			out.Via = append(out.Via, a.Unmap())
		}
	}
	return kernelRoute{out, int(r.Protocol)}
}

// toKernel translates for a request. An IPv6 next hop of an IPv4 route travels in RTA_VIA (Linux 5.2).
func (h *Host) toKernel(r Route) (*netlink.Route, error) {
	number, ok := routeTypes[r.Type]
	if !ok {
		return nil, fmt.Errorf("unknown route type %q", r.Type)
	}
	out := &netlink.Route{
		Dst: ipNet(r.Prefix.Masked()), Table: r.Table, Priority: r.Metric, Type: number,
		Protocol: RouteProtocol, Family: family(r.Prefix.Addr()),
	}
	if r.Type != Unicast {
		return out, nil
	}
	if r.Link == "" && len(r.Via) == 0 {
		return nil, errors.New("it has neither a next hop nor an interface: give one of them")
	}
	if r.Link != "" {
		link, err := h.link(r.Link)
		if err != nil {
			return nil, err
		}
		out.LinkIndex = link.Attrs().Index
	}
	var hops []*netlink.NexthopInfo
	for _, via := range r.Via {
		hop := &netlink.NexthopInfo{LinkIndex: out.LinkIndex}
		switch {
		case via.Is4() && r.Prefix.Addr().Is6():
			return nil, fmt.Errorf("next hop %s is IPv4, which an IPv6 route cannot have", via)
		case via.Is6() && r.Prefix.Addr().Is4():
			hop.Via = &netlink.Via{AddrFamily: unix.AF_INET6, Addr: via.AsSlice()}
		default:
			hop.Gw = via.AsSlice()
		}
		hops = append(hops, hop)
	}
	switch len(hops) {
	case 0:
		if r.Prefix.Addr().Is4() {
			out.Scope = netlink.SCOPE_LINK
		}
	case 1:
		out.Gw, out.Via = hops[0].Gw, hops[0].Via
	default:
		out.LinkIndex, out.MultiPath = 0, hops
	}
	return out, nil
}

// sameIdentity lists what the kernel holds under the route's identity, whoever owns it.
func (h *Host) sameIdentity(r Route) (ours, foreign []kernelRoute, err error) {
	links, err := h.links()
	if err != nil {
		return nil, nil, err
	}
	all, err := h.dumpRoutes(links, netlink.Route{Table: r.Table}, 0)
	if err != nil {
		return nil, nil, err
	}
	for _, k := range all {
		if k.key() != r.key() {
			continue
		}
		if k.protocol == RouteProtocol {
			ours = append(ours, k)
		} else {
			foreign = append(foreign, k)
		}
	}
	return ours, foreign, nil
}

// apply adds exclusively; only where the kernel says that the place is taken does it look by whom. Our own route is
// replaced as one step. A route of someone else that does the same is adopted; one that does not is an error, because
// to replace it would take away what is not ours.
func (o setRoute) apply(_ context.Context, h *Host) error {
	request, err := h.toKernel(o.Route)
	if err != nil {
		return err
	}
	undo, err := h.claimRoute(o.Route, 0)
	if err != nil {
		return err
	}
	err = h.nl.RouteAdd(request)
	if !errors.Is(err, unix.EEXIST) {
		return unless(routeHint(err), undo)
	}
	ours, foreign, err := h.sameIdentity(o.Route)
	if err != nil {
		return unless(err, undo)
	}
	for _, f := range foreign {
		if o.forwardsAs(f.Route) {
			_, err := h.claimRoute(o.Route, f.protocol)
			return unless(err, undo)
		}
	}
	if len(foreign) > 0 {
		return unless(fmt.Errorf("there is %s already, which is not ours (protocol %d): remove it, or write another metric",
			foreign[0], foreign[0].protocol), undo)
	}
	if slices.ContainsFunc(ours, func(k kernelRoute) bool { return o.forwardsAs(k.Route) }) {
		return nil
	}
	return unless(routeHint(h.nl.RouteReplace(request)), undo)
}

func routeHint(err error) error {
	switch {
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%w (is the next hop in a subnet of an interface that is up?)", err)
	case errors.Is(err, unix.ENETDOWN):
		return fmt.Errorf("%w (the interface is down)", err)
	}
	return err
}

// claimRoute records what the kernel cannot tell: Keep, and the owner (protocol, not 0) of an adopted route.
func (h *Host) claimRoute(r Route, adopted int) (undo func() error, err error) {
	routes := filter(h.ledger.Routes, func(c routeClaim) bool { return c.key() != r.key() })
	if r.Keep || adopted != 0 {
		k := r.key()
		routes = append(routes, routeClaim{
			Prefix: k.Prefix, Table: k.Table, Metric: k.Metric, Keep: r.Keep, Adopted: adopted != 0, Protocol: adopted,
		})
	}
	if slices.Equal(routes, h.ledger.Routes) {
		return claimed, nil
	}
	return claim(h, &h.ledger.Routes, func() { h.ledger.Routes = routes })
}

// apply deletes by protocol, so that nobody else's route of the same identity goes with it, and forgets an adopted one.
func (o dropRoute) apply(_ context.Context, h *Host) error {
	k := o.key()
	err := h.nl.RouteDel(&netlink.Route{
		Dst: ipNet(k.Prefix), Table: k.Table, Priority: k.Metric, Type: routeTypes[o.Type],
		Protocol: RouteProtocol, Family: family(k.Prefix.Addr()), Scope: netlink.SCOPE_NOWHERE,
	})
	if err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.ENOENT) {
		return err
	}
	_, err = h.claimRoute(Route{Prefix: k.Prefix, Table: k.Table, Metric: k.Metric}, 0)
	return err
}
