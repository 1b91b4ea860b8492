package ipsec

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/crypto/ike"
	"sluice/netdump"
)

// Events tells what the supervision of charon has seen. One that nobody takes is lost; Status has what is.
func (d *Driver) Events() <-chan Event { return d.charons.events }

// setIKE has charon hold a peer. It may be away: then it gets the peer when it is back, and until then Status and the
// event CharonGone say why nothing is established. An apply does not fail of it, for a boot would fail as well where
// charon starts later than Sluice.
func (d *Driver) setIKE(ctx context.Context, t *tunnel, w Peer) error {
	p := t.peers[w.Name]
	if p == nil {
		return fmt.Errorf("%s has no peer %s", t.want.Name, w.Name)
	}
	conn := connOf(t.want, w)
	if err := d.sameIdentities(t, w); err != nil {
		return err
	}
	// charon's policies take the place of static keying's, so those go first: to delete them later would take charon's.
	p.standing = false
	own := owner{t.ifID, p.reqid}
	if err := d.deletePolicies(func(s selector, reqid uint32) bool { return own == owner{s.ifID, reqid} }); err != nil {
		return err
	}
	client := d.charons.at(t.want.Charon)
	err := client.Load(ctx, conn)
	if errors.Is(err, ike.ErrNoCharon) {
		d.log.Warn("the peer waits for charon", "tunnel", t.want.Name, "peer", w.Name, "error", err)
		err = nil
	}
	if err != nil {
		return err
	}
	p.want = w
	if err := d.leave(ctx, t, w.Name, client); err != nil {
		return err
	}
	// What static keying has left. Its states would go on receiving.
	p.directions = nil
	d.rouse()
	return d.clear(func(o owner) bool { return o == own })
}

// sameIdentities refuses a second pair of the same identities: charon, told of a first contact between two of them, closes
// all other SAs that they have (RFC 7296 section 2.4).
func (d *Driver) sameIdentities(t *tunnel, w Peer) error {
	for _, other := range d.tunnels {
		if other.want.Keying != IKE || other.want.Charon != t.want.Charon || other.want.ID != t.want.ID {
			continue
		}
		for _, p := range other.want.Peers {
			if p.ID == w.ID && (other != t || p.Name != w.Name) {
				return fmt.Errorf("peer %s of %s and peer %s of %s have the same two identities %q and %q, which charon cannot tell apart: "+
					"give them different ids (`id` of the peer, `ipsec.id` of the tunnel)", w.Name, t.want.Name, p.Name, other.want.Name, t.want.ID, w.ID)
			}
		}
	}
	return nil
}

// unloadIKE takes a peer out of every charon; those that do not hold it have nothing to do.
func (d *Driver) unloadIKE(ctx context.Context, tunnel, peer string) error {
	var failed []error
	for _, client := range d.charons.all() {
		failed = append(failed, client.Unload(ctx, tunnel, peer))
	}
	return errors.Join(failed...)
}

// leave takes a peer out of the charons that it was in before: its tunnel has another keying now, or another charon, to
// which stays is the client. nil: none.
func (d *Driver) leave(ctx context.Context, t *tunnel, peer string, stays *ike.Client) error {
	for _, client := range d.charons.all() {
		if client == stays || !client.Holds(t.want.Name, peer) {
			continue
		}
		if err := client.Unload(ctx, t.want.Name, peer); err != nil {
			return err
		}
		if stays == nil {
			if err := client.Closed(ctx, t.want.Name, peer); err != nil && ctx.Err() == nil {
				d.log.Warn("charon has not let go of a peer", "tunnel", t.want.Name, "peer", peer, "error", err)
			}
			if err := d.sweep(t.ifID); err != nil {
				return err
			}
		}
	}
	return nil
}

