package wireguard

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"sluice/crypto/keys"
	"sluice/crypto/path"
	"sluice/crypto/wireguard/child"
	"sluice/process"
)

// Observe reads the machine: links of ours, what runs behind them, their addresses and routes. Two things come from
// notes, where we have them: names, which no device keeps, and the endpoint that we configured, in place of the one to
// which a peer has roamed since.
func (d *Driver) Observe(ctx context.Context) (State, error) {
	if err := ctx.Err(); err != nil {
		return State{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	links, err := d.links.Own()
	if err != nil {
		return State{}, err
	}
	d.releaseLeft(links)
	addresses, err := d.links.Addresses()
	if err != nil {
		return State{}, err
	}
	var routes map[int][]path.Route
	var dump errgroup.Group // beside the devices, whose processes answer meanwhile
	dump.Go(func() (err error) {
		routes, err = d.links.Routes()
		return err
	})
	devices := d.read(links)
	var s State
	for i, link := range links {
		t, failed := d.observe(link, devices[i])
		err = errors.Join(err, failed)
		s.Tunnels = append(s.Tunnels, t)
	}
	if err := errors.Join(dump.Wait(), err); err != nil {
		return State{}, err
	}
	for i, link := range links {
		index := link.Attrs().Index
		s.Tunnels[i].Addresses, s.Tunnels[i].Routes = addresses[index], routes[index]
	}
	return s, nil
}

// reading is what a device says; dev is nil where nothing runs.
type reading struct {
	dev     device
	adopted *child.Client // that of dev, where an earlier daemon left it
	have    *wgtypes.Device
	local   netip.Addr
	err     error
}

// read asks all devices, and meets the processes that an earlier daemon left, at once: any number that stand still take no longer
// than one. It joins no question of Status, whose answer may be from before the last step. The caller holds d.mu.
func (d *Driver) read(links []netlink.Link) []reading {
	out := make([]reading, len(links))
	var asking sync.WaitGroup
	for i, link := range links {
		r, name := &out[i], link.Attrs().Name
		if backendOf(link) == Kernel {
			r.dev = kernelDevice{d, name}
			r.ask()
			continue
		}
		asking.Go(func() {
			if r.meet(d, name); r.dev != nil {
				r.ask()
			}
		})
	}
	asking.Wait()
	for i, link := range links {
		if c := out[i].adopted; c != nil {
			d.keep(link.Attrs().Name, c)
		}
	}
	return out
}

// meet finds the process of a userspace tunnel. It runs beside those of other tunnels, and so writes nothing of the driver: keep is for later.
func (r *reading) meet(d *Driver, name string) {
	if p := d.children[name]; p != nil && p.Alive() {
		r.dev = &userDevice{d, name, p.Client}
		return
	}
	c, err := d.adopt(name)
	if err == nil {
		r.dev, r.adopted = &userDevice{d, name, c}, c
	} else if !errors.Is(err, process.ErrNone) {
		r.err = err
	}
}

// ask finds nothing running where the process ends meanwhile.
func (r *reading) ask() {
	if r.have, r.err = r.dev.state(); r.err == nil {
		r.local, r.err = r.dev.local()
	}
	if errors.Is(r.err, process.ErrNone) {
		r.dev, r.err = nil, nil
	}
}

func (d *Driver) observe(link netlink.Link, r reading) (Tunnel, error) {
	a := link.Attrs()
	t := Tunnel{Name: a.Name, Backend: backendOf(link), MTU: a.MTU}
	if n := d.notes[a.Name]; n != nil {
		t.PrivateKeyFile = n.keyFile
	}
	t.Down = r.dev == nil || a.RawFlags&unix.IFF_UP == 0
	if r.err != nil || r.dev == nil {
		return t, r.err
	}
	have := r.have
	if have.PrivateKey != (wgtypes.Key{}) {
		t.PublicKey = encodeKey(have.PublicKey)
	}
	if before, changing := d.rotating[a.Name]; changing {
		t.PublicKey = before // nobody is to set it back meanwhile
	}
	t.ListenPort, t.FirewallMark, t.Local = uint16(have.ListenPort), uint32(have.FirewallMark), r.local
	for _, p := range have.Peers {
		t.Peers = append(t.Peers, d.observePeer(a.Name, p))
	}
	slices.SortFunc(t.Peers, func(a, b Peer) int { return strings.Compare(a.PublicKey, b.PublicKey) })
	d.paths.Lock()
	defer d.paths.Unlock()
	d.carried[a.Name] = t
	return t, nil
}

func (d *Driver) observePeer(tunnel string, p wgtypes.Peer) Peer {
	out := Peer{
		PublicKey:  encodeKey(p.PublicKey),
		Endpoint:   endpointOf(p),
		Keepalive:  p.PersistentKeepaliveInterval,
		AllowedIPs: allowedOf(p),
	}
	d.notes.saw(tunnel, p)
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
		if prefix, ok := path.PrefixOf(&n); ok {
			out = append(out, prefix)
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return out
}
