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
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Device is a link that this package makes: a VLAN child (Parent and VLAN, 802.1Q) or a bond (Members and LACP).
type Device struct {
	Name    string
	Parent  string
	VLAN    int
	Members []string // sorted
	LACP    string   // fast and slow: 802.3ad at that rate; off: active-backup. Observe says "mode N" of any other
	// Keep leaves the device in place on down: the operator reaches the box through it.
	Keep bool
	// Adopted is set by Observe alone: an equal device was there before, and is never removed. Diff ignores it.
	Adopted bool
	// Gone is set by Observe alone: the device was made, and has been deleted or renamed since.
	Gone bool
}

// The kernel looks at carriers that often, in ms. What hashes a flow to a member knows its ports, and so needs no more than
// one flow to each remote service to use several members (bonding.rst).
const (
	miimon     = 100
	hashPolicy = netlink.BOND_XMIT_HASH_POLICY_LAYER3_4
)

// String is in the words of ip(8).
func (d Device) String() string {
	if d.Parent != "" {
		return fmt.Sprintf("vlan %s link %s id %d", d.Name, d.Parent, d.VLAN)
	}
	return fmt.Sprintf("bond %s of %s lacp %s", d.Name, strings.Join(d.Members, " "), d.LACP)
}

type (
	setDevice  struct{ Device }
	dropDevice struct{ Device }
)

func (setDevice) Teardown() bool  { return false }
func (dropDevice) Teardown() bool { return true }

func (o setDevice) String() string { return "make " + o.Device.String() }
func (o dropDevice) String() string {
	if o.Adopted {
		return "leave " + o.Device.String() + " as it was found"
	}
	return "delete " + o.Device.String()
}

// deviceClaim is on a device. The kernel cannot tell who made one, and its index is known only afterwards: so it is made
// under the name Temp, which nobody else has, and gets its own when the ledger knows the index.
type deviceClaim struct {
	Name    string        `json:"name"`
	Temp    string        `json:"temp,omitempty"`
	Index   int           `json:"index,omitempty"` // 0: not made yet, or under its name of Temp
	Parent  string        `json:"parent,omitempty"`
	VLAN    int           `json:"vlan,omitempty"`
	LACP    string        `json:"lacp,omitempty"`
	Members []memberClaim `json:"members,omitempty"`
	Keep    bool          `json:"keep,omitempty"`
	Adopted bool          `json:"adopted,omitempty"`
}

// memberClaim is on a link that was made a member. The kernel gives it back its MAC address and MTU, but leaves it down.
type memberClaim struct {
	Name  string `json:"name"` // for readers only
	Index int    `json:"index"`
	WasUp bool   `json:"was_up,omitempty"`
}

func (c *deviceClaim) member(index int) int {
	return slices.IndexFunc(c.Members, func(m memberClaim) bool { return m.Index == index })
}

func (l *ledger) device(name string) *deviceClaim {
	i := slices.IndexFunc(l.Devices, func(c *deviceClaim) bool { return c.Name == name })
	if i < 0 {
		return nil
	}
	return l.Devices[i]
}

