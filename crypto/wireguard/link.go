package wireguard

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/crypto/keys"
	"sluice/crypto/path"
	"sluice/netprobe"
)

// defaultMTU holds WireGuard's overhead over IPv6 on an underlay of 1500 bytes.
const defaultMTU = 1420

// isOurs looks at the type as well: other owners of links may use the same form of alias.
func isOurs(link netlink.Link) bool {
	a := link.Attrs()
	return a.Alias == path.Alias(a.Name) && backendOf(link) != ""
}

func backendOf(link netlink.Link) Backend {
	switch link.Type() {
	case "wireguard":
		return Kernel
	case "tuntap":
		return Userspace
	}
	return ""
}

// ensure makes the tunnel's device run on a link of ours, adopting the link that is there. When it fails on a link that
// it made itself, that link goes again; an adopted one stays, because its routes keep traffic from leaking.
func (d *Driver) ensure(t Tunnel) error {
	key, err := check(t)
	if err != nil {
		return err
	}
	link, err := path.Lookup(d.nl, t.Name)
	if err != nil {
		return err
	}
	if link != nil && !isOurs(link) {
		return path.Foreign(t.Name)
	}
	if link != nil && needsReplacing(Tunnel{Backend: backendOf(link)}, t) {
		if err := d.remove(t.Name); err != nil {
			return err
		}
		link = nil
	}
	made := link == nil
	if made {
		if link, err = d.create(t); err != nil {
			return err
		}
	}
	if err := d.start(link, t, key); err != nil {
		if made {
			err = errors.Join(err, d.remove(t.Name))
		}
		return err
	}
	d.notes.tunnel(t)
	return nil
}

// check finds what would make a device useless or its errors obscure, before anything is touched. It returns the key.
func check(t Tunnel) (keys.Key, error) {
	if len(t.Name) >= unix.IFNAMSIZ || t.Name == "" {
		return keys.Key{}, fmt.Errorf("name %q: an interface name has 1 to %d bytes", t.Name, unix.IFNAMSIZ-1)
	}
	key, err := keys.Load(t.PrivateKeyFile)
	if err != nil {
		return keys.Key{}, err
	}
	pub, err := key.PublicKey()
	if err != nil {
		return keys.Key{}, err
	}
	if t.PublicKey == "" { // the file can be read since
		t.PublicKey = pub
	}
	if pub != t.PublicKey {
		return keys.Key{}, fmt.Errorf("%s holds the key of %s, but %q was planned: the file changed meanwhile, apply again",
			t.PrivateKeyFile, pub, t.PublicKey)
	}
	for _, p := range t.Peers {
		if err := checkPeer(t, p); err != nil {
			return keys.Key{}, err
		}
	}
	return key, nil
}

// checkPeer refuses a peer with the tunnel's own key: both backends would ignore it without a word.
func checkPeer(t Tunnel, p Peer) error {
	if p.PublicKey == t.PublicKey {
		return fmt.Errorf("peer %s has the public key of tunnel %s itself: use the peer's own key", p.Name, t.Name)
	}
	return nil
}

// create makes the link and marks it as ours. Backend Auto takes the kernel's module where there is one.
func (d *Driver) create(t Tunnel) (netlink.Link, error) {
	// A process that is left of a link that is gone ends by itself, and what it answers meanwhile is not to be believed.
	if err := d.drop(t.Name); err != nil {
		return nil, err
	}
	if t.Backend == Userspace {
		return d.createTUN(t, "the configuration asks for it")
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = t.Name, mtuOf(t)
	err := d.nl.LinkAdd(&netlink.Wireguard{LinkAttrs: attrs})
	if errors.Is(err, unix.EOPNOTSUPP) {
		if t.Backend == Kernel {
			return nil, fmt.Errorf("%w: load it, or set wireguard.backend to auto or userspace", ErrNoModule)
		}
		return d.createTUN(t, ErrNoModule.Error())
	}
	if err != nil {
		return nil, fmt.Errorf("create interface %s: %w", t.Name, err)
	}
	link, err := d.mark(t, Kernel, "the kernel's module is there")
	if err != nil {
		return nil, err
	}
	if err := d.standPlug(t.Name); err != nil {
		return nil, errors.Join(err, d.links.Delete(link))
	}
	return link, nil
}

// mark sets what makes a new link ours.
func (d *Driver) mark(t Tunnel, b Backend, why string) (netlink.Link, error) {
	link, err := path.Lookup(d.nl, t.Name)
	if err != nil || link == nil {
		return nil, errors.Join(fmt.Errorf("interface %s went away while it was made", t.Name), err)
	}
	if err := path.Claim(d.nl, link, mtuOf(t)); err != nil {
		return nil, errors.Join(fmt.Errorf("set up interface %s: %w", t.Name, err), d.links.Delete(link))
	}
	d.log.Info("tunnel interface made", "tunnel", t.Name, "backend", string(b), "why", why)
	return d.links.Find(t.Name)
}

// start brings the link up and writes the device's attributes, each only where it differs.
func (d *Driver) start(link netlink.Link, t Tunnel, key keys.Key) error {
	if t.MTU != 0 && link.Attrs().MTU != t.MTU {
		if err := d.nl.LinkSetMTU(link, t.MTU); err != nil {
			return fmt.Errorf("set MTU %d: %w", t.MTU, err)
		}
	}
	if backendOf(link) == Userspace {
		return d.startUserspace(link, t, key)
	}
	if err := d.writeDevice(kernelDevice{d, t.Name}, t, key); err != nil {
		return err
	}
	// The kernel binds the port when the link comes up.
	if err := d.nl.LinkSetUp(link); err != nil {
		return portError(t.ListenPort, err)
	}
	return nil
}

// remove ends the device and deletes its link, and with it its peers, addresses and routes.
func (d *Driver) remove(name string) error {
	link, err := path.Lookup(d.nl, name)
	if err != nil {
		return err
	}
	if link != nil && !isOurs(link) {
		return path.Foreign(name)
	}
	if err := d.drop(name); err != nil {
		return err
	}
	delete(d.notes, name)
	d.identities.Delete(name)
	if link == nil {
		return nil
	}
	if err := d.links.Delete(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete interface %s: %w", name, err)
	}
	return nil
}

func mtuOf(t Tunnel) int {
	if t.MTU == 0 {
		return defaultMTU
	}
	return t.MTU
}

func portError(port uint16, err error) error {
	if errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("%w: %d; change local.port of the tunnel, or stop the program that listens there", ErrPortInUse, port)
	}
	return err
}

// KernelSupported says whether the kernel can make links of type wireguard, by making one where nobody sees it. The module is
// loaded by that.
func KernelSupported(ctx context.Context) (bool, error) {
	yes, err := netprobe.Try(ctx, kernelSupported)
	if err != nil {
		return false, fmt.Errorf("probe for WireGuard: %w", err)
	}
	return yes, nil
}

func kernelSupported(nl *netlink.Handle) (bool, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "probe"
	err := nl.LinkAdd(&netlink.Wireguard{LinkAttrs: attrs})
	if errors.Is(err, unix.EOPNOTSUPP) {
		return false, nil
	}
	return err == nil, err
}
