package wireguard

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// RouteProtocol marks our routes in the main table; we touch no other protocol's.
const RouteProtocol = 187

// BlackholeMetric is the worst there is, so that any route into a device wins over the blackhole behind it.
const BlackholeMetric = 1<<32 - 1

// addAddress skips duplicate address detection, which a point-to-point device cannot do and would only wait for.
func (d *Driver) addAddress(link netlink.Link, p netip.Prefix) error {
	n := ipNet(p)
	addr := &netlink.Addr{IPNet: &n}
	if p.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	if err := d.nl.AddrAdd(link, addr); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

// removeAddress puts back what else goes with the address. With a primary IPv4 address the kernel removes the
// secondaries of the same subnet (unless promote_secondaries is set), and with the last one every IPv4 route of the
// device.
func (d *Driver) removeAddress(link netlink.Link, p netip.Prefix) error {
	addresses, routes, err := d.attached(link)
	if err != nil {
		return err
	}
	n := ipNet(p)
	err = d.nl.AddrDel(link, &netlink.Addr{IPNet: &n})
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return err
	}
	addressesNow, routesNow, err := d.attached(link)
	if err != nil {
		return err
	}
	for _, lost := range without(addresses, addressesNow) {
		if lost != p {
			err = errors.Join(err, d.addAddress(link, lost))
		}
	}
	for _, lost := range without(routes, routesNow) {
		err = errors.Join(err, d.addRoute(link, lost))
	}
	return err
}

func (d *Driver) attached(link netlink.Link) ([]netip.Prefix, []Route, error) {
	addresses, err := d.addresses(link)
	if err != nil {
		return nil, nil, err
	}
	routes, _, err := d.ownRoutes()
	return addresses, routes[link.Attrs().Index], err
}

// addresses returns the addresses of link, sorted.
func (d *Driver) addresses(link netlink.Link) ([]netip.Prefix, error) {
	list, err := d.nl.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("addresses of %s: %w", link.Attrs().Name, err)
	}
	var out []netip.Prefix
	for _, a := range list {
		if p, ok := prefixOf(a.IPNet); ok {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return out, nil
}

func (d *Driver) addRoute(link netlink.Link, r Route) error {
	dst := ipNet(r.Prefix)
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: &dst, Protocol: RouteProtocol, Priority: r.Metric}
	if r.Prefix.Addr().Is4() {
		route.Scope = netlink.SCOPE_LINK
	}
	return d.putRoute(r.Prefix, route)
}

func (d *Driver) addBlackhole(p netip.Prefix) error {
	return d.putRoute(p, blackhole(p))
}

// putRoute replaces a route of the same prefix and metric only if it is ours. The kernel knows no such condition, so
// the exclusive add comes first.
func (d *Driver) putRoute(p netip.Prefix, route *netlink.Route) error {
	err := d.nl.RouteAdd(route)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	same := &netlink.Route{Dst: route.Dst, Table: unix.RT_TABLE_MAIN}
	list, err := d.nl.RouteListFiltered(family(p), same, netlink.RT_FILTER_DST|netlink.RT_FILTER_TABLE)
	if err != nil {
		return fmt.Errorf("list routes to %s: %w", p, err)
	}
	for _, r := range list {
		if r.Priority == route.Priority && r.Protocol != RouteProtocol {
			return fmt.Errorf("route %s metric %d (protocol %s) %w: use another metric or remove it",
				p, r.Priority, r.Protocol, ErrForeign)
		}
	}
	return d.nl.RouteReplace(route)
}

func (d *Driver) removeRoute(link netlink.Link, r Route) error {
	dst := ipNet(r.Prefix)
	return d.deleteRoute(&netlink.Route{
		LinkIndex: link.Attrs().Index, Dst: &dst, Protocol: RouteProtocol, Priority: r.Metric, Scope: netlink.SCOPE_NOWHERE,
	})
}

func (d *Driver) removeBlackhole(p netip.Prefix) error { return d.deleteRoute(blackhole(p)) }

func (d *Driver) deleteRoute(r *netlink.Route) error {
	if err := d.nl.RouteDel(r); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}

func blackhole(p netip.Prefix) *netlink.Route {
	dst := ipNet(p)
	return &netlink.Route{Dst: &dst, Type: unix.RTN_BLACKHOLE, Protocol: RouteProtocol, Priority: BlackholeMetric}
}

// ownRoutes returns the routes of our protocol in the main table: those into devices by the device's index, and the
// blackholes.
func (d *Driver) ownRoutes() (byLink map[int][]Route, holes []netip.Prefix, err error) {
	byLink = map[int][]Route{}
	filter := &netlink.Route{Protocol: RouteProtocol, Table: unix.RT_TABLE_MAIN}
	for _, f := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := d.nl.RouteListFiltered(f, filter, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
		if err != nil {
			return nil, nil, fmt.Errorf("list routes: %w", err)
		}
		for _, r := range list {
			p, ok := prefixOf(r.Dst)
			switch {
			case !ok:
			case r.Type == unix.RTN_BLACKHOLE:
				holes = append(holes, p)
			default:
				byLink[r.LinkIndex] = append(byLink[r.LinkIndex], Route{Prefix: p, Metric: r.Priority})
			}
		}
	}
	slices.SortFunc(holes, netip.Prefix.Compare)
	for _, routes := range byLink {
		slices.SortFunc(routes, compareRoutes)
	}
	return byLink, holes, nil
}

func compareRoutes(a, b Route) int {
	if c := a.Prefix.Compare(b.Prefix); c != 0 {
		return c
	}
	return a.Metric - b.Metric
}

func family(p netip.Prefix) int {
	if p.Addr().Is4() {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}

func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	addr, ok := netip.AddrFromSlice(n.IP)
	if !ok {
		return netip.Prefix{}, false
	}
	ones, bits := n.Mask.Size()
	// The netlink library writes IPv4 in 16 bytes at times; the mask tells the family.
	if bits == 32 {
		addr = addr.Unmap()
	}
	return netip.PrefixFrom(addr, ones), true
}