func (h *Host) observeDevices(links []netlink.Link) []Device {
	var out []Device
	for _, c := range h.ledger.Devices {
		d := Device{Name: c.Name, Parent: c.Parent, VLAN: c.VLAN, LACP: c.LACP, Gone: true}
		if link := byIndex(links, c.Index); link != nil && link.Attrs().Name == c.Name {
			d = deviceOf(link, links)
		}
		d.Keep, d.Adopted = c.Keep, c.Adopted
		out = append(out, d)
	}
	slices.SortFunc(out, func(a, b Device) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

func byIndex(links []netlink.Link, index int) netlink.Link {
	i := slices.IndexFunc(links, func(l netlink.Link) bool { return l.Attrs().Index == index })
	if i < 0 {
		return nil
	}
	return links[i]
}

func byName(links []netlink.Link, name string) netlink.Link {
	i := slices.IndexFunc(links, func(l netlink.Link) bool { return l.Attrs().Name == name })
	if i < 0 {
		return nil
	}
	return links[i]
}

// deviceOf reads a device as the kernel has it. One of another kind has neither parent nor LACP.
func deviceOf(link netlink.Link, links []netlink.Link) Device {
	a := link.Attrs()
	d := Device{Name: a.Name}
	switch l := link.(type) {
	case *netlink.Vlan:
		if l.VlanProtocol == netlink.VLAN_PROTOCOL_8021Q {
			d.VLAN = l.VlanId
		}
		if parent := byIndex(links, a.ParentIndex); parent != nil {
			d.Parent = parent.Attrs().Name
		}
	case *netlink.Bond:
		d.LACP = lacpOf(l)
		for _, m := range membersOf(links, a.Index) {
			d.Members = append(d.Members, m.Attrs().Name)
		}
		slices.Sort(d.Members)
	}
	return d
}

func lacpOf(b *netlink.Bond) string {
	switch {
	case b.Mode == netlink.BOND_MODE_802_3AD && b.LacpRate == netlink.BOND_LACP_RATE_FAST:
		return "fast"
	case b.Mode == netlink.BOND_MODE_802_3AD:
		return "slow"
	case b.Mode == netlink.BOND_MODE_ACTIVE_BACKUP:
		return "off"
	}
	return "mode " + b.Mode.String()
}

func membersOf(links []netlink.Link, index int) []netlink.Link {
	return filter(links, func(l netlink.Link) bool { return l.Attrs().MasterIndex == index })
}

// alike compares what the file writes.
func (d Device) alike(o Device) bool {
	return d.Gone == o.Gone && d.shape() == o.shape() && slices.Equal(d.Members, o.Members)
}

// shape is what cannot change without taking the link down, or away.
func (d Device) shape() string { return fmt.Sprintf("%s %d %s", d.Parent, d.VLAN, d.LACP) }

// diffDevices makes bonds before the VLAN children that stand on them.
func diffDevices(have, want []Device) (set, drop []Op) {
	order := func(in []Device) []Device {
		out := slices.Clone(in)
		slices.SortStableFunc(out, func(a, b Device) int { return cmp.Compare(min(a.VLAN, 1), min(b.VLAN, 1)) })
		return out
	}
	return diffList(order(have), order(want), func(d Device) string { return d.Name },
		func(h, w Device) bool { return h.alike(w) && h.Keep == w.Keep },
		func(d Device) Op { return setDevice{d} }, func(d Device) Op { return dropDevice{d} })
}

// disturbed are the links that lose addresses and routes, or all they have, when their devices become what is wanted.
func disturbed(have, want []Device) map[string]bool {
	out := map[string]bool{}
	for _, w := range want {
		i := slices.IndexFunc(have, func(h Device) bool { return h.Name == w.Name })
		if i < 0 || have[i].Gone != w.Gone || have[i].shape() != w.shape() {
			out[w.Name] = true
		}
	}
	for _, w := range want {
		if out[w.Parent] {
			out[w.Name] = true
		}
	}
	return out
}

// without is the state as it will be once some links have been disturbed.
func (s State) without(links map[string]bool) State {
	if len(links) == 0 {
		return s
	}
	s.Links = filter(s.Links, func(l Link) bool { return !links[l.Name] })
	s.Addresses = filter(s.Addresses, func(a Address) bool { return !links[a.Link] })
	s.Routes = filter(s.Routes, func(r Route) bool { return !links[r.Link] })
	s.Tags = filter(s.Tags, func(t Tags) bool { return !links[t.Link] })
	s.Sysctls = filter(s.Sysctls, func(y Sysctl) bool { return !links[sysctlLink(sysctlID(y.Key))] })
	return s
}

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
	return h.ledger.save(h.path)
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
	return unless(h.ledger.save(h.path), func() error { h.ledger.Devices = before; return nil })
}

// adopted looks again at a device that somebody else made. When it has gone it is ours to make; when it has changed, somebody
// else wanted that.
func (h *Host) adopted(want Device, c *deviceClaim, links []netlink.Link) error {
	there := byName(links, want.Name)
	if there != nil && there.Attrs().Index == c.Index && deviceOf(there, links).alike(want) {
		c.Keep = want.Keep
		return h.ledger.save(h.path)
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
	if err := h.nl.LinkDel(link); err != nil {
		return nil, fmt.Errorf("delete %s, to make it anew: %w", have, err)
	}
	return nil, nil
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
	if err := h.ledger.save(h.path); err != nil {
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
	if err := h.ledger.save(h.path); err != nil {
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
		if err := h.nl.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
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
	return h.ledger.save(h.path)
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
