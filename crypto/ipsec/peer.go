package ipsec

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// setPeer brings states and policies of a peer to what is wanted; what fits stays as it is, sequence numbers included.
func (d *Driver) setPeer(ctx context.Context, t *tunnel, w Peer) error {
	if t.want.Keying == IKE {
		return d.setIKE(ctx, t, w)
	}
	if err := d.leave(ctx, t, w.Name, nil); err != nil {
		return err
	}
	if !w.Endpoint.Addr().IsValid() || w.Endpoint.Addr().Is4() != t.want.Local.Addr().Is4() {
		return fmt.Errorf("the endpoint %s and the local address %s are of different families", w.Endpoint.Addr(), t.want.Local.Addr())
	}
	p := t.peers[w.Name]
	if p == nil {
		return fmt.Errorf("%s has no peer %s", t.want.Name, w.Name)
	}
	derived, from, err := p.derive(t.want, w)
	if err != nil {
		return err
	}
	if err := d.ambiguous(t, w, derived); err != nil {
		return err
	}
	if p.want.Endpoint != w.Endpoint {
		d.aim(t, p, w.Endpoint)
	}
	p.want = w
	t.key(p, derived, from)
	// States before policies: what is encrypted at once finds its key.
	// A full disk is no reason to stop there: with policies and no state nothing leaves in clear, and the keeper tries again.
	if err := d.settle(t, p, false); err != nil && !errors.Is(err, errUnwritten) {
		return err
	}
	for _, want := range t.policies(p) {
		if err := d.place(want); err != nil {
			return err
		}
	}
	d.expected = time.Now() // whoever was not found before may be now
	d.stand(p)
	return nil
}

// place puts a policy into the kernel, unless it is there.
func (d *Driver) place(want policy) error {
	if d.seen.policies[want.key()] != want {
		if err := d.xfrm.setPolicy(want); err != nil {
			return explain(fmt.Errorf("set IPsec policy for %s: %w", want.prefix, err))
		}
	}
	d.seen.policies[want.key()], d.placed[want.key()] = want, want
	return nil
}

// replace puts policies back that somebody else has taken: a daemon for IKE flushes all that there are, when it ends.
func (d *Driver) replace() error {
	var failed []error
	for key, want := range d.placed {
		if d.seen.policies[key] != want {
			d.log.Warn("an IPsec policy was taken away by somebody else, and is put back", "prefix", want.prefix)
			failed = append(failed, d.place(want))
		}
	}
	return errors.Join(failed...)
}

// stand has the keeper look after a peer from now on.
func (d *Driver) stand(p *peer) {
	p.standing = true
	d.rouse()
}

// rouse wakes the keeper where it has nothing to keep.
func (d *Driver) rouse() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// policies of a peer: its prefixes, each on all three ways.
func (t *tunnel) policies(p *peer) []policy {
	var list []policy
	for _, prefix := range p.want.Prefixes {
		for _, way := range []way{in, fwd, out} {
			one := policy{way: way, prefix: prefix, ifID: t.ifID, reqid: p.reqid, local: t.want.Local.Addr()}
			if way == out {
				one.remote = p.endpoint().Addr()
			}
			list = append(list, one)
		}
	}
	return list
}

// ambiguous refuses a peer whose SPIs are another's: the kernel tells states by destination and SPI alone.
func (d *Driver) ambiguous(t *tunnel, w Peer, fresh *directions) error {
	for _, other := range d.tunnels {
		for name, p := range other.peers {
			if !p.standing || p.directions == nil || other == t && name == w.Name {
				continue
			}
			receive := other.want.Local.Addr() == t.want.Local.Addr() && p.directions.receive.tag == fresh.receive.tag
			send := p.endpoint().Addr() == w.Endpoint.Addr() && p.directions.send.tag == fresh.send.tag
			if receive || send {
				return fmt.Errorf("peer %s of %s and peer %s of %s %w: give them different ids (`id` of the peer, `ipsec.id` of the tunnel) or secrets",
					w.Name, t.want.Name, name, other.want.Name, ErrAmbiguous)
			}
		}
	}
	return nil
}

// dropPrefixes takes policies of a peer away. What another peer has gained meanwhile is that peer's.
func (d *Driver) dropPrefixes(ctx context.Context, t *tunnel, w Peer, lost []netip.Prefix) error {
	if t.want.Keying == IKE {
		return d.setIKE(ctx, t, w)
	}
	p := t.peers[w.Name]
	if p == nil {
		return nil
	}
	return d.deletePolicies(func(s selector, o uint32) bool {
		return s.ifID == t.ifID && o == p.reqid && slices.Contains(lost, s.prefix)
	})
}

func (d *Driver) deletePolicies(which func(s selector, reqid uint32) bool) error {
	var failed []error
	maps.DeleteFunc(d.placed, func(s selector, p policy) bool { return which(s, p.reqid) })
	for s, p := range d.seen.policies {
		if !which(s, p.reqid) {
			continue
		}
		if err := d.xfrm.deletePolicy(p); err != nil {
			failed = append(failed, fmt.Errorf("delete IPsec policy for %s: %w", p.prefix, err))
			continue
		}
		delete(d.seen.policies, s)
	}
	return errors.Join(failed...)
}

// removePeer takes all of a peer away: policies first, or the kernel would ask somebody for a key.
func (d *Driver) removePeer(ctx context.Context, tunnel, name string) error {
	o := owner{ifID: IfID(tunnel)}
	t := d.tunnels[tunnel]
	if t == nil || t.want.Keying == IKE {
		if err := d.unloadIKE(ctx, tunnel, name); err != nil {
			return err
		}
	}
	if t != nil && t.peers[name] != nil {
		o.reqid = t.peers[name].reqid
	} else if o.reqid = unnamed(name); o.reqid == 0 {
		return nil
	}
	if err := d.clear(func(x owner) bool { return x == o }); err != nil {
		return err
	}
	if t != nil && t.peers[name] != nil {
		// Until it is written, the file knows the peer itself.
		t.highest, t.dirty = max(t.highest, t.peers[name].Sent), true
		d.raise(t)
		delete(t.peers, name)
		// Its identities are free for another tunnel. The slice may be a plan's, which goes on.
		t.want.Peers = slices.DeleteFunc(slices.Clone(t.want.Peers), func(w Peer) bool { return w.Name == name })
		t.placed, t.first = 0, nil
	}
	return nil
}

// clear takes policies and states of the owners away.
func (d *Driver) clear(which func(owner) bool) error {
	err := d.deletePolicies(func(s selector, reqid uint32) bool { return which(owner{s.ifID, reqid}) })
	for o, list := range d.seen.states {
		if !which(o) {
			continue
		}
		for _, s := range slices.Clone(list) {
			err = errors.Join(err, d.drop(s))
		}
	}
	return err
}

// name for what the driver finds in the kernel and does not know, and the number in such a name (0: there is none).
func nameless(id uint32) string { return fmt.Sprintf("#%#x", id) }

func unnamed(name string) (id uint32) {
	if _, err := fmt.Sscanf(name, "#0x%x", &id); err != nil {
		return 0
	}
	return id
}
