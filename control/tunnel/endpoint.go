package tunnel

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"sluice/control/config"
)

// choice is an endpoint, and the entry of the peer's list that it comes from.
type choice struct {
	endpoint netip.AddrPort // invalid: none is known
	entry    int            // -1: none, the peer roamed there
}

var none = choice{entry: -1}

// candidates are all endpoints of a peer that are known, in the order of the file, each once. A DNS name stands for all
// its addresses of the local address's family.
func (m *machine) candidates(conf config.Tunnel, pc config.Peer) []choice {
	var out []choice
	add := func(addr netip.Addr, entry int) {
		ap := netip.AddrPortFrom(addr, pc.Endpoints[entry].Port)
		if !slices.ContainsFunc(out, func(c choice) bool { return c.endpoint == ap }) {
			out = append(out, choice{ap, entry})
		}
	}
	for i, e := range pc.Endpoints {
		if e.Addr.IsValid() {
			add(e.Addr, i)
			continue
		}
		for _, a := range m.addressesOf(e.Host) {
			if fits(conf.Local.Addr(), a) {
				add(a, i)
			}
		}
	}
	return out
}

// fits says whether packets can go from a local address to another: one that is written binds its family.
func fits(local, to netip.Addr) bool {
	return !local.IsValid() || local.Is4() == to.Is4()
}

// first is the choice where nothing speaks for another one: the file's first that is known. Names before it that nobody
// has asked for yet are waited for, as a choice is not taken back.
func (m *machine) first(conf config.Tunnel, pc config.Peer) choice {
	list := m.candidates(conf, pc)
	if len(list) == 0 {
		return none
	}
	for _, e := range pc.Endpoints[:list[0].entry] {
		if m.awaited(e.Host) {
			return none
		}
	}
	return list[0]
}

// fit is the choice for a peer, of which something may be known from before. What it uses stays in use as long as the
// file has it; where the file's list is another one, a place to which the peer roamed does not outlive it.
func (m *machine) fit(conf config.Tunnel, pc config.Peer, before *peer) choice {
	if len(pc.Endpoints) == 0 {
		return none // the peer comes to us
	}
	if before != nil && slices.Equal(before.conf.Endpoints, pc.Endpoints) && before.choice.endpoint.IsValid() {
		return before.choice
	}
	var known netip.AddrPort
	if before != nil {
		known = before.choice.endpoint
	} else {
		known = m.kept.Tunnels[conf.Name].Peers[pc.Name].Endpoint
		if roamed := m.adopted[conf.Name][m.keyInUse(conf, pc, nil)]; roamed.IsValid() {
			if c, ok := find(m.candidates(conf, pc), roamed); ok {
				return c
			}
			return choice{roamed, -1}
		}
	}
	if c, ok := find(m.candidates(conf, pc), known); ok {
		return c
	}
	return m.first(conf, pc)
}

func find(list []choice, endpoint netip.AddrPort) (choice, bool) {
	i := slices.IndexFunc(list, func(c choice) bool { return c.endpoint == endpoint })
	if i < 0 {
		return none, false
	}
	return list[i], true
}

// inUse is what the compiler makes of a choice: where there is none, the file's first endpoint that is an address.
func (p *peer) inUse() netip.AddrPort {
	if p.choice.endpoint.IsValid() {
		return p.choice.endpoint
	}
	for _, e := range p.conf.Endpoints {
		if e.Addr.IsValid() {
			return e.AddrPort()
		}
	}
	return netip.AddrPort{}
}

// choose settles a peer after names became known. One that is in touch stays where it is, whatever DNS says: an answer
// that another server gives every minute must not move it.
func (m *machine) choose(p *peer, at time.Time) {
	if !p.choice.endpoint.IsValid() {
		if c := m.first(p.of.conf, p.conf); c.endpoint.IsValid() {
			m.take(p, c, "its name resolves", at)
		}
		return
	}
	list := m.candidates(p.of.conf, p.conf)
	if _, ok := find(list, p.choice.endpoint); ok || p.choice.entry < 0 || len(list) == 0 || p.inTouch(at) {
		return
	}
	next := list[0]
	if i := slices.IndexFunc(list, func(c choice) bool { return c.entry == p.choice.entry }); i >= 0 {
		next = list[i]
	}
	m.take(p, next, "its name has another address", at)
}

// judge moves a peer on that does not answer. It goes round its endpoints and stays where it is answered, also when an
// earlier one of the list would answer again: going back would interrupt what works.
func (m *machine) judge(p *peer, at time.Time) {
	if p.version > m.applied {
		return
	}
	why, dead := p.dead(at)
	if !dead {
		return
	}
	p.retry = at.Add(retryAfter)
	m.refresh(p.conf, at)
	list := m.candidates(p.of.conf, p.conf)
	if len(list) == 0 {
		return
	}
	next, routed := m.after(p.inUse(), list)
	if !routed && len(list) > 1 {
		return // one is as good as another until a route is there
	}
	if next.endpoint != p.inUse() {
		if p.tries++; p.up {
			p.inVain++
		} else {
			p.inVain = 0
		}
		p.ways = len(list)
		m.take(p, next, why, at)
		return
	}
	// The only one, which the device has left because the peer roamed. A driver leaves alone what it once wrote, so the
	// place in use is made the wanted one first; once that is applied this one is wanted again.
	if p.of.conf.Type == config.TypeWireGuard && p.device.IsValid() && p.device != p.inUse() {
		p.choice, p.retry = choice{p.device, -1}, time.Time{}
		m.change(Event{EndpointChanged, p.of.conf.Name, p.conf.Name, fmt.Sprintf("peer %s roamed to %s: %s", p.conf.Name, p.device, why)})
		p.version = m.version
	}
}

// after is the next choice of a list, round and round, that is not known to have no route; false: none has.
func (m *machine) after(used netip.AddrPort, list []choice) (c choice, routed bool) {
	n := slices.IndexFunc(list, func(c choice) bool { return c.endpoint == used })
	for i := range list {
		c = list[(n+1+i)%len(list)]
		if !m.routeless[c.endpoint.Addr()] {
			return c, true
		}
	}
	return c, false
}

// take makes a choice.
func (m *machine) take(p *peer, c choice, why string, at time.Time) {
	before := p.inUse()
	p.choice, p.since = c, at
	if p.inUse() == before {
		return
	}
	from := ""
	if before.IsValid() {
		from = fmt.Sprintf(" instead of %s", before)
	}
	m.change(Event{EndpointChanged, p.of.conf.Name, p.conf.Name, fmt.Sprintf("peer %s: endpoint %s%s: %s", p.conf.Name, c.endpoint, from, why)})
	m.why[len(m.why)-1].pressing = !before.IsValid() // it could not be sought at all
	p.version = m.version
	p.sent, p.unanswered = 0, time.Time{}
	m.underlayDue = at
}
