package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/netdump"
)

// gone turns "there is no such link" into success: nothing of ours can be on it.
func (h *Host) gone(err error) error {
	if errors.Is(err, ErrNoLink) {
		return nil
	}
	return err
}

// unless returns nil for a nil error; else it takes the claim back and returns what went wrong.
func unless(err error, undo func() error) error {
	if err == nil {
		return nil
	}
	return errors.Join(err, undo())
}

func (h *Host) observeAddresses(links []netlink.Link) ([]Address, error) {
	names := linkNames(links)
	addrs, err := netdump.List(func() ([]netlink.Addr, error) { return h.nl.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var out []Address
	for _, a := range addrs {
		p := prefixOf(a.IPNet)
		if c := h.ledger.address(a.LinkIndex, p); c != nil {
			out = append(out, Address{Link: names[a.LinkIndex], Prefix: p, Keep: c.Keep, Adopted: c.Adopted})
		}
	}
	slices.SortFunc(out, func(a, b Address) int {
		return cmp.Or(cmp.Compare(a.Link, b.Link), comparePrefix(a.Prefix, b.Prefix))
	})
	return out, nil
}

// apply adds the address. One that is there and not ours is adopted. IPv6 addresses are added with IFA_F_NODAD:
// services bind to them at once, and detection of a duplicate would take a second in which the box is deaf. (The
// optimistic kind needs a sysctl of its own on each link.)
func (o setAddress) apply(ctx context.Context, h *Host) error {
	link, err := h.link(o.Link)
	if err != nil {
		return err
	}
	index := link.Attrs().Index
	there, err := h.addressesOn(link, o.Prefix)
	if err != nil {
		return err
	}
	present := slices.Contains(there, o.Prefix)
	if !present && o.Prefix.Addr().Is6() {
		if err := h.makeRoom(link, o.Prefix, there); err != nil {
			return err
		}
	}
	undo, err := claim(h, &h.ledger.Addresses, func() {
		if c := h.ledger.address(index, o.Prefix); c != nil {
			c.Keep = o.Keep
			return
		}
		h.ledger.Addresses = append(h.ledger.Addresses, addressClaim{
			Link: o.Link, Index: index, Prefix: o.Prefix, Keep: o.Keep, Adopted: present,
		})
	})
	if err != nil || present {
		return err
	}
	a := &netlink.Addr{IPNet: ipNet(o.Prefix)}
	if o.Prefix.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	if err := unless(h.nl.AddrAdd(link, a), undo); err != nil || o.Prefix.Addr().Is4() {
		return err
	}
	return h.announced(ctx, index, o.Prefix.Addr())
}

// announced waits for the work that follows on an IPv6 address, which the kernel queues: the route to it shows that it is done, under the
// lock that sysctls take as well. Were forwarding switched on in between, both would join the subnet's anycast group (RFC 4291
// section 2.6.1), and switching it off would leave it once (seen on 6.18). A link that is not ready may take its time: that is no error.
func (h *Host) announced(ctx context.Context, index int, address netip.Addr) error {
	const patience, pause = time.Second, time.Millisecond
	local := &netlink.Route{LinkIndex: index, Table: unix.RT_TABLE_LOCAL}
	for end := time.Now().Add(patience); ; {
		routes, err := netdump.Routes(h.strict, netlink.FAMILY_V6, local, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
		if err != nil {
			return fmt.Errorf("list local routes: %w", err)
		}
		there := slices.ContainsFunc(routes, func(r netlink.Route) bool {
			return r.Type == unix.RTN_LOCAL && r.Dst != nil && r.Dst.IP.Equal(address.AsSlice())
		})
		if there || time.Now().After(end) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// addressesOn lists the link's addresses of p's family.
func (h *Host) addressesOn(link netlink.Link, p netip.Prefix) ([]netip.Prefix, error) {
	addrs, err := netdump.List(func() ([]netlink.Addr, error) { return h.nl.AddrList(link, family(p.Addr())) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	out := make([]netip.Prefix, len(addrs))
	for i, a := range addrs {
		out[i] = prefixOf(a.IPNet)
	}
	return out, nil
}

// makeRoom removes our own address that differs from p in its length alone: a link takes an IPv6 address once.
func (h *Host) makeRoom(link netlink.Link, p netip.Prefix, there []netip.Prefix) error {
	for _, other := range there {
		if other.Addr() != p.Addr() {
			continue
		}
		c := h.ledger.address(link.Attrs().Index, other)
		if c == nil || c.Adopted {
			return fmt.Errorf("the link has it as %s, which is not ours: write that length, or remove it by hand", other)
		}
		if err := h.nl.AddrDel(link, &netlink.Addr{IPNet: ipNet(other)}); err != nil {
			return fmt.Errorf("remove %s first: %w", other, err)
		}
	}
	return nil
}

func (o dropAddress) apply(_ context.Context, h *Host) error {
	link, err := h.link(o.Link)
	if err != nil {
		return h.gone(err)
	}
	index := link.Attrs().Index
	c := h.ledger.address(index, o.Prefix)
	if c == nil {
		return nil
	}
	if !c.Adopted {
		if err := h.deleteAddress(link, o.Prefix); err != nil {
			return err
		}
	}
	h.ledger.Addresses = filter(h.ledger.Addresses, func(c addressClaim) bool {
		return c.Index != index || c.Prefix != o.Prefix
	})
	return h.save()
}

// deleteAddress spares the neighbors in the same subnet: with a primary IPv4 address the kernel deletes its secondary
// ones, which need not be ours, unless promote_secondaries is set. It is set for the moment of deleting.
func (h *Host) deleteAddress(link netlink.Link, p netip.Prefix) (err error) {
	if p.Addr().Is4() {
		there, err := h.addressesOn(link, p)
		if err != nil {
			return err
		}
		shared := slices.ContainsFunc(there, func(o netip.Prefix) bool { return o != p && o.Masked() == p.Masked() })
		if shared {
			restore, err := promoteSecondaries(link.Attrs().Name)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, restore()) }()
		}
	}
	err = h.nl.AddrDel(link, &netlink.Addr{IPNet: ipNet(p)})
	if errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

func promoteSecondaries(link string) (restore func() error, err error) {
	path := "net/ipv4/conf/" + link + "/promote_secondaries"
	before, err := readSysctl(path)
	if err != nil {
		return nil, err
	}
	if before != "0" {
		return func() error { return nil }, nil
	}
	return func() error { return writeSysctl(path, before) }, writeSysctl(path, "1")
}

func family(a netip.Addr) int {
	if a.Is4() {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}

func comparePrefix(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// prefixOf takes an IPv4 network in either of net.IP's lengths; its mask says the family.
func prefixOf(n *net.IPNet) netip.Prefix {
	addr, _ := netip.AddrFromSlice(n.IP)
	bits, size := n.Mask.Size()
	if size == 32 {
		addr = addr.Unmap()
	}
	return netip.PrefixFrom(addr, bits)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
