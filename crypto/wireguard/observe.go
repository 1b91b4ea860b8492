package wireguard

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"sluice/crypto/keys"
)

// Observe reads the machine: links of ours, what runs behind them, their addresses and routes, and all blackholes of
// ours. Two things come from notes, where we have them: names, which no device keeps, and the endpoint that we
// configured, in place of the one to which a peer has roamed since.
func (d *Driver) Observe(ctx context.Context) (State, error) {
	if err := ctx.Err(); err != nil {
		return State{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	links, err := d.links()
	if err != nil {
		return State{}, err
	}
	routes, holes, err := d.ownRoutes()
	if err != nil {
		return State{}, err
	}
	var s State
	for _, link := range links {
		t, err := d.observe(link)
		if err != nil {
			return State{}, err
		}
		t.Routes = routes[link.Attrs().Index]
		holes = takeHoles(&t, holes)
		s.Tunnels = append(s.Tunnels, t)
	}
	if len(holes) > 0 {
		// Sorts first: the name is empty.
		s.Tunnels = slices.Insert(s.Tunnels, 0, Tunnel{Blackholes: holes})
	}
	return s, nil
}

// takeHoles gives t the blackholes behind its routes, and returns the rest.
func takeHoles(t *Tunnel, holes []netip.Prefix) (rest []netip.Prefix) {
	for _, p := range holes {
		if slices.ContainsFunc(t.Routes, func(r Route) bool { return r.Prefix == p }) {
			t.Blackholes = append(t.Blackholes, p)
		} else {
			rest = append(rest, p)
		}
	}
	return rest
}

// links returns the links of ours, by name.
func (d *Driver) links() ([]netlink.Link, error) {
	all, err := d.nl.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	links := slices.DeleteFunc(all, func(l netlink.Link) bool { return !isOurs(l) })
	slices.SortFunc(links, func(a, b netlink.Link) int { return strings.Compare(a.Attrs().Name, b.Attrs().Name) })
	return links, nil
}

func (d *Driver) observe(link netlink.Link) (Tunnel, error) {
	a := link.Attrs()
	t := Tunnel{Name: a.Name, Backend: backendOf(link), MTU: a.MTU}
	var err error
	if t.Addresses, err = d.addresses(link); err != nil {
		return Tunnel{}, err
	}
	if n := d.notes[a.Name]; n != nil {
		t.PrivateKeyFile = n.keyFile
	}
	dev := d.device(link)
	t.Down = dev == nil || a.RawFlags&unix.IFF_UP == 0
	if dev == nil {
		return t, nil
	}
	have, err := dev.state()
	if err != nil {
		return Tunnel{}, err
	}
	if have.PrivateKey != (wgtypes.Key{}) {
		t.PublicKey = encodeKey(have.PublicKey)
	}
	t.ListenPort, t.FirewallMark = uint16(have.ListenPort), uint32(have.FirewallMark)
	for _, p := range have.Peers {
		t.Peers = append(t.Peers, d.observePeer(a.Name, p))
	}
	slices.SortFunc(t.Peers, func(a, b Peer) int { return strings.Compare(a.PublicKey, b.PublicKey) })
	return t, nil
}

func (d *Driver) observePeer(tunnel string, p wgtypes.Peer) Peer {
	out := Peer{
		PublicKey:  encodeKey(p.PublicKey),
		Endpoint:   endpointOf(p),
		Keepalive:  p.PersistentKeepaliveInterval,
		AllowedIPs: allowedOf(p),
	}
	note := d.notes.of(tunnel, out.PublicKey)
	out.Name = note.name
	if note.endpoint.IsValid() && out.Endpoint.IsValid() {
		out.Endpoint = note.endpoint
	}
	if p.PresharedKey != (wgtypes.Key{}) {
		out.PresharedKeyFile = UnknownKey
		if holds(note.presharedFile, p.PresharedKey) {
			out.PresharedKeyFile = note.presharedFile
		}
	}
	return out
}

// holds says whether file is a readable key file with this key: a note counts only while the device agrees with it.
func holds(file string, key wgtypes.Key) bool {
	if file == "" {
		return false
	}
	k, err := keys.Load(file)
	return err == nil && k.Bytes() == key
}

func endpointOf(p wgtypes.Peer) netip.AddrPort {
	if p.Endpoint == nil {
		return netip.AddrPort{}
	}
	ap := p.Endpoint.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

func allowedOf(p wgtypes.Peer) []netip.Prefix {
	var out []netip.Prefix
	for _, n := range p.AllowedIPs {
		if prefix, ok := prefixOf(&n); ok {
			out = append(out, prefix)
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return out
}
