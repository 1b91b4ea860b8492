package fib

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// way is how a next hop is reached: the gateways that its packets go to first, and what was looked up to find them.
type way struct {
	hops  []hop
	steps []step
	err   error // why there are no hops
}

// step is one look into the kernel's table.
type step struct {
	addr   netip.Addr
	match  netip.Prefix
	metric int  // of the route that matched
	onLink bool // addr is in the network of an interface: no route of ours changes how it is reached
}

func (w way) equal(v way) bool {
	return slices.Equal(w.hops, v.hops) && slices.Equal(w.steps, v.steps) && fmt.Sprint(w.err) == fmt.Sprint(v.err)
}

// near says that no route of ours changes how it is reached.
func (w way) near() bool {
	return !slices.ContainsFunc(w.steps, func(s step) bool { return !s.onLink })
}

// captures says whether a route to prefix would change the way that it takes itself. It is asked of what would be, not of what
// is: a route that leads through itself once it stands must not come, be seen to, and go again.
func (w way) captures(prefix netip.Prefix, metric int) bool {
	return slices.ContainsFunc(w.steps, func(s step) bool {
		return !s.onLink && prefix.Contains(s.addr) &&
			(s.match.Bits() < prefix.Bits() || s.match == prefix && s.metric >= metric)
	})
}

// reach is the way to a next hop, looked up when it is first asked for, and by retrack. The writer alone asks.
func (t *Table) reach(addr netip.Addr) way {
	w, known := t.ways[addr]
	if !known {
		if t.now == nil {
			t.now = t.kernel.view()
		}
		w = t.wayTo(addr, t.now)
		t.ways[addr] = w
		t.sift()
		t.tell(addr, w)
	}
	return w
}

func (t *Table) tell(addr netip.Addr, w way) {
	if w.err != nil {
		t.log.Warn("a next hop has no way: what is learned by it is not installed", "next_hop", addr, "error", w.err)
	}
}

var errDead = fmt.Errorf("%w: the neighbor does not answer", errUnresolved)

// wayTo is the way to a next hop; there is none to that of a dead neighbor, whatever the kernel knows.
func (t *Table) wayTo(addr netip.Addr, v *view) way {
	t.mu.Lock()
	ends := len(t.dead) > 0 && t.sets.ends(addr, t.dead)
	t.mu.Unlock()
	if ends {
		return way{err: errDead}
	}
	return t.find(addr, v, nil)
}

// find looks an address up. Where the kernel answers with a route of ours, the way is that of the route's own next hops, found
// in the same manner; seen are the addresses that led here.
func (t *Table) find(addr netip.Addr, v *view, seen []netip.Addr) way {
	if addr.Zone() != "" {
		h, err := t.kernel.zoned(addr)
		return v.alive(way{hops: []hop{h}, steps: []step{{addr: addr, onLink: true}}, err: err})
	}
	if slices.Contains(seen, addr) {
		return way{err: fmt.Errorf("%w: %s is reached by itself alone", errUnresolved, addr)}
	}
	m, err := t.kernel.lookup(addr)
	if err != nil {
		return way{err: err}
	}
	here, near := onLink(v.networks, addr)
	at := step{addr: addr, match: m.prefix, metric: m.metric, onLink: near && (m.ours || m.direct)}
	if !m.ours {
		return v.alive(way{hops: m.hops, steps: []step{at}})
	}
	if near {
		return v.alive(way{hops: []hop{here}, steps: []step{at}})
	}
	t.mu.Lock()
	var via []netip.Addr
	if there := t.installed[m.prefix]; there.index(place{m.table, m.metric}) >= 0 {
		via = there[there.index(place{m.table, m.metric})].via
	}
	t.mu.Unlock()
	if len(via) == 0 { // of an earlier life, or another daemon's
		return v.alive(way{hops: m.hops, steps: []step{at}})
	}
	out := way{steps: []step{at}}
	seen = append(slices.Clone(seen), addr)
	for _, next := range via {
		w := t.find(next, v, seen)
		if w.err != nil {
			err = w.err
			continue
		}
		out.hops = append(out.hops, w.hops...)
		out.steps = append(out.steps, w.steps...)
	}
	if len(out.hops) == 0 {
		out.err = err
	}
	return out
}

// view is what is asked of the kernel once for all next hops that are looked up together.
type view struct {
	kernel   kernel
	networks []network
	links    map[int]error // why nothing leaves by it
}

func (k kernel) view() *view { return &view{k, k.networks(), map[int]error{}} }

func (v *view) up(link int) error {
	err, known := v.links[link]
	if !known {
		err = v.kernel.up(link)
		v.links[link] = err
	}
	return err
}

// alive leaves out the hops whose link is down, or has no carrier.
func (v *view) alive(w way) way {
	if w.err != nil {
		w.hops = nil
		return w
	}
	var alive []hop
	for _, h := range w.hops {
		if err := v.up(h.link); err != nil {
			w.err = fmt.Errorf("%w: %w", errUnresolved, err)
			continue
		}
		alive = append(alive, h)
	}
	if w.hops = alive; len(alive) > 0 {
		w.err = nil
	}
	return w
}

