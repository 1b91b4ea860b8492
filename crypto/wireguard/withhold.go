package wireguard

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"golang.org/x/sys/unix"

	"sluice/crypto/path"
)

// Withhold takes the routes to these peers away, by tunnel and public key, and keeps them away until it is called without
// them: no step that was planned before puts one back. It waits for the step of this driver that runs, and for no other
// subsystem's. Who calls it has what is wanted compiled again: that agrees, or puts back what is withheld no more.
func (d *Driver) Withhold(ctx context.Context, peers map[string][]string) error {
	more := d.withheld.Set(peers) // first: a step that waits for us sees it
	if len(more) == 0 {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	routes, err := d.links.Routes()
	if err != nil {
		return err
	}
	var failed []error
	for _, name := range more {
		if err := d.withhold(name, routes); err != nil {
			failed = append(failed, fmt.Errorf("withdraw routes from %s: %w", name, err))
		}
	}
	return errors.Join(failed...)
}

// withhold goes by what the device sends where: that may be newer or older than what is wanted.
func (d *Driver) withhold(name string, routes map[int][]path.Route) error {
	link, err := d.ours(name)
	if errors.Is(err, unix.ENODEV) {
		return nil // its routes went with it
	}
	if err != nil {
		return err
	}
	dev, err := d.running(link)
	if err != nil {
		return err
	}
	have, err := dev.state()
	if err != nil {
		return err
	}
	now := Tunnel{Name: name}
	for _, p := range have.Peers {
		now.Peers = append(now.Peers, Peer{PublicKey: encodeKey(p.PublicKey), AllowedIPs: allowedOf(p)})
	}
	_, away := d.withheld.Keep(name, routes[link.Attrs().Index], now.carried())
	for _, r := range away {
		err = errors.Join(err, d.links.RemoveRoute(link, r))
	}
	return err
}

// Wanted is s without the routes that are withheld.
func (d *Driver) Wanted(s State) State {
	var out State
	for _, t := range s.Tunnels {
		t.Routes, _ = d.withheld.Keep(t.Name, t.Routes, t.carried())
		out.Tunnels = append(out.Tunnels, t)
	}
	return out
}

func (t Tunnel) carried() iter.Seq[path.Carried] {
	return func(yield func(path.Carried) bool) {
		for _, p := range t.Peers {
			if !yield(path.Carried{Peer: p.PublicKey, Prefixes: p.AllowedIPs}) {
				return
			}
		}
	}
}
