// Package path is what tunnels of every type need of the kernel's routing: addresses and routes on a link of ours (Links),
// the mark that makes a link ours, and the blackholes behind strict tunnels, which are a subsystem of their own (Driver):
// they stand before any tunnel does, and go when the last one has gone.
package path

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/netdump"
)

// Protocol marks our routes; in the tables of ours we touch no other protocol's.
const Protocol = 187

// Table holds the routes that may not stand in the main table: those that cover the endpoint of their own tunnel. Who asks
// for them puts routing rules beside them.
const Table = 187

// ProbeTable holds the ways of probes to what is not in a network of the device: they outlive the routes that are withdrawn
// while probes are lost, and nobody else is to take them. Who asks for them puts rules beside them, for sockets bound to the
// device.
const ProbeTable = 188

// BlackholeMetric is the worst there is, so that any route into a device wins over the blackhole behind it.
const BlackholeMetric = 1<<32 - 1

// ErrForeign says that the wanted name or route belongs to somebody else.
var ErrForeign = errors.New("exists and is not Sluice's")

// Route is a route into a device, protocol 187.
type Route struct {
	Prefix netip.Prefix
	Metric int // 0: the kernel's default
	Table  int // 0: main; else Table or ProbeTable
}

// Blackhole catches a prefix while no route into a device does, protocol 187 and the worst metric.
type Blackhole struct {
	Prefix netip.Prefix
	Table  int // 0: main; else Table
}

// State is what the subsystem should hold, or holds.
type State struct {
	Blackholes []Blackhole // sorted by Compare, distinct
}

// Alias is the link alias that marks a tunnel's link as ours. It lives in the kernel, so ownership survives any end of the
// daemon. Other owners of links may use the same form: look at the link's type as well.
func Alias(name string) string { return "sluice:" + name }

// Lookup returns the link called name, or nil when there is none.
func Lookup(nl *netlink.Handle, name string) (netlink.Link, error) {
	link, err := nl.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up interface %s: %w", name, err)
	}
	return link, nil
}

// Foreign is the error for a tunnel whose name somebody else's link has.
func Foreign(name string) error {
	return fmt.Errorf("interface %s %w: rename the tunnel or remove it", name, ErrForeign)
}

// addrGenModeNone is IN6_ADDR_GEN_MODE_NONE of linux/if_link.h.
const addrGenModeNone = 1

// Claim marks a new link as ours and sets its MTU, in bytes. No link-local IPv6 address is generated: nobody asked for one.
func Claim(nl *netlink.Handle, link netlink.Link, mtu int) error {
	err := nl.LinkSetIP6AddrGenMode(link, addrGenModeNone)
	if errors.Is(err, unix.EAFNOSUPPORT) { // a machine without IPv6
		err = nil
	}
	return errors.Join(err, nl.LinkSetMTU(link, mtu), nl.LinkSetAlias(link, Alias(link.Attrs().Name)))
}

// Compare orders routes by prefix, metric and table.
func (r Route) Compare(other Route) int {
	if c := r.Prefix.Compare(other.Prefix); c != 0 {
		return c
	}
	if r.Metric != other.Metric {
		return r.Metric - other.Metric
	}
	return r.Table - other.Table
}

// Compare orders blackholes by prefix and table.
func (b Blackhole) Compare(other Blackhole) int {
	if c := b.Prefix.Compare(other.Prefix); c != 0 {
		return c
	}
	return b.Table - other.Table
}

// DiffRoutes is Difference of routes as the kernel keeps them: one of metric 0 has the default metric over IPv6.
func DiffRoutes(have, want []Route) (missing, surplus []Route) {
	return Difference(normal(have), normal(want))
}

func normal(routes []Route) []Route {
	out := slices.Clone(routes)
	for i, r := range out {
		out[i].Metric = netdump.Metric(r.Prefix, r.Metric)
	}
	return out
}

// Difference returns what want has and have lacks, and the reverse, each in its own order.
func Difference[T comparable](have, want []T) (missing, surplus []T) {
	if slices.Equal(have, want) { // of most of a thousand peers
		return nil, nil
	}
	return without(want, have), without(have, want)
}

// without returns the elements of list that are not in other.
func without[T comparable](list, other []T) []T {
	in := make(map[T]bool, len(other))
	for _, x := range other {
		in[x] = true
	}
	var out []T
	for _, x := range list {
		if !in[x] {
			out = append(out, x)
		}
	}
	return out
}

// PrefixOf is n as a prefix; false for nil and for what is none.
func PrefixOf(n *net.IPNet) (netip.Prefix, bool) {
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

// IPNet is p in the form of package net.
func IPNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