// retrack looks all ways up again, and has the prefixes judged anew whose next hops go another one.
func (t *Table) retrack() {
	t.turn++
	t.mu.Lock()
	for addr := range t.ways {
		if t.sets.uses[addr] == 0 {
			delete(t.ways, addr)
		}
	}
	t.mu.Unlock()
	v, moved := t.kernel.view(), map[netip.Addr]struct{}{}
	for addr, was := range t.ways {
		now := t.wayTo(addr, v)
		if now.equal(was) {
			continue
		}
		t.ways[addr], moved[addr] = now, struct{}{}
		if was.err == nil || now.err == nil {
			t.tell(addr, now)
		}
	}
	t.sift()
	t.regroup()
	if len(moved) == 0 {
		return
	}
	t.change(func() {
		for prefix, set := range t.learned {
			for _, addr := range set.nextHops {
				if _, ok := moved[addr]; ok {
					t.dirty[prefix] = struct{}{}
				}
			}
		}
	})
}

// regroup gives the groups that follow next hops the hops that these now have.
func (t *Table) regroup() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, g := range t.groups.of {
		if g.via == nil {
			continue
		}
		var hops []hop
		for _, addr := range g.via {
			hops = append(hops, t.ways[addr].hops...)
		}
		if err := t.groups.set(g, distinct(hops, max(t.policy.ECMP, 1))); err != nil {
			t.log.Warn("next hops not changed", "next_hops", g.via, "error", err)
		}
	}
}

// sift keeps the tracked next hops that a route of ours may lead: those on a link stay there.
func (t *Table) sift() {
	t.afar = t.afar[:0]
	for addr, w := range t.ways {
		if !slices.ContainsFunc(w.steps, func(s step) bool { return s.addr == addr && s.onLink }) {
			t.afar = append(t.afar, addr)
		}
	}
	slices.SortFunc(t.afar, netip.Addr.Compare)
}

// led says whether a route of ours to prefix may lead a next hop that is tracked. It is asked for each route that is written.
func (t *Table) led(prefix netip.Prefix) bool {
	i, _ := slices.BinarySearchFunc(t.afar, prefix.Masked().Addr(), netip.Addr.Compare)
	return i < len(t.afar) && prefix.Contains(t.afar[i])
}

// network is what an address of an interface says is on its link.
type network struct {
	prefix netip.Prefix
	link   int
}

// onLink finds the longest network that holds an address.
func onLink(nets []network, addr netip.Addr) (h hop, ok bool) {
	bits := -1
	for _, n := range nets {
		if n.prefix.Contains(addr) && n.prefix.Bits() > bits {
			h, ok, bits = hop{addr: addr, link: n.link}, true, n.prefix.Bits()
		}
	}
	return h, ok
}

// Link is the link whose network holds an address, or that its zone names; 0: none does.
func (t *Table) Link(addr netip.Addr) int {
	if addr.Zone() != "" {
		h, _ := t.kernel.zoned(addr)
		return h.link
	}
	h, _ := onLink(t.kernel.networks(), addr)
	return h.link
}

// match is what the kernel's table says of an address.
type match struct {
	prefix        netip.Prefix
	table, metric int
	ours          bool
	direct        bool // without a gateway
	hops          []hop
}

// lookup asks as the box itself would send: by all of its routing rules.
func (k kernel) lookup(addr netip.Addr) (match, error) {
	r, err := k.routeTo(addr)
	if err != nil {
		return match{}, fmt.Errorf("%w: no route to %s", errUnresolved, addr)
	}
	if r.Type != unix.RTN_UNICAST {
		return match{}, fmt.Errorf("%w: the route to %s leads nowhere else", errUnresolved, addr)
	}
	m := match{table: r.Table, metric: r.Priority, ours: r.Protocol == Protocol}
	m.prefix, _ = prefixOf(r)
	for _, nh := range nextHopsOf(r) {
		h := hop{addr: addr, link: nh.LinkIndex, onLink: nh.Flags&unix.RTNH_F_ONLINK != 0}
		gateway, behind := gatewayOf(nh)
		if m.direct = !behind; behind {
			h.addr = gateway
		}
		m.hops = append(m.hops, h)
	}
	return m, nil
}

// up says why nothing leaves by a link. One that cannot be asked for is not lost for that.
func (k kernel) up(index int) error {
	link, err := k.h.LinkByIndex(index)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return errors.New("its link is gone")
	}
	if err != nil {
		return nil
	}
	switch a := link.Attrs(); {
	case a.RawFlags&unix.IFF_UP == 0:
		return fmt.Errorf("%s is down", a.Name)
	case a.RawFlags&unix.IFF_LOWER_UP == 0:
		return fmt.Errorf("%s has no carrier", a.Name)
	}
	return nil
}
