package wireguard

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// kernelDevice speaks generic netlink.
type kernelDevice struct {
	d    *Driver
	name string
}

// ask calls f with a client in the driver's namespace. One is made for each call: the family appears only with the module.
// wgctrl also looks into /var/run/wireguard, which all network namespaces share, so it must never be asked for a name that
// was not a kernel link here a moment ago: it might find another namespace's userspace device.
func (k kernelDevice) ask(f func(*wgctrl.Client) error) error {
	return k.d.inside(func() error {
		c, err := wgctrl.New()
		if err != nil {
			return fmt.Errorf("open WireGuard's netlink family: %w", err)
		}
		defer c.Close()
		return f(c)
	})
}

func (k kernelDevice) state() (dev *wgtypes.Device, err error) {
	err = k.ask(func(c *wgctrl.Client) (err error) {
		dev, err = c.Device(k.name)
		return err
	})
	if err == nil && dev.Type != wgtypes.LinuxKernel {
		err = errors.New("it is no kernel device")
	}
	if err != nil {
		return nil, fmt.Errorf("read WireGuard device %s: %w", k.name, err)
	}
	return dev, nil
}

// configure may become several messages. wgctrl then writes preshared key, endpoint and keepalive only with the first
// entry of a public key: no list of more than 32 entries may have a second one that needs them.
func (k kernelDevice) configure(cfg wgtypes.Config) error {
	return k.ask(func(c *wgctrl.Client) error { return c.ConfigureDevice(k.name, cfg) })
}

// configureEach goes on after an error, for a later list may put back what an earlier one took.
func (k kernelDevice) configureEach(lists ...[]wgtypes.PeerConfig) error {
	return k.ask(func(c *wgctrl.Client) error {
		var failed []error
		for _, peers := range lists {
			failed = append(failed, c.ConfigureDevice(k.name, wgtypes.Config{Peers: peers}))
		}
		return errors.Join(failed...)
	})
}

// messagePrefixes is how many allowed-ips wgctrl sends in one message; with more it makes a message of each entry.
const messagePrefixes = 256

// greet makes silent peers anew: the kernel's device has no other way to forget when it tried last.
func (k kernelDevice) greet(list ...wgtypes.Key) error {
	have, err := k.state()
	if err != nil {
		return err
	}
	var calls [][]wgtypes.PeerConfig
	for _, p := range have.Peers {
		if p.Endpoint == nil || time.Since(p.LastHandshakeTime) < sessionLife || !slices.Contains(list, p.PublicKey) {
			continue
		}
		peers := []wgtypes.PeerConfig{
			{PublicKey: p.PublicKey, UpdateOnly: true, Remove: true},
			{
				PublicKey: p.PublicKey, PresharedKey: &p.PresharedKey, Endpoint: p.Endpoint,
				PersistentKeepaliveInterval: &p.PersistentKeepaliveInterval, AllowedIPs: p.AllowedIPs,
			},
		}
		if len(p.AllowedIPs) <= messagePrefixes {
			calls = append(calls, peers)
			continue
		}
		calls = append(calls, peers[:1], peers[1:])
	}
	if len(calls) == 0 {
		return nil
	}
	return k.configureEach(calls...)
}

// poke uses that the kernel sends an empty packet when a peer's keepalive is switched on.
func (k kernelDevice) poke(list ...wgtypes.Key) error {
	have, err := k.state()
	if err != nil {
		return err
	}
	calls := make([][]wgtypes.PeerConfig, 3) // off, on, as it was
	for _, p := range have.Peers {
		if p.Endpoint == nil || !slices.Contains(list, p.PublicKey) {
			continue
		}
		off, on := time.Duration(0), max(p.PersistentKeepaliveInterval, time.Second)
		for i, every := range []*time.Duration{&off, &on, &p.PersistentKeepaliveInterval} {
			calls[i] = append(calls[i], wgtypes.PeerConfig{PublicKey: p.PublicKey, UpdateOnly: true, PersistentKeepaliveInterval: every})
		}
	}
	if len(calls[0]) == 0 {
		return nil
	}
	return k.configureEach(calls...)
}

func (k kernelDevice) local() (netip.Addr, error) { return netip.Addr{}, nil }
func (k kernelDevice) setLocal(netip.Addr) error  { return nil }
func (k kernelDevice) look() error                { return nil }

func (k kernelDevice) hold() error    { return k.d.plug(k.name) }
func (k kernelDevice) release() error { return k.d.unplug(k.name) }

// sessionLife is REJECT_AFTER_TIME of the protocol: so long after its handshake a session is over.
const sessionLife = 180 * time.Second
