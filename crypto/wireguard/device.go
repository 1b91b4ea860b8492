package wireguard

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"sluice/crypto/keys"
	"sluice/crypto/path"
	"sluice/process"
)

// device is what runs the protocol behind a link.
type device interface {
	state() (*wgtypes.Device, error)
	configure(wgtypes.Config) error
	// local is the address that packets come from which answer none; the kernel's device knows none.
	local() (netip.Addr, error)
	setLocal(netip.Addr) error
	// greet tells that the way to peers whose endpoint is known is another one: those without a session get a
	// handshake at once, and not 5 s after the last try.
	greet(...wgtypes.Key) error
	// look tells that links or addresses may be others: all peers are greeted where the local address may be used again, or no
	// longer.
	look() error
	// poke sends peers an empty packet, which begins a session where there is none.
	poke(...wgtypes.Key) error
	// hold keeps what is sent into the tunnel waiting until release; a hold that is forgotten may end by itself.
	hold() error
	release() error
}

// device returns what runs behind link, and nil where nothing does.
func (d *Driver) device(link netlink.Link) (device, error) {
	name := link.Attrs().Name
	if backendOf(link) == Kernel {
		return kernelDevice{d, name}, nil
	}
	c, err := d.child(name)
	if errors.Is(err, process.ErrNone) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &userDevice{d, name, c}, nil
}

// running is device, where its lack is an error.
func (d *Driver) running(link netlink.Link) (device, error) {
	dev, err := d.device(link)
	if err == nil && dev == nil {
		err = errNotRunning(link.Attrs().Name)
	}
	return dev, err
}

// writeDevice writes key, port and mark where they differ: writing the same port again would bind anew.
func (d *Driver) writeDevice(dev device, t Tunnel, key keys.Key) error {
	have, err := dev.state()
	if err != nil {
		return err
	}
	if err := dev.setLocal(t.Local); err != nil {
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
	dev, err := d.running(link)
	if err != nil {
		return err
	}
	if f.local {
		if err := dev.setLocal(t.Local); err != nil {
			return err
		}
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

// addPeers adds peers in one request, with one entry each: see kernelDevice.configure.
func (d *Driver) addPeers(link netlink.Link, op Op) error {
	dev, err := d.running(link)
	if err != nil {
		return err
	}
	var list []wgtypes.PeerConfig
	var reachable []wgtypes.Key
	for _, p := range op.peers {
		if err := checkPeer(op.tunnel, p); err != nil {
			return err
		}
		if !p.Endpoint.IsValid() {
			p.Endpoint = d.notes.of(op.tunnel.Name, p.PublicKey).seen
		}
		all := peerChange{endpoint: p.Endpoint.IsValid(), keepalive: true, preshared: true, allowed: p.AllowedIPs}
		cfg, err := peerConfig(p, all)
		if err != nil {
			return err
		}
		if list = append(list, cfg); all.endpoint {
			reachable = append(reachable, cfg.PublicKey)
		}
	}
	if err := dev.configure(wgtypes.Config{Peers: list}); err != nil {
		return err
	}
	for _, p := range op.peers {
		d.notes.peer(op.tunnel.Name, p)
		d.notes.configured(op.tunnel.Name, p)
	}
	// A session with a device that has restarted need not wait for the other side to notice (up to 15 s). No greeting: one
	// right behind the handshake that a keepalive begins would be taken for a flood, and the first be forgotten.
	if len(reachable) > 0 {
		return dev.poke(reachable...)
	}
	return nil
}

// applyPeer changes one peer and leaves the others alone: the peer list is never replaced, which would cost packets.
func (d *Driver) applyPeer(link netlink.Link, op Op) error {
	dev, err := d.running(link)
	if err != nil {
		return err
	}
	if op.kind == dropAllowed {
		return takePrefixes(dev, op.change.allowed)
	}
	cfg, err := peerConfig(op.peer, op.change)
	if err != nil {
		return err
	}
	cfg.UpdateOnly, cfg.Remove = true, op.kind == removePeer
	if err := dev.configure(wgtypes.Config{Peers: []wgtypes.PeerConfig{cfg}}); err != nil {
		return err
	}
	if cfg.Remove {
		if n := d.notes[op.tunnel.Name]; n != nil {
			delete(n.peers, op.peer.PublicKey)
		}
		return nil
	}
	d.notes.peer(op.tunnel.Name, op.peer)
	if op.change.endpoint {
		d.notes.configured(op.tunnel.Name, op.peer)
		return d.lead(dev, op)
	}
	// A peer that changes its key waits to hear that its new one has the prefixes.
	if len(op.change.allowed) > 0 {
		return dev.poke(cfg.PublicKey)
	}
	return nil
}

// peerConfig is what a change says of p; it reads p's preshared key.
func peerConfig(p Peer, change peerChange) (wgtypes.PeerConfig, error) {
	key, err := wgtypes.ParseKey(p.PublicKey)
	if err != nil {
		return wgtypes.PeerConfig{}, fmt.Errorf("public key %q: want 32 bytes in base64", p.PublicKey)
	}
	cfg := wgtypes.PeerConfig{PublicKey: key, AllowedIPs: ipNets(change.allowed)}
	if change.endpoint {
		cfg.Endpoint = net.UDPAddrFromAddrPort(p.Endpoint)
	}
	if change.keepalive {
		every := p.Keepalive.Truncate(time.Second)
		cfg.PersistentKeepaliveInterval = &every
	}
	if change.preshared {
		secret := wgtypes.Key{} // clears it
		if p.PresharedKeyFile != "" {
			key, err := keys.Load(p.PresharedKeyFile)
			if err != nil {
				return wgtypes.PeerConfig{}, err
			}
			secret = key.Bytes()
		}
		cfg.PresharedKey = &secret
	}
	return cfg, nil
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

// saw remembers the endpoint in use of a peer that is known, and when it was heard.
func (n notes) saw(tunnel string, p wgtypes.Peer) {
	t, key, at := n[tunnel], encodeKey(p.PublicKey), endpointOf(p)
	if t == nil || !at.IsValid() {
		return
	}
	known, ok := t.peers[key]
	if !ok || known.seen == at && known.received == p.ReceiveBytes {
		return
	}
	if known.seen = at; known.received != p.ReceiveBytes {
		known.received, known.heard = p.ReceiveBytes, time.Now()
	}
	t.peers[key] = known
}

func ipNets(list []netip.Prefix) []net.IPNet {
	out := make([]net.IPNet, len(list))
	for i, p := range list {
		out[i] = path.IPNet(p)
	}
	return out
}

func encodeKey(k [keys.Size]byte) string { return base64.StdEncoding.EncodeToString(k[:]) }
