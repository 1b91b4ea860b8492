package compile

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sluice/control/config"
	"sluice/control/host"
)

// LooksAtDevices are the kinds of device that a file has made, which the kernel must know how to make: Facts.Host.NoDevices.
func LooksAtDevices(cfg *config.Config) []string {
	var kinds []string
	for _, i := range cfg.Interfaces {
		if kind := deviceKind(i); i.Made() && !slices.Contains(kinds, kind) {
			kinds = append(kinds, kind)
		}
	}
	return kinds
}

// deviceKind is rtnetlink's, of an interface that is made.
func deviceKind(i config.Interface) string {
	if i.Parent != "" {
		return "vlan"
	}
	return "bond"
}

// findDevice wants what a VLAN child or a bond stands on. One member of a bond is enough: the others may be why it is one,
// and join when they appear.
func (c *compiler) findDevice(n int) {
	i := &c.cfg.Interfaces[n]
	path := fmt.Sprintf("interfaces[%d].", n)
	kind, parent, link := deviceKind(*i), c.interfaceOf(i.Parent), c.link(i.Name)
	if link != nil && link.Kind != "" && link.Kind != kind {
		c.miss(n, "name", fmt.Sprintf("there is a %s of the name %s already", link.Kind, i.Name), "choose another name, or remove it")
	}
	if why := c.facts.Host.NoDevices[kind]; why != "" && link == nil {
		c.miss(n, "name", why+", and cannot make the "+kind+" "+i.Name, "install the module, or another kernel")
	}
	if i.Parent != "" {
		switch link := c.link(i.Parent); {
		case parent != nil && parent.MTU > 0: // told of there
		case link == nil && parent == nil:
			c.miss(n, "parent", "there is no interface "+i.Parent, c.linksHint())
		case link != nil && i.MTU > link.MTU:
			c.failNew(i.Pos, path+"mtu", fmt.Sprintf("MTU %d is larger than that of %s, %d", i.MTU, i.Parent, link.MTU),
				fmt.Sprintf("write %d or less, or give %s a larger mtu", link.MTU, i.Parent))
		}
		return
	}
	for m, name := range i.Members {
		c.findMember(i, name, fmt.Sprintf("%smembers[%d]", path, m))
	}
	if stays := c.accepted && link != nil; !stays && !slices.ContainsFunc(i.Members, func(m string) bool { return c.link(m) != nil }) {
		c.miss(n, "members", "none of the members is here", c.linksHint())
	}
}

func (c *compiler) findMember(bond *config.Interface, name, path string) {
	link := c.link(name)
	if link == nil {
		c.warn = append(c.warn, fmt.Sprintf("bond %s: %s is not there; it joins when it appears", bond.Name, name))
		return
	}
	var own []string
	for _, a := range link.Addresses {
		if !a.Addr().IsLinkLocalUnicast() {
			own = append(own, a.String())
		}
	}
	if len(own) > 0 {
		c.failNew(bond.Pos, path, fmt.Sprintf("%s has an address of its own, %s, which would be out of reach", name, strings.Join(own, " ")),
			"remove it from "+name+", and write it at the bond")
	}
}

func (c *compiler) interfaceOf(name string) *config.Interface {
	n := slices.IndexFunc(c.cfg.Interfaces, func(i config.Interface) bool { return i.Name == name })
	if n < 0 {
		return nil
	}
	return &c.cfg.Interfaces[n]
}

// mtu of a VLAN child that the file does not write is its parent's: the kernel gives it that when it is made, and later
// follows downwards alone.
func (c *compiler) mtu(i config.Interface) int {
	if parent := c.interfaceOf(i.Parent); i.MTU == 0 && parent != nil {
		return parent.MTU
	}
	return i.MTU
}

// devices are the links to be made, and the parents that are up for them.
func (c *compiler) devices(s *host.State) {
	for _, i := range c.cfg.Interfaces {
		if !i.Made() || c.absent[i.Name] {
			continue
		}
		d := host.Device{Name: i.Name, Parent: i.Parent, VLAN: i.VLAN, LACP: string(i.LACP), Keep: c.staysUp(i)}
		for _, m := range i.Members {
			if c.link(m) != nil {
				d.Members = append(d.Members, m)
			}
		}
		slices.Sort(d.Members)
		s.Devices = append(s.Devices, d)
		if i.Parent != "" && !slices.ContainsFunc(s.Links, func(l host.Link) bool { return l.Name == i.Parent }) {
			s.Links = append(s.Links, host.Link{Name: i.Parent, Up: true})
		}
	}
	slices.SortFunc(s.Devices, func(a, b host.Device) int { return compareNames(a.Name, b.Name) })
}

// staysUp says whether an interface carries what stays on `sluice down`, by its own addresses or by those of its children.
func (c *compiler) staysUp(i config.Interface) bool {
	carries := func(i config.Interface) bool {
		return c.keeps(i) && slices.ContainsFunc(c.addresses(i), func(p netip.Prefix) bool { return !p.Addr().IsLinkLocalUnicast() })
	}
	return carries(i) || slices.ContainsFunc(c.cfg.Interfaces, func(child config.Interface) bool { return child.Parent == i.Name && carries(child) })
}
