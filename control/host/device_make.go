package host

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// apply makes the device what is wanted, whatever there is of it.
func (o setDevice) apply(_ context.Context, h *Host) error {
	links, err := h.links()
	if err != nil {
		return err
	}
	c, fresh := h.ledger.device(o.Name), false
	if c == nil {
		if there := byName(links, o.Name); there != nil {
			return h.adoptDevice(o.Device, deviceOf(there, links), there)
		}
		c, fresh = &deviceClaim{Name: o.Name}, true
		h.ledger.Devices = append(h.ledger.Devices, c)
	}
	if c.Adopted {
		return h.adopted(o.Device, c, links)
	}
	c.Keep, c.Parent, c.VLAN, c.LACP = o.Keep, o.Parent, o.VLAN, o.LACP
	link, err := h.standing(o.Device, c, links)
	if err != nil {
		return err
	}
	if link == nil {
		if link, err = h.makeDevice(o.Device, c, links); err != nil {
			if fresh && c.Index == 0 { // nothing was made
				err = errors.Join(err, h.forgetDevice(c))
			}
			return err
		}
	}
	if bond, ok := link.(*netlink.Bond); ok {
		return h.shapeBond(o.Device, c, bond, links)
	}
	return h.save()
}

// adoptDevice takes what is there already for the wanted device, if it is that in every respect.
func (h *Host) adoptDevice(want, have Device, link netlink.Link) error {
	if !have.alike(want) {
		what := have.String()
		if have.shape() == (Device{}).shape() {
			what = "of kind " + cmp.Or(kindOf(link), "device")
		}
		return fmt.Errorf("interface %s is there already (%s) and not ours: remove it, or choose another name", want.Name, what)
	}
	before := slices.Clone(h.ledger.Devices)
	h.ledger.Devices = append(h.ledger.Devices, &deviceClaim{Name: want.Name, Index: link.Attrs().Index, Keep: want.Keep, Adopted: true})
	return unless(h.save(), func() error { h.ledger.Devices = before; return nil })
}

// adopted looks again at a device that somebody else made. When it has gone it is ours to make; when it has changed, somebody
// else wanted that.
func (h *Host) adopted(want Device, c *deviceClaim, links []netlink.Link) error {
	there := byName(links, want.Name)
	if there != nil && there.Attrs().Index == c.Index && deviceOf(there, links).alike(want) {
		c.Keep = want.Keep
		return h.save()
	}
	if err := h.forgetDevice(c); err != nil {
		return err
	}
	return setDevice{want}.apply(context.Background(), h)
}

// standing is the claimed link where it can become what is wanted; else it is deleted.
func (h *Host) standing(want Device, c *deviceClaim, links []netlink.Link) (netlink.Link, error) {
	link := byIndex(links, c.Index)
	if c.Index == 0 {
		link = byName(links, c.Temp)
	}
	if link == nil {
		return nil, nil
	}
	have := deviceOf(link, links)
	if c.Index != 0 && have.Name == want.Name && have.Parent == want.Parent && have.VLAN == want.VLAN {
		return link, nil
	}
	if err := h.deleteLink(link); err != nil {
		return nil, fmt.Errorf("delete %s, to make it anew: %w", have, err)
	}
	return nil, nil
}

func (h *Host) deleteLink(link netlink.Link) error {
	h.tell(link.Attrs().Index)
	return h.nl.LinkDel(link)
}

// makeDevice makes the link, in steps that can each be the last: see deviceClaim.
func (h *Host) makeDevice(want Device, c *deviceClaim, links []netlink.Link) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = tempName()
	var link netlink.Link
	if want.Parent != "" {
		parent, err := h.link(want.Parent)
		if err != nil {
			return nil, err
		}
		if err := h.freeVLAN(want, links); err != nil {
			return nil, err
		}
		attrs.ParentIndex = parent.Attrs().Index
		link = &netlink.Vlan{LinkAttrs: attrs, VlanId: want.VLAN, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q}
	} else {
		bond := netlink.NewLinkBond(attrs)
		bond.Mode, bond.Miimon = netlink.BOND_MODE_ACTIVE_BACKUP, miimon
		link = bond
	}
	c.Temp, c.Index = attrs.Name, 0
	if err := h.save(); err != nil {
		return nil, err
	}
	if err := h.nl.LinkAdd(link); err != nil {
		return nil, fmt.Errorf("%w%s", err, lacking(err, want))
	}
	made, err := h.nl.LinkByName(c.Temp)
	if err != nil {
		return nil, fmt.Errorf("look up what was made: %w", err)
	}
	c.Index = made.Attrs().Index
	if err := h.save(); err != nil {
		return nil, err
	}
	if err := h.nl.LinkSetName(made, want.Name); err != nil {
		if errors.Is(err, unix.EEXIST) {
			err = fmt.Errorf("interface %s is there already and not ours: remove it, or choose another name: %w", want.Name, err)
		}
		return nil, err
	}
	c.Temp = ""
	return h.nl.LinkByName(want.Name)
}

// tempName is one that no other link has.
func tempName() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // it never fails
	return "sluice" + hex.EncodeToString(b[:])
}

func lacking(err error, want Device) string {
	module := "bonding"
	if want.Parent != "" {
		module = "8021q"
	}
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return ": this kernel lacks the module " + module
	case errors.Is(err, unix.EEXIST) && want.Parent != "":
		return fmt.Sprintf(": %s has an interface for VLAN %d already, and it is not ours: remove it", want.Parent, want.VLAN)
	}
	return ""
}

// freeVLAN takes away the device of ours that has the VLAN under another name: a parent has one for each.
func (h *Host) freeVLAN(want Device, links []netlink.Link) error {
	for _, c := range slices.Clone(h.ledger.Devices) {
		link := byIndex(links, c.Index)
		if link == nil || c.Name == want.Name || c.Adopted {
			continue
		}
		if have := deviceOf(link, links); have.Parent == want.Parent && have.VLAN == want.VLAN {
			if err := h.dropDevice(c, links); err != nil {
				return err
			}
		}
	}
	return nil
}

func (o dropDevice) apply(_ context.Context, h *Host) error {
	c := h.ledger.device(o.Name)
	if c == nil {
		return nil
	}
	links, err := h.links()
	if err != nil {
		return err
	}
	return h.dropDevice(c, links)
}

func (h *Host) dropDevice(c *deviceClaim, links []netlink.Link) error {
	link := byIndex(links, c.Index)
	if c.Index == 0 {
		link = byName(links, c.Temp)
	}
	if link != nil && !c.Adopted {
		if err := h.deleteLink(link); err != nil && !errors.Is(err, unix.ENODEV) {
			return err
		}
	}
	for _, m := range c.Members {
		if err := h.restoreMember(m); err != nil {
			return err
		}
	}
	return h.forgetDevice(c)
}

func (h *Host) forgetDevice(c *deviceClaim) error {
	h.ledger.Devices = filter(h.ledger.Devices, func(o *deviceClaim) bool { return o != c })
	return h.save()
}

// restoreMember sets a link up that is no member any more, where it was up before it became one.
func (h *Host) restoreMember(m memberClaim) error {
	link, err := h.nl.LinkByIndex(m.Index)
	var missing netlink.LinkNotFoundError
	switch {
	case errors.As(err, &missing):
		return nil
	case err != nil:
		return fmt.Errorf("look up %s: %w", m.Name, err)
	}
	a := link.Attrs()
	if !m.WasUp || a.MasterIndex != 0 || a.Flags&net.FlagUp != 0 {
		return nil
	}
	if err := h.nl.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up again: %w", a.Name, err)
	}
	return nil
}
