package path

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/netdump"
)

// Links finds the links of one owner and writes their addresses and routes, in the network namespace of its handle. Its
// methods but Delete are idempotent; it has no state.
type Links struct {
	nl, strict *netlink.Handle
	ours       func(netlink.Link) bool
	deletes    func(link int)
}

// NewLinks returns Links that speaks through nl and, for lists of routes, strict (netdump.Strict), which stay the caller's, of the
// links that ours accepts. deletes is told of each that is to be deleted, by its index, unless it is nil.
func NewLinks(nl, strict *netlink.Handle, ours func(netlink.Link) bool, deletes func(link int)) Links {
	if deletes == nil {
		deletes = func(int) {}
	}
	return Links{nl, strict, ours, deletes}
}

// Delete deletes a link of the owner's.
func (l Links) Delete(link netlink.Link) error {
	l.deletes(link.Attrs().Index)
	return l.nl.LinkDel(link)
}

// Own returns the owner's links, by name.
func (l Links) Own() ([]netlink.Link, error) {
	all, err := netdump.List(l.nl.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	links := slices.DeleteFunc(all, func(link netlink.Link) bool { return !l.ours(link) })
	slices.SortFunc(links, func(a, b netlink.Link) int { return strings.Compare(a.Attrs().Name, b.Attrs().Name) })
	return links, nil
}

// Find returns the owner's link called name; unix.ENODEV when there is none, ErrForeign when it is somebody else's.
func (l Links) Find(name string) (netlink.Link, error) {
	link, err := Lookup(l.nl, name)
	switch {
	case err != nil:
		return nil, err
	case link == nil:
		return nil, fmt.Errorf("interface %s is gone: %w", name, unix.ENODEV)
	case !l.ours(link):
		return nil, Foreign(name)
	}
	return link, nil
}

// AddAddress skips duplicate address detection, which a point-to-point device cannot do and would only wait for.
func (l Links) AddAddress(link netlink.Link, p netip.Prefix) error {
	n := IPNet(p)
	addr := &netlink.Addr{IPNet: &n}
	if p.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	if err := l.nl.AddrAdd(link, addr); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

// RemoveAddress puts back what else goes with the address. With a primary IPv4 address the kernel removes the
// secondaries of the same subnet (unless promote_secondaries is set), and with the last one every IPv4 route of the
// device.
func (l Links) RemoveAddress(link netlink.Link, p netip.Prefix) error {
	addresses, routes, err := l.attached(link)
	if err != nil {
		return err
	}
	n := IPNet(p)
	err = l.nl.AddrDel(link, &netlink.Addr{IPNet: &n})
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return err
	}
	addressesNow, routesNow, err := l.attached(link)
	if err != nil {
		return err
	}
	for _, lost := range without(addresses, addressesNow) {
		if lost != p {
			err = errors.Join(err, l.AddAddress(link, lost))
		}
	}
	for _, lost := range without(routes, routesNow) {
		err = errors.Join(err, l.AddRoute(link, lost))
	}
	return err
}

func (l Links) attached(link netlink.Link) ([]netip.Prefix, []Route, error) {
	addresses, err := l.Addresses()
	if err != nil {
		return nil, nil, err
	}
	routes, err := l.Routes()
	return addresses[link.Attrs().Index], routes[link.Attrs().Index], err
}

// Addresses returns those of all links, by the index of the link, each list sorted. The kernel knows no shorter question.
func (l Links) Addresses() (map[int][]netip.Prefix, error) {
	list, err := netdump.List(func() ([]netlink.Addr, error) { return l.nl.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	out := map[int][]netip.Prefix{}
	for _, a := range list {
		if p, ok := PrefixOf(a.IPNet); ok {
			out[a.LinkIndex] = append(out[a.LinkIndex], p)
		}
	}
	for _, addresses := range out {
		slices.SortFunc(addresses, netip.Prefix.Compare)
	}
	return out, nil
}

// AddRoute puts r into link; ErrForeign where somebody else has a route of that prefix, metric and table.
func (l Links) AddRoute(link netlink.Link, r Route) error {
	dst := IPNet(r.Prefix)
	route := &netlink.Route{
		LinkIndex: link.Attrs().Index, Dst: &dst, Protocol: Protocol, Priority: r.Metric, Table: inKernel(r.Table),
	}
	if r.Prefix.Addr().Is4() {
		route.Scope = netlink.SCOPE_LINK
	}
	return put(l.nl, r.Prefix, route)
}

// RemoveRoute takes r from link. A route that is gone, with its link or without, is no error.
func (l Links) RemoveRoute(link netlink.Link, r Route) error {
	dst := IPNet(r.Prefix)
	return remove(l.nl, &netlink.Route{
		LinkIndex: link.Attrs().Index, Dst: &dst, Protocol: Protocol, Priority: r.Metric, Table: inKernel(r.Table),
		Scope: netlink.SCOPE_NOWHERE,
	})
}

// Routes returns the routes of our protocol into devices, by the index of the device, each list sorted.
func (l Links) Routes() (map[int][]Route, error) {
	list, err := ourRoutes(l.strict, unix.RTN_UNICAST)
	byLink := map[int][]Route{}
	for _, r := range list {
		byLink[r.link] = append(byLink[r.link], r.Route)
	}
	for _, routes := range byLink {
		slices.SortFunc(routes, Route.Compare)
	}
	return byLink, err
}

// put replaces a route of the same prefix and metric only if it is ours. The kernel knows no such condition, so the
// exclusive add comes first.
func put(nl *netlink.Handle, p netip.Prefix, route *netlink.Route) error {
	err := nl.RouteAdd(route)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	same := &netlink.Route{Dst: route.Dst, Table: route.Table}
	list, err := netdump.Routes(nl, family(p), same, netlink.RT_FILTER_DST|netlink.RT_FILTER_TABLE)
	if err != nil {
		return fmt.Errorf("list routes to %s: %w", p, err)
	}
	for _, r := range list {
		if r.Priority == route.Priority && r.Protocol != Protocol {
			return fmt.Errorf("route %s metric %d (protocol %s) %w: use another metric or remove it",
				p, r.Priority, r.Protocol, ErrForeign)
		}
	}
	return nl.RouteReplace(route)
}

func remove(nl *netlink.Handle, r *netlink.Route) error {
	if err := nl.RouteDel(r); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}

// placed is a route, and the index of the device that it leads into.
type placed struct {
	Route
	link int
}

// ourRoutes are the routes of our protocol and of a type in the tables of ours. One list is of all tables.
func ourRoutes(strict *netlink.Handle, kind int) (out []placed, err error) {
	filter := &netlink.Route{Protocol: Protocol, Table: unix.RT_TABLE_UNSPEC, Type: kind}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := netdump.RoutesAs(strict, family, filter, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE, place)
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		out = append(out, list...)
	}
	return out, nil
}

// place is false for a route of another table than ours.
func place(r netlink.Route) (placed, bool) {
	table := r.Table
	if table == unix.RT_TABLE_MAIN {
		table = 0
	}
	p, ok := PrefixOf(r.Dst)
	return placed{Route{Prefix: p, Metric: r.Priority, Table: table}, r.LinkIndex}, ok && (table == 0 || table == Table || table == ProbeTable)
}

func inKernel(table int) int {
	if table == 0 {
		return unix.RT_TABLE_MAIN
	}
	return table
}

func family(p netip.Prefix) int {
	if p.Addr().Is4() {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}