// removeIKE takes a tunnel out of the charons, and what a charon that died has left of it in the kernel.
func (d *Driver) removeIKE(ctx context.Context, name string, ifID uint32) error {
	clients := d.charons.all()
	if t := d.tunnels[name]; len(clients) == 0 || t != nil && t.want.Keying == Static {
		return nil
	}
	var failed []error
	for _, client := range clients {
		failed = append(failed, client.UnloadTunnel(ctx, name))
	}
	return errors.Join(append(failed, d.sweep(ifID))...)
}

// sweep deletes states and policies of an interface that are not static keying's: charon's, which has died or has been told
// to let go of them. Where the kernel has no IPsec there is nothing.
func (d *Driver) sweep(ifID uint32) error {
	nl, err := netlink.NewHandleAt(d.xfrm.ns, unix.NETLINK_XFRM)
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("IPsec of the kernel: %w", err)
	}
	defer nl.Close()
	policies, err := netdump.List(func() ([]netlink.XfrmPolicy, error) { return nl.XfrmPolicyList(netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("list IPsec policies: %w", err)
	}
	var failed []error
	gone := func(err error) {
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ESRCH) {
			failed = append(failed, err)
		}
	}
	for _, p := range policies {
		if uint32(p.Ifid) == ifID && (len(p.Tmpls) == 0 || !isOurs(uint32(p.Tmpls[0].Reqid))) {
			gone(nl.XfrmPolicyDel(&p))
		}
	}
	states, err := netdump.List(func() ([]netlink.XfrmState, error) { return nl.XfrmStateList(netlink.FAMILY_ALL) })
	if err != nil {
		return errors.Join(append(failed, fmt.Errorf("list IPsec states: %w", err))...)
	}
	for _, s := range states {
		if uint32(s.Ifid) == ifID && !isOurs(uint32(s.Reqid)) {
			gone(nl.XfrmStateDel(&s))
		}
	}
	return errors.Join(failed...)
}

// lookAtCharons asks those of the tunnels that are known. It must not be called under the lock: charon may take its time.
func (d *Driver) lookAtCharons(ctx context.Context) (looks, error) {
	d.mu.Lock()
	err := d.load()
	for _, t := range d.tunnels {
		if t.want.Keying == IKE {
			d.charons.at(t.want.Charon)
		}
	}
	d.mu.Unlock()
	if err != nil {
		return looks{}, err
	}
	return d.charons.look(ctx), nil
}

// observeIKE tells the peers of a tunnel as charon has them. One that is loaded as it was meant is as it was meant; one
// that is loaded in another way, or not, is Down.
func observeIKE(t Tunnel, meant []Peer, l looks) []Peer {
	var out []Peer
	loaded := map[string]ike.Loaded{}
	for _, x := range l.loaded[t.Name] {
		loaded[x.Peer] = x
	}
	for _, p := range meant {
		x, there := loaded[p.Name]
		delete(loaded, p.Name)
		switch {
		case l.away[t.Charon] != nil:
		case !there:
			continue
		case !x.Is(connOf(t, p)):
			p.Down = true
		default:
			p.SecretFile = x.SecretFile
		}
		out = append(out, p)
	}
	for name, x := range loaded {
		out = append(out, Peer{Name: name, ID: x.RemoteID, Prefixes: x.Prefixes, SecretFile: x.SecretFile, Down: true})
	}
	return out
}

// rekeyIKE has charon renew the keys of every peer of a tunnel that is up, those of ESP and of IKE itself.
func (d *Driver) rekeyIKE(ctx context.Context, t *tunnel) error {
	client := d.charons.at(t.want.Charon)
	list, err := client.Status(ctx)
	if err != nil {
		return err
	}
	var failed []error
	for _, s := range list {
		if s.Tunnel == t.want.Name && s.Up() {
			failed = append(failed, client.RekeyChild(ctx, s.Tunnel, s.Peer), client.RekeyIKE(ctx, s.Tunnel, s.Peer))
		}
	}
	return errors.Join(failed...)
}
