package tunnel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/control/config"
	"sluice/crypto/path"
)

// underlayEvery is for what no event tells: what the kernel learns of a path's MTU, and forgets after ten minutes.
const underlayEvery = 30 * time.Second

// underlayAddresses are the endpoints whose routes say how large a packet may be, and those of peers that may leave one
// without a route. Where others have one is asked once it is needed.
func (m *machine) underlayAddresses() []netip.Addr {
	var out []netip.Addr
	seen := map[netip.Addr]bool{}
	for _, t := range m.tunnels {
		for _, p := range t.peers {
			places, choices := p.places(), m.choices(p)
			if t.conf.MTU != 0 && len(choices) < 2 {
				continue
			}
			if m.routeless[p.target().Addr()] {
				for _, c := range choices {
					places = append(places, c.endpoint.Addr())
				}
			}
			for _, a := range places {
				if !seen[a] {
					seen[a] = true
					out = append(out, a)
				}
			}
		}
	}
	return out
}

// placedAs says whether the underlay of a tunnel is what it was measured to be before a change of the file: the same peers, by
// the same keys, at the same places. To look up the ways to a thousand takes 13 ms.
func (t *tunnel) placedAs(before *tunnel) bool {
	if before == nil || t.conf.MTU != before.conf.MTU || t.conf.MTU == 0 && t.underlay == 0 || len(t.peers) != len(before.peers) {
		return false
	}
	old := before.byName()
	return !slices.ContainsFunc(t.peers, func(p *peer) bool {
		b := old[p.conf.Name]
		return b == nil || b.choice != p.choice || b.device != p.device || !slices.Equal(b.conf.Endpoints, p.conf.Endpoints) ||
			!slices.Equal(b.conf.PublicKeys, p.conf.PublicKeys)
	})
}

// choices are the endpoints of a peer whose packets need a route of their own; nil for IPsec, whose sessions tell.
func (m *machine) choices(p *peer) []choice {
	if p.of.conf.Type != config.TypeWireGuard {
		return nil
	}
	return m.candidates(p.of.conf, p.conf)
}

// target is where packets to the peer go: where its device sends them, as far as that is known.
func (p *peer) target() netip.AddrPort {
	if p.device.IsValid() {
		return p.device
	}
	return p.inUse()
}

// lookForRoute notes whether a peer has no route while another of its endpoints may have one.
func (m *machine) lookForRoute(p *peer, at time.Time) {
	if !m.routeless[p.target().Addr()] || !slices.ContainsFunc(m.choices(p), func(c choice) bool { return !m.routeless[c.endpoint.Addr()] }) {
		p.unrouted = time.Time{}
	} else if p.unrouted.IsZero() {
		p.unrouted = at
	}
}

// places are where packets to the peer go: where its device sends them, and where they should go. A peer of IPsec that is followed
// behind a NAT goes on being known by its entry in the file, where nothing is sent any more.
func (p *peer) places() []netip.Addr {
	var out []netip.Addr
	if p.device.IsValid() && p.of != nil && p.of.conf.Type == config.TypeIPsec {
		return []netip.Addr{p.device.Addr()}
	}
	if used := p.inUse(); used.IsValid() {
		out = append(out, used.Addr())
	}
	if p.device.IsValid() {
		out = append(out, p.device.Addr())
	}
	return out
}

// underlaid takes the MTUs of routes of the addresses that were asked for; one that has no route is missing, but where the
// lookup failed that says nothing. A tunnel keeps what is known of it while no endpoint has a route.
func (m *machine) underlaid(asked []netip.Addr, mtu map[netip.Addr]int, failed bool) {
	m.measuring = false
	if !failed {
		before := m.routeless
		m.routeless = map[netip.Addr]bool{}
		for _, a := range asked {
			if _, routed := mtu[a]; routed {
				continue
			}
			m.routeless[a] = true
			if !before[a] {
				m.underlayDue = time.Time{} // at once again: for the peer's other endpoints
			}
		}
	}
	for _, t := range m.tunnels {
		if t.conf.MTU != 0 {
			continue
		}
		least := 0
		for _, p := range t.peers {
			for _, a := range p.places() {
				least = smaller(least, mtu[a])
			}
		}
		if least == 0 || least == t.underlay {
			continue
		}
		before := t.underlay
		t.underlay = least
		m.change(Event{UnderlayChanged, t.conf.Name, "", fmt.Sprintf("the underlay carries packets of %d bytes (before: %d)", least, before)})
	}
}

// smaller is the smaller of two, where 0 is not known.
func smaller(a, b int) int {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// unmeasured are the first endpoints of tunnels of which no underlay is known, by tunnel: to be looked up before they
// are compiled for the first time, so that their MTU is right from the beginning.
func (m *machine) unmeasured(tunnels []config.Tunnel) map[string][]netip.Addr {
	out := map[string][]netip.Addr{}
	for _, conf := range tunnels {
		if conf.MTU != 0 || m.underlayOf(conf) != 0 {
			continue
		}
		before := m.former(conf).byName()
		for _, pc := range conf.Peers {
			p := peer{conf: pc, choice: m.fit(conf, pc, before[pc.Name])}
			out[conf.Name] = append(out[conf.Name], p.places()...)
		}
	}
	return out
}

// Underlay looks up routes in the network namespace of the thread that made it.
type Underlay struct {
	mark uint32 // of encrypted packets: rules may send them another way

	mu sync.Mutex
	nl *netlink.Handle
}

// NewUnderlay makes one for packets with that fwmark.
func NewUnderlay(mark uint32) (*Underlay, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return &Underlay{mark: mark, nl: h}, nil
}

// Close ends it.
func (u *Underlay) Close() { u.nl.Close() }

// MTU is Options.Underlay: the smaller one of the link's and the route's, which includes what was learned of the path. A route
// into a tunnel of ours is none: nothing encrypted goes there, and its MTU follows from what is returned here.
func (u *Underlay) MTU(ctx context.Context, to []netip.Addr) (map[netip.Addr]int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	out := make(map[netip.Addr]int, len(to))
	links := map[int]int{} // bytes; 0: no way for what is encrypted
	var failed error
	for _, a := range to {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		routes, err := u.nl.RouteGetWithOptions(a.AsSlice(), &netlink.RouteGetOptions{Mark: u.mark})
		if err != nil || len(routes) == 0 {
			continue // no route: nothing is known of it
		}
		r := routes[0]
		mtu, known := links[r.LinkIndex]
		if !known {
			link, err := u.nl.LinkByIndex(r.LinkIndex)
			if err != nil {
				failed = errors.Join(failed, fmt.Errorf("the link of the route to %s: %w", a, err))
				continue
			}
			if !tunnelOfOurs(link) {
				mtu = link.Attrs().MTU
			}
			links[r.LinkIndex] = mtu
		}
		if mtu != 0 {
			out[a] = smaller(mtu, r.MTU)
		}
	}
	return out, failed
}

// tunnelOfOurs goes by the alias and the type: workloads have links with such aliases, too.
func tunnelOfOurs(link netlink.Link) bool {
	a := link.Attrs()
	return a.Alias == path.Alias(a.Name) && slices.Contains([]string{"wireguard", "tuntap", "xfrm"}, link.Type())
}
