package host

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/netdump"
)

// minMTU6 is the least MTU of IPv6 (RFC 8200 section 5). Below it Linux takes every IPv6 address off the link.
const minMTU6 = 1280

func (h *Host) observeLinks(links []netlink.Link) []Link {
	var out []Link
	for _, l := range links {
		a := l.Attrs()
		c := h.ledger.link(a.Index)
		if c == nil {
			continue
		}
		link := Link{Name: a.Name, Up: c.Up && a.Flags&net.FlagUp != 0}
		if c.MTU != 0 {
			link.MTU = a.MTU
		}
		if c.Group != 0 {
			link.Group = int(a.Group)
		}
		out = append(out, link)
	}
	slices.SortFunc(out, func(a, b Link) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// claimLink changes the link's claim, made where there is none, and saves the ledger; on error it is as before.
func (h *Host) claimLink(a *netlink.LinkAttrs, change func(*linkClaim)) (undo func() error, err error) {
	return claim(h, &h.ledger.Links, func() {
		c := h.ledger.link(a.Index)
		if c == nil {
			h.ledger.Links = append(h.ledger.Links, linkClaim{Name: a.Name, Index: a.Index})
			c = &h.ledger.Links[len(h.ledger.Links)-1]
		}
		change(c)
		h.ledger.Links = filter(h.ledger.Links, func(c linkClaim) bool { return c.Up || c.MTU != 0 || c.Group != 0 })
	})
}

func (o setUp) apply(_ context.Context, h *Host) error {
	link, err := h.link(o.link)
	if err != nil {
		return err
	}
	a := link.Attrs()
	undo, err := h.claimLink(a, func(c *linkClaim) {
		if !c.Up {
			c.Up, c.WasUp = true, a.Flags&net.FlagUp != 0
		}
	})
	if err != nil || a.Flags&net.FlagUp != 0 {
		return err
	}
	return unless(h.nl.LinkSetUp(link), undo)
}

// apply gives the link back. It is taken down only where it was down before and carries nothing of anybody: a link that
// the operator came to rely on stays up.
func (o dropUp) apply(_ context.Context, h *Host) error {
	link, err := h.link(o.link)
	if err != nil {
		return h.gone(err)
	}
	a := link.Attrs()
	c := h.ledger.link(a.Index)
	if c == nil || !c.Up {
		return nil
	}
	if !c.WasUp && a.Flags&net.FlagUp != 0 {
		idle, err := h.idle(link)
		if err != nil {
			return err
		}
		if idle {
			if err := h.nl.LinkSetDown(link); err != nil {
				return err
			}
		}
	}
	_, err = h.claimLink(a, func(c *linkClaim) { c.Up, c.WasUp = false, false })
	return err
}

// idle says that the link has no address but its link-local one, no route but the kernel's own, and nothing stands on it.
func (h *Host) idle(link netlink.Link) (bool, error) {
	links, err := h.links()
	if err != nil {
		return false, err
	}
	index := link.Attrs().Index
	if link.Attrs().MasterIndex != 0 || slices.ContainsFunc(links, func(l netlink.Link) bool {
		a := l.Attrs() // of a veth, and of what is stacked on another namespace, the parent is somewhere else
		return a.ParentIndex == index && a.NetNsID < 0 && kindOf(l) != "veth" || a.MasterIndex == index
	}) {
		return false, nil
	}
	addrs, err := netdump.List(func() ([]netlink.Addr, error) { return h.nl.AddrList(link, netlink.FAMILY_ALL) })
	if err != nil {
		return false, fmt.Errorf("list addresses: %w", err)
	}
	if slices.ContainsFunc(addrs, func(a netlink.Addr) bool { return !a.IP.IsLinkLocalUnicast() }) {
		return false, nil
	}
	in := netlink.Route{LinkIndex: index, Table: unix.RT_TABLE_UNSPEC}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netdump.Routes(h.strict, family, &in, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
		if err != nil {
			return false, fmt.Errorf("list routes: %w", err)
		}
		if slices.ContainsFunc(routes, func(r netlink.Route) bool { return r.Protocol != unix.RTPROT_KERNEL }) {
			return false, nil
		}
	}
	return true, nil
}

func (o setMTU) apply(_ context.Context, h *Host) error {
	link, err := h.link(o.link)
	if err != nil {
		return err
	}
	if o.mtu < minMTU6 {
		addrs, err := netdump.List(func() ([]netlink.Addr, error) { return h.nl.AddrList(link, netlink.FAMILY_V6) })
		if err != nil {
			return fmt.Errorf("list addresses: %w", err)
		}
		if len(addrs) > 0 {
			return fmt.Errorf("below %d bytes the kernel takes IPv6 off the link (RFC 8200), and it has %s: "+
				"use %d or more, or remove its IPv6 addresses first", minMTU6, addrs[0].IPNet, minMTU6)
		}
	}
	a := link.Attrs()
	undo, err := h.claimLink(a, func(c *linkClaim) {
		if c.MTU == 0 {
			c.WasMTU = a.MTU
		}
		c.MTU = o.mtu
	})
	if err != nil || a.MTU == o.mtu {
		return err
	}
	if err := h.nl.LinkSetMTU(link, o.mtu); err != nil {
		return unless(fmt.Errorf("the driver refuses %d bytes: %w", o.mtu, err), undo)
	}
	return nil
}

func (o dropMTU) apply(_ context.Context, h *Host) error {
	link, err := h.link(o.link)
	if err != nil {
		return h.gone(err)
	}
	a := link.Attrs()
	c := h.ledger.link(a.Index)
	if c == nil || c.MTU == 0 {
		return nil
	}
	if a.MTU != c.WasMTU {
		if err := h.nl.LinkSetMTU(link, c.WasMTU); err != nil {
			return fmt.Errorf("back to %d bytes: %w", c.WasMTU, err)
		}
	}
	_, err = h.claimLink(a, func(c *linkClaim) { c.MTU, c.WasMTU = 0, 0 })
	return err
}

func (o setGroup) apply(_ context.Context, h *Host) error {
	link, err := h.link(o.link)
	if err != nil {
		return err
	}
	a := link.Attrs()
	undo, err := h.claimLink(a, func(c *linkClaim) {
		if c.Group == 0 {
			c.WasGroup = int(a.Group)
		}
		c.Group = o.group
	})
	if err != nil || int(a.Group) == o.group {
		return err
	}
	return unless(h.nl.LinkSetGroup(link, o.group), undo)
}

func (o dropGroup) apply(_ context.Context, h *Host) error {
	link, err := h.link(o.link)
	if err != nil {
		return h.gone(err)
	}
	a := link.Attrs()
	c := h.ledger.link(a.Index)
	if c == nil || c.Group == 0 {
		return nil
	}
	if int(a.Group) != c.WasGroup {
		if err := h.nl.LinkSetGroup(link, c.WasGroup); err != nil {
			return fmt.Errorf("back to group %d: %w", c.WasGroup, err)
		}
	}
	_, err = h.claimLink(a, func(c *linkClaim) { c.Group, c.WasGroup = 0, 0 })
	return err
}
