package wireguard

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"sluice/crypto/path"
)

// machine is a model of what the ops act upon.
type machine struct {
	links  map[string]*modelLink
	routes map[path.Route]string // to the name of the device
	driver Driver                // what it notes of the steps
}

type modelLink struct {
	tunnel    Tunnel // attributes of the device only
	peers     map[string]Peer
	allowed   map[netip.Prefix]string // to the public key of the one peer that has it
	addresses map[netip.Prefix]bool
}

func newMachine() *machine {
	return &machine{map[string]*modelLink{}, map[path.Route]string{}, Driver{carried: map[string]Tunnel{}}}
}

// replay runs ops as the engine does: teardowns last. Every op comes twice, as it may after a crash.
func (m *machine) replay(t *testing.T, ops []Op) {
	t.Helper()
	for _, teardown := range []bool{false, true} {
		for _, op := range ops {
			if op.Teardown() == teardown {
				m.apply(t, op)
				m.apply(t, op)
			}
		}
	}
}

func (m *machine) apply(t *testing.T, op Op) {
	t.Helper()
	defer m.driver.carries(op)
	name := op.tunnel.Name
	l := m.links[name]
	switch op.kind {
	case createTunnel, replaceTunnel, startTunnel:
		m.start(t, op)
		return
	case removeTunnel:
		m.removeLink(name)
		return
	}
	if l == nil {
		t.Fatalf("%s: there is no such link", op)
	}
	switch op.kind {
	case setMTU:
		l.tunnel.MTU = op.tunnel.MTU
	case setDevice:
		m.set(t, l, op)
	case addAddress:
		l.addresses[op.prefix] = true
	case removeAddress:
		delete(l.addresses, op.prefix)
	case addRoute:
		m.routes[op.route] = name
	case removeRoute:
		if m.routes[op.route] == name {
			delete(m.routes, op.route)
		}
	case addPeers:
		for _, p := range op.peers {
			op.peer, op.change = p, peerChange{true, true, true, p.AllowedIPs}
			l.applyPeer(t, op)
		}
	default:
		l.applyPeer(t, op)
	}
}

func (m *machine) start(t *testing.T, op Op) {
	t.Helper()
	name := op.tunnel.Name
	if l := m.links[name]; l != nil && needsReplacing(l.tunnel, op.tunnel) {
		m.removeLink(name)
	}
	l := m.links[name]
	if l == nil {
		l = &modelLink{Tunnel{Name: name, Backend: op.tunnel.Backend}, map[string]Peer{}, map[netip.Prefix]string{}, map[netip.Prefix]bool{}}
		if l.tunnel.Backend == Auto {
			l.tunnel.Backend = Kernel
		}
		m.links[name] = l
	}
	op.fields = fields{true, true, true, true}
	m.set(t, l, op)
	l.tunnel.MTU = op.tunnel.MTU
}

func (m *machine) set(t *testing.T, l *modelLink, op Op) {
	t.Helper()
	if op.fields.key {
		l.tunnel.PublicKey = op.tunnel.PublicKey
	}
	if op.fields.mark {
		l.tunnel.FirewallMark = op.tunnel.FirewallMark
	}
	if op.fields.local && l.tunnel.Backend == Userspace {
		l.tunnel.Local = op.tunnel.Local
	}
	if !op.fields.port {
		return
	}
	for _, other := range m.links {
		if other != l && op.tunnel.ListenPort != 0 && other.tunnel.ListenPort == op.tunnel.ListenPort {
			t.Fatalf("%s: %s has that port", op, other.tunnel.Name)
		}
	}
	l.tunnel.ListenPort = op.tunnel.ListenPort
}

func (m *machine) removeLink(name string) {
	delete(m.links, name)
	for r, dev := range m.routes {
		if dev == name {
			delete(m.routes, r)
		}
	}
}

func (l *modelLink) applyPeer(t *testing.T, op Op) {
	t.Helper()
	key := op.peer.PublicKey
	p, exists := l.peers[key]
	switch op.kind {
	case removePeer:
		delete(l.peers, key)
		for prefix, owner := range l.allowed {
			if owner == key {
				delete(l.allowed, prefix)
			}
		}
		return
	case dropAllowed:
		// The real op takes a prefix from whoever has it.
		for _, prefix := range op.change.allowed {
			delete(l.allowed, prefix)
		}
		return
	case updatePeer:
		if !exists {
			t.Fatalf("%s: there is no such peer", op)
		}
	}
	p.PublicKey = key
	if op.change.endpoint {
		p.Endpoint = op.peer.Endpoint
	}
	if op.change.keepalive {
		p.Keepalive = op.peer.Keepalive
	}
	if op.change.preshared {
		p.PresharedKeyFile = op.peer.PresharedKeyFile
	}
	l.peers[key] = p
	for _, prefix := range op.change.allowed {
		l.allowed[prefix] = key
	}
}

// carried is which peer has a prefix, by tunnel, as the driver noted it.
func (m *machine) carried() map[string]map[netip.Prefix]string {
	out := map[string]map[netip.Prefix]string{}
	for name, t := range m.driver.carried {
		out[name] = map[netip.Prefix]string{}
		for c := range t.carried() {
			for _, prefix := range c.Prefixes {
				out[name][prefix] += c.Peer // of two, neither
			}
		}
	}
	return out
}

// owners is what carried should be.
func (m *machine) owners() map[string]map[netip.Prefix]string {
	out := map[string]map[netip.Prefix]string{}
	for name, l := range m.links {
		out[name] = l.allowed
	}
	return out
}

// state is what Observe would tell of the machine.
func (m *machine) state() State {
	var s State
	for _, l := range m.links {
		t := l.tunnel
		t.Addresses = sorted(l.addresses)
		for _, p := range l.peers {
			own := map[netip.Prefix]bool{}
			for prefix, owner := range l.allowed {
				if owner == p.PublicKey {
					own[prefix] = true
				}
			}
			p.AllowedIPs = sorted(own)
			t.Peers = append(t.Peers, p)
		}
		for r, dev := range m.routes {
			if dev == t.Name {
				t.Routes = append(t.Routes, r)
			}
		}
		slices.SortFunc(t.Peers, func(a, b Peer) int { return strings.Compare(a.PublicKey, b.PublicKey) })
		slices.SortFunc(t.Routes, path.Route.Compare)
		s.Tunnels = append(s.Tunnels, t)
	}
	slices.SortFunc(s.Tunnels, func(a, b Tunnel) int { return strings.Compare(a.Name, b.Name) })
	return s
}

// wanted is want as Observe would tell it. Where want leaves something open, have's choice is right.
func wanted(want, have State) State {
	var s State
	for _, t := range want.Tunnels {
		h, _ := find(have, t.Name)
		t.PrivateKeyFile = ""
		if t.Backend == Auto {
			t.Backend = h.Backend
		}
		if t.Backend != Userspace {
			t.Local = netip.Addr{}
		}
		t.Peers = slices.Clone(t.Peers)
		for i := range t.Peers {
			p := &t.Peers[i]
			p.Name = ""
			if hp, ok := byKey(h)[p.PublicKey]; ok && !p.Endpoint.IsValid() {
				p.Endpoint = hp.Endpoint
			}
		}
		s.Tunnels = append(s.Tunnels, t)
	}
	return s
}

func sorted(set map[netip.Prefix]bool) []netip.Prefix {
	var out []netip.Prefix
	for p := range set {
		out = append(out, p)
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return out
}
