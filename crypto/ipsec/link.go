package ipsec

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/crypto/path"
)

// defaultMTU holds ESP's overhead in UDP over IPv6 on an underlay of 1500 bytes.
const defaultMTU = 1400

// maxWindow is XFRMA_REPLAY_ESN_MAX of the kernel, in packets.
const maxWindow = 4096

// isOurLink looks at alias, type and if_id.
func isOurLink(link netlink.Link) bool {
	a := link.Attrs()
	x, ok := link.(*netlink.Xfrmi)
	return ok && a.Alias == path.Alias(a.Name) && x.Ifid == IfID(a.Name)
}

// ensure makes the tunnel's link, adopting the one that is there, and holds its port. States and policies are the peers'.
func (d *Driver) ensure(ctx context.Context, t Tunnel) error {
	if err := d.check(t); err != nil {
		return err
	}
	link, err := path.Lookup(d.nl, t.Name)
	if err != nil {
		return err
	}
	if link != nil && !isOurLink(link) {
		return path.Foreign(t.Name)
	}
	made := link == nil
	if made {
		if link, err = d.create(t); err != nil {
			return err
		}
	} else if t.MTU != 0 && link.Attrs().MTU != t.MTU {
		if err := d.nl.LinkSetMTU(link, t.MTU); err != nil {
			return fmt.Errorf("set MTU %d: %w", t.MTU, err)
		}
	}
	if err := d.nl.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", t.Name, err)
	}
	d.register(t)
	if err := d.holdPort(t); err != nil {
		if made {
			err = errors.Join(err, d.remove(ctx, t.Name))
		}
		return err
	}
	return nil
}

// check finds what would make errors obscure, before anything is touched.
func (d *Driver) check(t Tunnel) error {
	switch {
	case len(t.Name) >= unix.IFNAMSIZ || t.Name == "":
		return fmt.Errorf("name %q: an interface name has 1 to %d bytes", t.Name, unix.IFNAMSIZ-1)
	case t.Keying != Static && t.Keying != IKE:
		return fmt.Errorf("keying %q is neither static nor ike", t.Keying)
	case t.Keying == IKE && t.Charon == "":
		return errors.New("there is no path of charon's socket")
	case !t.Local.Addr().IsValid():
		return errors.New("there is no local address: set local.address")
	case t.ReplayWindow < 1 || t.ReplayWindow > maxWindow:
		return fmt.Errorf("replay window %d: the kernel knows 1 to %d packets", t.ReplayWindow, maxWindow)
	}
	for name, other := range d.tunnels {
		if name != t.Name && other.want.Name != "" && other.ifID == IfID(t.Name) {
			return fmt.Errorf("tunnels %s and %s have the same if_id: rename one", t.Name, name)
		}
	}
	return nil
}

// create makes the link and marks it as ours.
func (d *Driver) create(t Tunnel) (netlink.Link, error) {
	mtu := t.MTU
	if mtu == 0 {
		mtu = defaultMTU
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = t.Name, mtu
	link := &netlink.Xfrmi{LinkAttrs: attrs, Ifid: IfID(t.Name)}
	if err := d.nl.LinkAdd(link); err != nil {
		return nil, explain(fmt.Errorf("create interface %s: %w", t.Name, err))
	}
	if err := path.Claim(d.nl, link, mtu); err != nil {
		return nil, errors.Join(fmt.Errorf("set up interface %s: %w", t.Name, err), d.links.Delete(link))
	}
	d.log.Info("tunnel interface made", "tunnel", t.Name, "type", "ipsec", "if_id", fmt.Sprintf("%#x", link.Ifid))
	return d.links.Find(t.Name)
}

// remove deletes a tunnel's link, and with it its addresses and routes, then its policies and states. What remains on the
// disk is the highest epoch.
func (d *Driver) remove(ctx context.Context, name string) error {
	ifID := unnamed(name)
	if ifID == 0 {
		ifID = IfID(name)
		link, err := path.Lookup(d.nl, name)
		if err != nil {
			return err
		}
		if link != nil && !isOurLink(link) {
			return path.Foreign(name)
		}
		if link != nil {
			if err := d.links.Delete(link); err != nil && !errors.Is(err, unix.ENODEV) {
				return fmt.Errorf("delete interface %s: %w", name, err)
			}
		}
	}
	if err := d.removeIKE(ctx, name, ifID); err != nil {
		return err
	}
	if err := d.clear(func(o owner) bool { return o.ifID == ifID && isOurs(o.reqid) }); err != nil {
		return err
	}
	t := d.tunnels[name]
	if t == nil || t.want.Name == "" {
		return nil
	}
	was := t.want
	t.highest, t.want, t.peers, t.placed, t.first = t.top(), Tunnel{}, map[string]*peer{}, 0, nil
	err := d.write(name, t)
	if errors.Is(err, errUnwritten) { // as setPeer does: the file knows the tunnel still, and with it all its epochs
		d.rouse()
		err = nil
	}
	return errors.Join(err, d.holdPort(was))
}
