package fib

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"sluice/netdump"
)

var (
	errUnresolved = errors.New("no way to a next hop")
	errConflict   = errors.New("a route of another protocol has this prefix and metric")
)

// kernel speaks rtnetlink over one reused handle (79-102k routes/s, against 28k/s with a handle per call).
type kernel struct {
	h      *netlink.Handle
	socket *nl.SocketHandle // of what the library cannot say
	port   uint32           // of socket: who wrote what the kernel tells of

	buffers *buffers
}

// dial speaks to a namespace; netns.None is the process's own.
func dial(ns netns.NsHandle) (kernel, error) {
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return kernel{}, fmt.Errorf("open netlink: %w", err)
	}
	s, err := nl.GetNetlinkSocketAt(ns, netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		h.Close()
		return kernel{}, fmt.Errorf("open netlink: %w", err)
	}
	k := kernel{h: h, socket: &nl.SocketHandle{Socket: s}, buffers: &buffers{}}
	if k.port, err = s.GetPid(); err != nil {
		k.close()
		return kernel{}, fmt.Errorf("open netlink: %w", err)
	}
	return k, nil
}

func (k kernel) close() {
	k.h.Close()
	k.socket.Close()
}

// hop is a gateway with the link that it is on.
type hop struct {
	addr   netip.Addr
	link   int
	onLink bool // though no address of the link's says so (RTNH_F_ONLINK)
}

func (h hop) compare(g hop) int { return cmp.Or(h.addr.Compare(g.addr), h.link-g.link) }

// listed is a route of ours that the kernel has.
type listed struct {
	prefix netip.Prefix
	*held
}

// list returns our routes of a table, both families. There may be a million: what they have in common is one, and nothing but that is kept.
func (k kernel) list(table int) ([]listed, error) {
	var bare bool // one without an object
	out, err := netdump.List(func() (out []listed, err error) {
		r := k.request(unix.RTM_GETROUTE, unix.NLM_F_DUMP)
		r.AddData(&nl.RtMsg{})
		type likeness struct {
			place
			group uint32
		}
		alike := map[likeness]*held{}
		err = r.ExecuteIter(unix.NETLINK_ROUTE, unix.RTM_NEWROUTE, func(m []byte) (more bool) {
			prefix, there, group := routeBy(m)
			if there.table != table {
				return true
			}
			key := likeness{there, group}
			if alike[key] == nil {
				alike[key] = &held{place: there, group: group}
			}
			bare = bare || group == 0
			out = append(out, listed{prefix, alike[key]})
			return true
		})
		return out, err
	})
	if err != nil || !bare {
		return out, err
	}
	gateways, err := k.gatewaysOf(table)
	for i, r := range out {
		if r.group == 0 {
			out[i].held = &held{place: r.place, gateways: gateways[r.prefix][r.place]}
		}
	}
	return out, err
}

// gatewaysOf are those of the routes of ours in a table, as versions without nexthop objects wrote them.
func (k kernel) gatewaysOf(table int) (map[netip.Prefix]map[place][]netip.Addr, error) {
	filter := &netlink.Route{Protocol: Protocol, Table: table}
	list, err := netdump.Routes(k.h, netlink.FAMILY_ALL, filter, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
	out := map[netip.Prefix]map[place][]netip.Addr{}
	for _, r := range list {
		prefix, ok := prefixOf(r)
		if !ok {
			continue
		}
		var gateways []netip.Addr
		for _, nh := range nextHopsOf(r) {
			if addr, ok := k.gateway(nh); ok {
				gateways = append(gateways, addr)
			}
		}
		slices.SortFunc(gateways, netip.Addr.Compare)
		if out[prefix] == nil {
			out[prefix] = map[place][]netip.Addr{}
		}
		out[prefix][place{table, r.Priority}] = gateways
	}
	return out, err
}

func prefixOf(r netlink.Route) (netip.Prefix, bool) {
	if r.Dst == nil {
		// A default route: netlink leaves Dst nil in some versions.
		if r.Family == netlink.FAMILY_V6 {
			return netip.PrefixFrom(netip.IPv6Unspecified(), 0), true
		}
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0), true
	}
	addr, ok := netip.AddrFromSlice(r.Dst.IP)
	ones, bits := r.Dst.Mask.Size()
	if bits == 32 {
		addr = addr.Unmap()
	}
	return netip.PrefixFrom(addr, ones), ok
}

// nextHopsOf are those of a route in one form.
func nextHopsOf(r netlink.Route) []*netlink.NexthopInfo {
	if len(r.MultiPath) > 0 {
		return r.MultiPath
	}
	return []*netlink.NexthopInfo{{Gw: r.Gw, Via: r.Via, LinkIndex: r.LinkIndex, Flags: r.Flags}}
}

func gatewayOf(nh *netlink.NexthopInfo) (netip.Addr, bool) {
	ip := nh.Gw
	if via, ok := nh.Via.(*netlink.Via); ok && ip == nil {
		ip = via.Addr
	}
	addr, ok := netip.AddrFromSlice(ip)
	return addr.Unmap(), ok
}

// gateway is the inverse of a hop: a link-local address gets its link as zone.
func (k kernel) gateway(nh *netlink.NexthopInfo) (netip.Addr, bool) {
	addr, ok := gatewayOf(nh)
	return k.withZone(addr, nh.LinkIndex), ok
}

func (k kernel) withZone(addr netip.Addr, index int) netip.Addr {
	if addr.Is6() && addr.IsLinkLocalUnicast() {
		if link, err := k.h.LinkByIndex(index); err == nil {
			return addr.WithZone(link.Attrs().Name)
		}
	}
	return addr
}

// zoned is the hop of a link-local address.
func (k kernel) zoned(addr netip.Addr) (hop, error) {
	link, err := k.h.LinkByName(addr.Zone())
	if err != nil {
		return hop{}, fmt.Errorf("%w: %s: %w", errUnresolved, addr, err)
	}
	return hop{addr: addr, link: link.Attrs().Index}, nil
}

// routeTo is the route that the box itself would send to an address by, as the table has it.
func (k kernel) routeTo(addr netip.Addr) (netlink.Route, error) {
	routes, err := k.h.RouteGetWithOptions(addr.AsSlice(), &netlink.RouteGetOptions{FIBMatch: true})
	if err == nil && len(routes) == 0 {
		err = unix.ENETUNREACH
	}
	if err != nil {
		return netlink.Route{}, err
	}
	return routes[0], nil
}

// networks are what the addresses of all interfaces say is on their links.
func (k kernel) networks() []network {
	addresses, err := netdump.List(func() ([]netlink.Addr, error) { return k.h.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil
	}
	var out []network
	for _, a := range addresses {
		net := a.IPNet
		if a.Peer != nil { // of a point-to-point link
			net = a.Peer
		}
		if addr, ok := netip.AddrFromSlice(net.IP); ok {
			ones, _ := net.Mask.Size()
			out = append(out, network{netip.PrefixFrom(addr.Unmap(), ones).Masked(), a.LinkIndex})
		}
	}
	return out
}
