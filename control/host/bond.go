package host

import (
	"fmt"
	"net"
	"slices"

	"github.com/vishvananda/netlink"
)

// shapeBond gives a bond its mode and its members. Mode and rate change on a bond that is down and has none.
func (h *Host) shapeBond(want Device, c *deviceClaim, bond *netlink.Bond, links []netlink.Link) error {
	index := bond.Attrs().Index
	reshape := lacpOf(bond) != want.LACP || bond.Miimon != miimon
	for _, m := range membersOf(links, index) {
		if reshape || !slices.Contains(want.Members, m.Attrs().Name) {
			if err := h.release(c, m, !slices.Contains(want.Members, m.Attrs().Name)); err != nil {
				return err
			}
		}
	}
	if reshape {
		if err := h.setMode(want, bond); err != nil {
			return err
		}
	}
	links, err := h.links()
	if err != nil {
		return err
	}
	for _, name := range want.Members {
		m := byName(links, name)
		if m == nil {
			return noLink(name, links)
		}
		if m.Attrs().MasterIndex == index {
			continue
		}
		if err := h.enslave(c, m, bond, links); err != nil {
			return err
		}
	}
	// Claims on links that went, or came back as others, have nothing to give back.
	c.Members = filter(c.Members, func(m memberClaim) bool { return byIndex(links, m.Index) != nil })
	return h.save()
}

func (h *Host) setMode(want Device, bond *netlink.Bond) error {
	if bond.Attrs().Flags&net.FlagUp != 0 {
		if err := h.nl.LinkSetDown(bond); err != nil {
			return err
		}
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Index = bond.Attrs().Name, bond.Attrs().Index
	mode := netlink.NewLinkBond(attrs)
	mode.Mode, mode.Miimon = netlink.BOND_MODE_ACTIVE_BACKUP, miimon
	if want.LACP != "off" {
		mode.Mode, mode.XmitHashPolicy, mode.LacpRate = netlink.BOND_MODE_802_3AD, hashPolicy, netlink.BOND_LACP_RATE_SLOW
	}
	if want.LACP == "fast" {
		mode.LacpRate = netlink.BOND_LACP_RATE_FAST
	}
	if err := h.nl.LinkModify(mode); err != nil {
		return fmt.Errorf("set its mode: %w", err)
	}
	return nil
}

// release takes a member out, and where it is to stay out gives back what it had.
func (h *Host) release(c *deviceClaim, m netlink.Link, forGood bool) error {
	a := m.Attrs()
	if err := h.nl.LinkSetNoMaster(m); err != nil {
		return fmt.Errorf("take %s out: %w", a.Name, err)
	}
	i := c.member(a.Index)
	if !forGood || i < 0 {
		return nil
	}
	if err := h.restoreMember(c.Members[i]); err != nil {
		return err
	}
	c.Members = slices.Delete(c.Members, i, i+1)
	return h.save()
}

// enslave puts a link into the bond. It is down for that, and what it was before is in the ledger first. One that is a
// member of another bond of ours moves; of anybody else's it stays.
func (h *Host) enslave(c *deviceClaim, m netlink.Link, bond *netlink.Bond, links []netlink.Link) error {
	a := m.Attrs()
	claim := memberClaim{Name: a.Name, Index: a.Index, WasUp: a.Flags&net.FlagUp != 0}
	if a.MasterIndex != 0 {
		former := slices.IndexFunc(h.ledger.Devices, func(o *deviceClaim) bool { return o.Index == a.MasterIndex && o.member(a.Index) >= 0 })
		if former < 0 {
			return fmt.Errorf("%s belongs to %s, which is not ours: take it out there", a.Name, byIndex(links, a.MasterIndex).Attrs().Name)
		}
		o := h.ledger.Devices[former]
		i := o.member(a.Index)
		claim = o.Members[i]
		o.Members = slices.Delete(o.Members, i, i+1)
	}
	if c.member(a.Index) < 0 {
		c.Members = append(c.Members, claim)
	}
	if err := h.save(); err != nil {
		return err
	}
	if a.MasterIndex != 0 {
		if err := h.nl.LinkSetNoMaster(m); err != nil {
			return fmt.Errorf("take %s out of its former bond: %w", a.Name, err)
		}
	}
	if err := h.nl.LinkSetDown(m); err != nil {
		return fmt.Errorf("set %s down: %w", a.Name, err)
	}
	if err := h.nl.LinkSetMaster(m, bond); err != nil {
		return fmt.Errorf("put %s in: %w", a.Name, err)
	}
	return nil
}
