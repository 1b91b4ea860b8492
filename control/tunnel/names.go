package tunnel

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"sluice/control/config"
)

const (
	// resolveEvery is for the time to live of an answer, which the system's resolver does not tell.
	resolveEvery = time.Minute
	// resolveAgain is the pause after a first failure, doubled up to resolveEvery.
	resolveAgain = 5 * time.Second
)

// name is a DNS name of live endpoints. What it meant last holds until it means something else: no answer is no reason
// to leave a peer.
type name struct {
	addresses []netip.Addr
	users     []*peer
	due       time.Time
	asked     time.Time
	busy      bool
	tried     bool // an answer, or none, came to this process
	failures  int  // in a row
	err       error
}

// followNames keeps the names of live endpoints. New ones are asked for at once.
func (m *machine) followNames(at time.Time) {
	names := map[string]*name{}
	for _, t := range m.tunnels {
		for _, p := range t.peers {
			for _, e := range p.conf.Endpoints {
				if e.Addr.IsValid() {
					continue
				}
				n := names[e.Host]
				if n == nil {
					if n = m.names[e.Host]; n == nil {
						n = &name{due: at, addresses: m.kept.Names[e.Host]}
					}
					n.users = nil
					names[e.Host] = n
				}
				if !slices.Contains(n.users, p) {
					n.users = append(n.users, p)
				}
			}
		}
	}
	m.names = names
}

func (m *machine) addressesOf(host string) []netip.Addr {
	if n := m.names[host]; n != nil {
		return n.addresses
	}
	return m.kept.Names[host]
}

// awaited says whether a name has not been asked for, so that nobody can say what it means.
func (m *machine) awaited(host string) bool {
	n := m.names[host]
	return len(m.addressesOf(host)) == 0 && (n == nil || !n.tried)
}

func (m *machine) runNames(w *work, at time.Time) {
	for host, n := range m.names {
		switch {
		case n.busy:
		case at.Before(n.due):
			w.soon(n.due)
		default:
			n.busy, n.asked = true, at
			w.resolve = append(w.resolve, host)
		}
	}
	slices.Sort(w.resolve)
}

// refresh has the names of a silent peer asked for again.
func (m *machine) refresh(pc config.Peer, at time.Time) {
	for _, e := range pc.Endpoints {
		if n := m.names[e.Host]; n != nil && at.Sub(n.asked) >= retryAfter {
			n.due = at
		}
	}
}

// resolved takes what became of asking for a name.
func (m *machine) resolved(host string, addresses []netip.Addr, err error, at time.Time) {
	n := m.names[host]
	if n == nil {
		return
	}
	n.busy, n.tried = false, true
	if err == nil && len(addresses) == 0 {
		err = fmt.Errorf("%s has no addresses", host)
	}
	if n.err = err; err != nil {
		n.due = at.Add(min(resolveAgain<<min(n.failures, 10), resolveEvery))
		if n.failures++; n.failures == 1 {
			m.tellName(n, NameLost, fmt.Sprintf("%s: %v", m.lacking(host, n), err))
		}
	} else {
		n.due = at.Add(resolveEvery)
		if n.failures > 0 {
			m.tellName(n, NameFound, host+" resolves again")
		}
		n.failures = 0
		if !sameSet(n.addresses, addresses) {
			n.addresses, m.unsaved = addresses, true
		}
	}
	for _, p := range n.users {
		m.choose(p, at)
	}
}

func (m *machine) lacking(host string, n *name) string {
	if len(n.addresses) == 0 {
		return host + " does not resolve"
	}
	return fmt.Sprintf("%s does not resolve, so %s stays", host, n.addresses[0])
}

func (m *machine) tellName(n *name, kind Kind, text string) {
	m.problemsStale = true
	for _, p := range n.users {
		m.events = append(m.events, Event{kind, p.of.conf.Name, p.conf.Name, fmt.Sprintf("peer %s: %s", p.conf.Name, text)})
	}
}

// sameSet compares answers: a server may turn their order with each.
func sameSet(a, b []netip.Addr) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(x netip.Addr) bool { return !slices.Contains(b, x) })
}
