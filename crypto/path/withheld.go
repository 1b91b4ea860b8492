package path

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Withheld are the peers of tunnels whose routes stay away for now, whatever is wanted of them: that a peer is gone is known
// before anything is compiled from it, and steps that were planned earlier must not bring its routes back. A driver that has
// one takes their routes out of what is wanted (Keep), out of the kernel, and out of steps that are still to come (Holds).
// The zero value withholds nothing. It is safe for concurrent use.
type Withheld struct {
	mu    sync.Mutex
	peers map[string]map[string]bool // by tunnel, what the driver tells its peers apart by; a map is never changed
	stand map[string]bool            // tunnels whose routes were to be taken out of the kernel, and may still be there
}

// Carried is what goes to one peer, by what its driver tells peers apart by.
type Carried struct {
	Peer     string
	Prefixes []netip.Prefix
}

// Set makes peers, by tunnel, those that are withheld, and returns the tunnels whose routes are to be withdrawn: they have one which
// was not withheld before, or Withdraw has failed since.
func (w *Withheld) Set(peers map[string][]string) (due []string) {
	next, stand := map[string]map[string]bool{}, map[string]bool{}
	w.mu.Lock()
	defer w.mu.Unlock()
	for tunnel, list := range peers {
		next[tunnel] = map[string]bool{}
		for _, p := range list {
			next[tunnel][p] = true
		}
		if w.stand[tunnel] || slices.ContainsFunc(list, func(p string) bool { return !w.peers[tunnel][p] }) {
			stand[tunnel] = true
		}
	}
	w.peers, w.stand = next, stand
	return slices.Sorted(maps.Keys(stand))
}

// Prefixes are those that may have no route into a tunnel which carries what is said; nil where none is withheld. The
// iterator is not asked in that case.
func (w *Withheld) Prefixes(tunnel string, carried iter.Seq[Carried]) map[netip.Prefix]bool {
	w.mu.Lock()
	peers := w.peers[tunnel]
	w.mu.Unlock()
	if len(peers) == 0 {
		return nil
	}
	out := map[netip.Prefix]bool{}
	for c := range carried {
		if peers[c.Peer] {
			for _, p := range c.Prefixes {
				out[p] = true
			}
		}
	}
	return out
}

// Holds says whether a route into a tunnel is to stay away. The ways of probes are not: a peer has to be found again.
func (w *Withheld) Holds(tunnel string, r Route, carried iter.Seq[Carried]) bool {
	return r.Table != ProbeTable && w.Prefixes(tunnel, carried)[r.Prefix]
}

// Keep splits the routes into a tunnel into those that may be there and those that are to stay away.
func (w *Withheld) Keep(tunnel string, routes []Route, carried iter.Seq[Carried]) (keep, away []Route) {
	prefixes := w.Prefixes(tunnel, carried)
	if len(prefixes) == 0 {
		return routes, nil
	}
	for _, r := range routes {
		if r.Table != ProbeTable && prefixes[r.Prefix] {
			away = append(away, r)
		} else {
			keep = append(keep, r)
		}
	}
	return keep, away
}

// Withdraw takes what is to stay away out of tunnels' links. look tells a tunnel's link and what it carries, or nil where it carries nothing at
// all, and no route into it leads anywhere; unix.ENODEV says that it has no link, and so no routes.
func (w *Withheld) Withdraw(links Links, tunnels []string, look func(tunnel string) (netlink.Link, iter.Seq[Carried], error)) error {
	routes, err := links.Routes()
	if err != nil {
		return err
	}
	var failed []error
	for _, name := range tunnels {
		link, carried, err := look(name)
		if errors.Is(err, unix.ENODEV) {
			w.gone(name)
			continue
		}
		if err == nil {
			for _, r := range w.away(name, routes[link.Attrs().Index], carried) {
				err = errors.Join(err, links.RemoveRoute(link, r))
			}
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("withdraw routes from %s: %w", name, err))
			continue
		}
		w.gone(name)
	}
	return errors.Join(failed...)
}

// away are those of the routes into a tunnel that go; carried is nil where all do.
func (w *Withheld) away(tunnel string, routes []Route, carried iter.Seq[Carried]) (away []Route) {
	if carried == nil {
		return slices.DeleteFunc(routes, func(r Route) bool { return r.Table == ProbeTable })
	}
	_, away = w.Keep(tunnel, routes, carried)
	return away
}

// gone says that no route of a tunnel stands any more that is to stay away.
func (w *Withheld) gone(tunnel string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.stand, tunnel)
}
