package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"sluice/tests/bench/lane"
)

// hub is a node with many peers and the network that they are in: every peer has an address there. Those that do not live are in
// a black hole.
type hub struct {
	box, out *lane.Namespace
	size     Size
	keys     []key // of the hub's tunnels
	peers    []hubPeer
	far      []*farEnd
	old      netip.Prefix // of the peer that moved last
	moved    int
}

// hubPeer is one peer of a hub.
type hubPeer struct {
	tunnel int
	public string // base64
	at     netip.AddrPort
	prefix netip.Prefix // behind it; its first address answers probes, where the peer lives
}

const hubUplink = "uplink"

var (
	hubAddress = netip.MustParsePrefix("198.18.0.1/30")
	outAddress = netip.MustParsePrefix("198.18.0.2/30")
	hubPeers   = netip.MustParsePrefix("198.19.0.0/16")
)

func hubTunnel(n int) string { return fmt.Sprintf("tun%d", n) }
func hubPort(n int) uint16   { return uint16(wireguardPort + n) }

// newHub makes the network of a hub and the keys of all. With live its peers are there, too.
func (w *workshop) newHub(ctx context.Context, size Size, live bool) (_ *hub, err error) {
	h := &hub{size: size}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("make a hub: %w", err), h.Close())
		}
	}()
	for _, n := range []**lane.Namespace{&h.box, &h.out} {
		if *n, err = lane.NewNamespace(); err != nil {
			return nil, err
		}
	}
	if err := h.wire(ctx, live); err != nil {
		return nil, err
	}
	for range size.Tunnels {
		k, err := w.newKey()
		if err != nil {
			return nil, err
		}
		h.keys = append(h.keys, k)
	}
	for i := range size.Tunnels * size.Peers {
		p := hubPeer{
			tunnel: i / size.Peers,
			at:     netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 19, byte(i >> 8), byte(i)}), wireguardPort),
			prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24),
		}
		if live {
			far, err := newFarEnd(h.out, p.at, h.keys[p.tunnel].public)
			if err != nil {
				return nil, err
			}
			h.far, p.public = append(h.far, far), far.public
		} else if p.public, err = somePublicKey(); err != nil {
			return nil, err
		}
		h.peers = append(h.peers, p)
	}
	return h, nil
}

func somePublicKey() (string, error) {
	k, err := wgtypes.GeneratePrivateKey()
	return k.PublicKey().String(), err
}

// wire joins both namespaces.
func (h *hub) wire(ctx context.Context, live bool) error {
	if err := h.box.Do(func() error { return lane.AddVeth(hubUplink, "out", h.out) }); err != nil {
		return err
	}
	kind := "blackhole"
	if live {
		kind = "local"
	}
	peers := "route add " + kind + " " + hubPeers.String()
	if live {
		peers += " dev lo"
	}
	for _, c := range []struct {
		in   *lane.Namespace
		args string
	}{
		{h.box, "link set lo up"}, {h.box, "address add " + hubAddress.String() + " dev " + hubUplink}, {h.box, "link set " + hubUplink + " up"},
		{h.out, "link set lo up"}, {h.out, "address add " + outAddress.String() + " dev out"}, {h.out, "link set out up"}, {h.out, peers},
		{h.box, "route add " + hubPeers.String() + " via " + outAddress.Addr().String()},
	} {
		if _, err := c.in.Run(ctx, "", "ip", strings.Fields(c.args)...); err != nil {
			return err
		}
	}
	return nil
}

// Close takes it away.
func (h *hub) Close() error {
	for _, f := range h.far {
		f.Close()
	}
	var errs []error
	for _, n := range []*lane.Namespace{h.box, h.out} {
		if n != nil {
			errs = append(errs, n.Close())
		}
	}
	return errors.Join(errs...)
}

// traits are what a file says of its peers beside who they are.
type traits struct {
	keepalive string // as in the file; "": none
	probes    bool   // once a second, each
	hidden    bool   // no endpoints: a peer calls first
}

// sluiceFile is the hub's configuration for Sluice, with its tunnels or without.
func (h *hub) sluiceFile(t traits, tunnels bool) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "node: {name: hub}\ninterfaces:\n  - {name: %s, role: uplink, addresses: [%s]}\nroutes: [{prefix: %s, via: [%s]}]\n",
		hubUplink, hubAddress, hubPeers, outAddress.Addr())
	if !tunnels {
		return []byte(b.String())
	}
	b.WriteString("tunnels:\n")
	for n, k := range h.keys {
		fmt.Fprintf(&b, "  - name: %s\n    type: wireguard\n    local: {address: %s, port: %d}\n    addresses: [%s]\n", hubTunnel(n), hubAddress.Addr(), hubPort(n), h.inner(n))
		fmt.Fprintf(&b, "    wireguard: {backend: userspace, private_key_file: %s}\n", k.file)
		if t.probes {
			b.WriteString("    health: {interval: 1s}\n")
		}
		b.WriteString("    peers:\n")
		for i, p := range h.peers {
			if p.tunnel != n {
				continue
			}
			fmt.Fprintf(&b, "      - name: peer-%d\n        public_keys: [%s]\n        prefixes: [%s]\n", i, p.public, p.prefix)
			if !t.hidden {
				fmt.Fprintf(&b, "        endpoints: [\"%s\"]\n", p.at)
			}
			if t.keepalive != "" {
				fmt.Fprintf(&b, "        keepalive: %s\n", t.keepalive)
			}
			if t.probes {
				fmt.Fprintf(&b, "        probe: %s\n", p.prefix.Addr().Next())
			}
		}
	}
	return []byte(b.String())
}

// inner is the hub's own address in a tunnel.
func (h *hub) inner(n int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 200, byte(n), 1}), 32)
}

// wgFile is a tunnel's configuration for wg(8).
func (h *hub) wgFile(n int, private string, keepalive string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "[Interface]\nPrivateKey = %s\nListenPort = %d\n", private, hubPort(n))
	for _, p := range h.peers {
		if p.tunnel != n {
			continue
		}
		fmt.Fprintf(&b, "[Peer]\nPublicKey = %s\nEndpoint = %s\nAllowedIPs = %s\n", p.public, p.at, p.prefix)
		if keepalive != "" {
			fmt.Fprintf(&b, "PersistentKeepalive = %s\n", strings.TrimSuffix(keepalive, "s"))
		}
	}
	return []byte(b.String())
}

// move gives a peer another prefix, or its own back: what is measured as the change of one peer.
func (h *hub) move(i int) {
	p := &h.peers[i]
	h.moved, h.old = i, p.prefix
	a := p.prefix.Addr().As4()
	a[1] ^= 64
	p.prefix = netip.PrefixFrom(netip.AddrFrom4(a), p.prefix.Bits())
}

func (w *workshop) sluice() string { return filepath.Join(w.dir, "sluice") }
