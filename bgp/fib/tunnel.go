package fib

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Tunnel is a device that encrypts what is routed into it.
type Tunnel struct {
	Device    string
	Strict    []netip.Prefix // at or inside these, only what leads into a device that has them is installed
	Endpoints []netip.Addr   // where its encrypted packets go
}

var (
	errStrict   = errors.New("a strict tunnel has this prefix, and the next hop is not behind it")
	errEndpoint = errors.New("the next hop is behind a tunnel")
)

// tunnels are those of a Policy, made ready for many prefixes.
type tunnels struct {
	list      []Tunnel
	endpoints []netip.Addr              // of all, sorted
	around    map[netip.Prefix]struct{} // every prefix that holds one
}

func newTunnels(list []Tunnel) tunnels {
	t := tunnels{list: list, around: map[netip.Prefix]struct{}{}}
	for _, one := range list {
		t.endpoints = append(t.endpoints, one.Endpoints...)
	}
	slices.SortFunc(t.endpoints, netip.Addr.Compare)
	t.endpoints = slices.Compact(t.endpoints)
	for _, e := range t.endpoints {
		for bits := range e.BitLen() + 1 {
			p, _ := e.Prefix(bits) // the length is one of the family's
			t.around[p] = struct{}{}
		}
	}
	return t
}

// inside are the endpoints that a prefix holds.
func (t tunnels) inside(prefix netip.Prefix) []netip.Addr {
	from, _ := slices.BinarySearchFunc(t.endpoints, prefix.Masked().Addr(), netip.Addr.Compare)
	to := from
	for to < len(t.endpoints) && prefix.Contains(t.endpoints[to]) {
		to++
	}
	return t.endpoints[from:to]
}

// guards are the devices that have prefix as a strict one. None: it is nobody's.
func (t tunnels) guards(prefix netip.Prefix) (devices []string) {
	for _, one := range t.list {
		if slices.ContainsFunc(one.Strict, func(outer netip.Prefix) bool { return inside(outer, prefix) }) {
			devices = append(devices, one.Device)
		}
	}
	return devices
}

// concern says whether a prefix may not go everywhere; nearly all may.
func (t tunnels) concern(prefix netip.Prefix) bool {
	return len(t.inside(prefix)) > 0 || len(t.guards(prefix)) > 0
}

// judge is asked of each next hop of a prefix. errStrict: it would lead past the tunnel that has the prefix. errEndpoint: encrypted packets
// would take the way into a tunnel, since nothing better leads to their endpoint.
func (t tunnels) judge(k kernel, prefix netip.Prefix, h hop) error {
	guards, endpoints := t.guards(prefix), t.inside(prefix)
	link, err := k.h.LinkByIndex(h.link)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", errUnresolved, h.addr, err)
	}
	device := link.Attrs().Name
	if len(guards) > 0 && !slices.Contains(guards, device) {
		return errStrict
	}
	if !slices.ContainsFunc(t.list, func(one Tunnel) bool { return one.Device == device }) {
		return nil
	}
	for _, e := range endpoints {
		if !k.hasBetter(e, prefix) {
			return fmt.Errorf("%w, %s, and %s, the endpoint of one, would be reached by it: give that a route of its own", errEndpoint, device, e)
		}
	}
	return nil
}

// allow are the hops that a prefix may go by; an error says why there are none.
func (t tunnels) allow(k kernel, prefix netip.Prefix, hops []hop) ([]hop, error) {
	if !t.concern(prefix) {
		return hops, nil
	}
	var out []hop
	var failed error
	for _, h := range hops {
		if err := t.judge(k, prefix, h); err != nil {
			failed = err
			continue
		}
		out = append(out, h)
	}
	if len(out) > 0 {
		failed = nil
	}
	return out, failed
}

// hasBetter says whether the kernel reaches an address by a longer prefix.
func (k kernel) hasBetter(addr netip.Addr, than netip.Prefix) bool {
	r, err := k.routeTo(addr)
	if err != nil || r.Type != unix.RTN_UNICAST {
		return false
	}
	match, ok := prefixOf(r)
	return ok && match.Bits() > than.Bits()
}

func inside(outer, prefix netip.Prefix) bool {
	return outer.Bits() <= prefix.Bits() && outer.Contains(prefix.Addr())
}
