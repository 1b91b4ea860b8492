package ipsec

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/crypto/path"
)

// Observe reads the machine: links of ours with their addresses and routes, and states and policies with if_ids of ours.
// What the kernel does not know (names, identities, files of secrets) comes from the tunnel's file, and counts only where
// it agrees: states that are not those which the secret gives make a peer Down.
func (d *Driver) Observe(ctx context.Context) (State, error) {
	if err := ctx.Err(); err != nil {
		return State{}, err
	}
	held, err := d.lookAtCharons(ctx)
	if err != nil {
		return State{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	links, err := d.links.Own()
	if err != nil {
		return State{}, err
	}
	var routes map[int][]path.Route
	var addresses map[int][]netip.Prefix
	if len(links) > 0 { // else whatever is there is no tunnel's of ours
		if routes, err = d.links.Routes(); err != nil {
			return State{}, err
		}
		if addresses, err = d.links.Addresses(); err != nil {
			return State{}, err
		}
	}
	if err := d.look(); err != nil {
		return State{}, err
	}
	byOwner := d.byOwner()
	names, known := map[string]netlink.Link{}, map[uint32]string{}
	for name, t := range d.tunnels {
		known[t.ifID] = name
	}
	for _, l := range links {
		name := l.Attrs().Name
		names[name], known[IfID(name)] = l, name
	}
	for o := range byOwner {
		name := known[o.ifID]
		if name == "" {
			name = nameless(o.ifID)
		}
		if _, ok := names[name]; !ok {
			names[name] = nil // there is no link
		}
	}
	for name := range held.loaded { // charon may be the only one that knows of it
		if _, ok := names[name]; !ok {
			names[name] = nil
		}
	}
	var s State
	for _, name := range slices.Sorted(maps.Keys(names)) {
		t := d.observe(name, names[name], byOwner, held)
		if link := names[name]; link != nil {
			t.Addresses, t.Routes = addresses[link.Attrs().Index], routes[link.Attrs().Index]
		}
		s.Tunnels = append(s.Tunnels, t)
	}
	return s, nil
}

// byOwner returns the policies of everybody who has policies or states.
func (d *Driver) byOwner() map[owner][]policy {
	all := map[owner][]policy{}
	for o, list := range d.seen.states {
		if len(list) > 0 {
			all[o] = nil
		}
	}
	for s, p := range d.seen.policies {
		o := owner{s.ifID, p.reqid}
		all[o] = append(all[o], p)
	}
	return all
}

func (d *Driver) observe(name string, link netlink.Link, byOwner map[owner][]policy, held looks) Tunnel {
	known := d.tunnels[name]
	var t Tunnel
	ifID := unnamed(name)
	if ifID == 0 {
		ifID = IfID(name)
	}
	if known != nil {
		t = known.want
	}
	meant := t.Peers
	t.Name, t.Peers, t.Addresses, t.Routes, t.MTU = name, nil, nil, nil, 0
	t.Down = link == nil || link.Attrs().RawFlags&unix.IFF_UP == 0 || t.udp() && !d.holds(t.Local)
	if link != nil {
		t.MTU = link.Attrs().MTU
	}
	if t.Keying == IKE || known == nil {
		t.Peers = observeIKE(t, meant, held)
	}
	for o, policies := range byOwner {
		// Others' reqids are charon's, which tells of them itself.
		if o.ifID == ifID && isOurs(o.reqid) {
			t.Peers = append(t.Peers, d.observePeer(known, o, policies))
		}
	}
	slices.SortFunc(t.Peers, func(a, b Peer) int { return strings.Compare(a.Name, b.Name) })
	return t
}

// observePeer tells a peer as the kernel has it. A prefix counts as the peer's when it has a policy on any way.
func (d *Driver) observePeer(t *tunnel, o owner, policies []policy) Peer {
	seen := map[netip.Prefix]bool{}
	for _, p := range policies {
		seen[p.prefix] = true
	}
	w := Peer{Name: nameless(o.reqid), Prefixes: slices.SortedFunc(maps.Keys(seen), netip.Prefix.Compare)}
	if t == nil {
		return w
	}
	name, p := t.byReqid(o.reqid)
	if p == nil {
		return w
	}
	w.ID, w.SecretFile, w.Endpoint, w.Name = p.want.ID, p.want.SecretFile, p.want.Endpoint, name
	judged := *p
	derived, from, err := p.derive(t.want, p.want)
	d.fault(t, p, err)
	if err == nil {
		// What runs goes on with the keys that it has until a step says otherwise: to look changes nothing.
		if judged.directions = derived; p.directions == nil {
			t.key(p, derived, from)
		}
	}
	if judged.directions == nil {
		return w
	}
	st := d.take(t, &judged)
	if judged.directions == p.directions {
		p.live = st.epoch
	}
	if len(policies) > 0 {
		d.stand(p)
	}
	for _, have := range policies { // what an earlier process has placed
		if _, ok := d.placed[have.key()]; !ok {
			d.placed[have.key()] = have
		}
	}
	w.Down = st.live == nil || len(st.missing) > 0 || !d.stands(t, p, w.Prefixes)
	return w
}

// fault tells once why a peer's keys cannot be had: after a restart nobody looks after it then.
func (d *Driver) fault(t *tunnel, p *peer, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && text != p.fault {
		d.log.Warn("the keys of an IPsec peer cannot be had: its epochs are not kept until they can", "tunnel", t.want.Name, "peer", p.want.Name, "error", err)
	}
	p.fault = text
}

// stands says whether each prefix has its policies, as they should be.
func (d *Driver) stands(t *tunnel, p *peer, prefixes []netip.Prefix) bool {
	full := *p
	full.want.Prefixes = prefixes
	for _, want := range t.policies(&full) {
		if d.seen.policies[want.key()] != want {
			return false
		}
	}
	return true
}

func (t *tunnel) byReqid(reqid uint32) (string, *peer) {
	for name, p := range t.peers {
		if p.reqid == reqid {
			return name, p
		}
	}
	return "", nil
}
