package wireguard

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"sluice/crypto/keys"
)

// device is what runs the protocol behind a link.
type device interface {
	state() (*wgtypes.Device, error)
	configure(wgtypes.Config) error
	// greet starts a handshake with a peer whose endpoint is known, so that a session with a device that has
	// restarted need not wait for the other side to notice (up to 15 s).
	greet(wgtypes.Key)
}

// device returns what runs behind link, and nil where nothing does.
func (d *Driver) device(link netlink.Link) device {
	name := link.Attrs().Name
	if backendOf(link) == Kernel {
		return kernelDevice{name}
	}
	if dev := d.running[name]; dev != nil && dev.alive() {
		return dev
	}
	return nil
}

// kernelDevice speaks generic netlink. A client is made for each call: the family appears only with the module. wgctrl
// also looks into /var/run/wireguard, which all network namespaces share, so it must never be asked for a name that is
// not a kernel link here: it might find another namespace's userspace device.
type kernelDevice struct{ name string }

func (k kernelDevice) state() (*wgtypes.Device, error) {
	c, err := wgctrl.New()
	if err != nil {
		return nil, fmt.Errorf("open WireGuard's netlink family: %w", err)
	}
	defer c.Close()
	dev, err := c.Device(k.name)
	if err != nil {
		return nil, fmt.Errorf("read WireGuard device %s: %w", k.name, err)
	}
	if dev.Type != wgtypes.LinuxKernel {
		return nil, fmt.Errorf("WireGuard device %s is no kernel device", k.name)
	}
	return dev, nil
}

func (k kernelDevice) configure(cfg wgtypes.Config) error {
	if _, err := k.state(); err != nil {
		return err
	}
	c, err := wgctrl.New()
	if err != nil {
		return fmt.Errorf("open WireGuard's netlink family: %w", err)
	}
	defer c.Close()
	return c.ConfigureDevice(k.name, cfg)
}

func (kernelDevice) greet(wgtypes.Key) {}

// writeDevice writes key, port and mark where they differ: writing the same port again would bind anew.
func (d *Driver) writeDevice(dev device, t Tunnel, key keys.Key) error {
	have, err := dev.state()
	if err != nil {
		return err
	}
	var cfg wgtypes.Config
	if secret := wgtypes.Key(key.Bytes()); have.PrivateKey != secret {
		cfg.PrivateKey = &secret
	}
	if port := int(t.ListenPort); port != 0 && have.ListenPort != port {
		cfg.ListenPort = &port
	}
	if mark := int(t.FirewallMark); have.FirewallMark != mark {
		cfg.FirewallMark = &mark
	}
	if cfg.PrivateKey == nil && cfg.ListenPort == nil && cfg.FirewallMark == nil {
		return nil
	}
	return portError(t.ListenPort, dev.configure(cfg))
}

// setDevice writes the fields that differ on a running device.
func (d *Driver) setDevice(link netlink.Link, t Tunnel, f fields) error {
	dev := d.device(link)
	if dev == nil {
		return errNotRunning(t.Name)
	}
	var cfg wgtypes.Config
	if f.key {
		key, err := check(t)
		if err != nil {
			return err
		}
		secret := wgtypes.Key(key.Bytes())
		cfg.PrivateKey = &secret
	}
	if f.port {
		port := int(t.ListenPort)
		cfg.ListenPort = &port
	}
	if f.mark {
		mark := int(t.FirewallMark)
		cfg.FirewallMark = &mark
	}
	if err := dev.configure(cfg); err != nil {
		return portError(t.ListenPort, err)
	}
	d.notes.tunnel(t)
	return nil
}

func errNotRunning(name string) error {
	return fmt.Errorf("tunnel %s is not running: its device has ended, apply again", name)
}

// applyPeer changes one peer and leaves the others alone: the peer list is never replaced, which would cost packets.
func (d *Driver) applyPeer(link netlink.Link, op Op) error {
	dev := d.device(link)
	if dev == nil {
		return errNotRunning(op.tunnel.Name)
	}
	if err := checkPeer(op.tunnel, op.peer); err != nil && op.kind == addPeer {
		return err
	}
	key, err := wgtypes.ParseKey(op.peer.PublicKey)
	if err != nil {
		return fmt.Errorf("public key %q: want 32 bytes in base64", op.peer.PublicKey)
	}
	peer := wgtypes.PeerConfig{PublicKey: key, UpdateOnly: op.kind != addPeer}
	switch op.kind {
	case removePeer:
		peer.Remove = true
		if err := dev.configure(wgtypes.Config{Peers: []wgtypes.PeerConfig{peer}}); err != nil {
			return err
		}
		if n := d.notes[op.tunnel.Name]; n != nil {
			delete(n.peers, op.peer.PublicKey)
		}
		return nil
	case dropAllowed:
		return takePrefixes(dev, op.change.allowed)
	case addPeer:
		op.change = peerChange{
			endpoint: op.peer.Endpoint.IsValid(), keepalive: true, preshared: true, allowed: op.peer.AllowedIPs,
		}
	}
	return d.writePeer(dev, peer, op)
}

func (d *Driver) writePeer(dev device, peer wgtypes.PeerConfig, op Op) error {
	p := op.peer
	peer.AllowedIPs = ipNets(op.change.allowed)
	if op.change.endpoint {
		peer.Endpoint = net.UDPAddrFromAddrPort(p.Endpoint)
	}
	if op.change.keepalive {
		every := p.Keepalive.Truncate(time.Second)
		peer.PersistentKeepaliveInterval = &every
	}
	if op.change.preshared {
		secret := wgtypes.Key{} // clears it
		if p.PresharedKeyFile != "" {
			key, err := keys.Load(p.PresharedKeyFile)
			if err != nil {
				return err
			}
			secret = key.Bytes()
		}
		peer.PresharedKey = &secret
	}
	if err := dev.configure(wgtypes.Config{Peers: []wgtypes.PeerConfig{peer}}); err != nil {
		return err
	}
	d.notes.peer(op.tunnel.Name, p)
	if op.change.endpoint {
		d.notes.configured(op.tunnel.Name, p)
		dev.greet(peer.PublicKey)
	}
	return nil
}

// takePrefixes removes single allowed-ips. The kernel's interface has no such request before 6.16, and replacing a
// peer's list opens a gap for the prefixes that stay. So a peer that exists for one message only takes them over.
func takePrefixes(dev device, list []netip.Prefix) error {
	sink, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		return errors.New("no random bytes for a key")
	}
	pub := sink.PublicKey()
	return dev.configure(wgtypes.Config{Peers: []wgtypes.PeerConfig{
		{PublicKey: pub, AllowedIPs: ipNets(list)},
		{PublicKey: pub, UpdateOnly: true, Remove: true},
	}})
}

// endpointNote is an endpoint that we wrote to a device.
type endpointNote = netip.AddrPort

func (n notes) configured(tunnel string, p Peer) {
	known := n[tunnel].peers[p.PublicKey]
	known.endpoint = p.Endpoint
	n[tunnel].peers[p.PublicKey] = known
}

func ipNets(list []netip.Prefix) []net.IPNet {
	out := make([]net.IPNet, len(list))
	for i, p := range list {
		out[i] = ipNet(p)
	}
	return out
}

func ipNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func encodeKey(k [keys.Size]byte) string { return base64.StdEncoding.EncodeToString(k[:]) }
