package ipsec

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"sluice/crypto/path"
)

// machine is a model of what the ops act upon.
type machine struct {
	tunnels map[string]*modelTunnel
	routes  map[path.Route]string // to the name of the device
}

type modelTunnel struct {
	set       Tunnel // settings
	link      bool
	mtu       int
	peers     map[string]Peer         // without prefixes
	policies  map[netip.Prefix]string // to the name of the peer: the kernel has one policy for a prefix
	addresses map[netip.Prefix]bool
}

func newMachine() *machine {
	return &machine{map[string]*modelTunnel{}, map[path.Route]string{}}
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
	name := op.tunnel.Name
	x := m.tunnels[name]
	switch op.kind {
	case createTunnel, startTunnel, setTunnel:
		m.start(op)
		return
	case removeTunnel:
		delete(m.tunnels, name)
		m.cut(name)
		return
	}
	if x == nil || !x.link && op.kind != removePeer {
		t.Fatalf("%s: there is no such link", op)
	}
	switch op.kind {
	case setMTU:
		x.mtu = op.tunnel.MTU
	case addAddress:
		x.addresses[op.prefix] = true
	case removeAddress:
		delete(x.addresses, op.prefix)
	case addRoute:
		m.routes[op.route] = name
	case removeRoute:
		if m.routes[op.route] == name {
			delete(m.routes, op.route)
		}
	default:
		x.applyPeer(t, op)
	}
}

func (m *machine) start(op Op) {
	x := m.tunnels[op.tunnel.Name]
	if x == nil {
		x = &modelTunnel{peers: map[string]Peer{}, policies: map[netip.Prefix]string{}, addresses: map[netip.Prefix]bool{}}
		m.tunnels[op.tunnel.Name] = x
	}
	if keyed(x.set, op.tunnel) != "" { // the states do not fit any more
		for n, p := range x.peers {
			p.Down = true
			x.peers[n] = p
		}
	}
	if !x.link && op.tunnel.MTU == 0 {
		x.mtu = 1400
	}
	if op.tunnel.MTU != 0 {
		x.mtu = op.tunnel.MTU
	}
	x.set, x.link = op.tunnel, true
}

// cut takes away what goes with a link.
func (m *machine) cut(name string) {
	maps.DeleteFunc(m.routes, func(_ path.Route, dev string) bool { return dev == name })
	if x := m.tunnels[name]; x != nil {
		x.link, x.mtu, x.addresses = false, 0, map[netip.Prefix]bool{}
	}
}

func (x *modelTunnel) applyPeer(t *testing.T, op Op) {
	t.Helper()
	switch op.kind {
	case addPeer, updatePeer:
		p := op.peer
		p.Prefixes = nil
		x.peers[p.Name] = p
		for _, prefix := range op.peer.Prefixes {
			x.policies[prefix] = p.Name
		}
	case dropPrefixes:
		for _, prefix := range op.lost {
			if x.policies[prefix] == op.peer.Name {
				delete(x.policies, prefix)
			}
		}
	case removePeer:
		delete(x.peers, op.peer.Name)
		maps.DeleteFunc(x.policies, func(_ netip.Prefix, owner string) bool { return owner == op.peer.Name })
	default:
		t.Fatalf("%s: unknown", op)
	}
}

// state is what Observe would tell of the machine.
func (m *machine) state() State {
	var s State
	for name, x := range m.tunnels {
		if !x.link && len(x.peers) == 0 {
			continue
		}
		t := x.set
		t.Name, t.Down, t.MTU, t.Addresses, t.Routes, t.Peers = name, !x.link, x.mtu, sorted(maps.Keys(x.addresses)), nil, nil
		for _, p := range x.peers {
			for prefix, owner := range x.policies {
				if owner == p.Name {
					p.Prefixes = append(p.Prefixes, prefix)
				}
			}
			slices.SortFunc(p.Prefixes, netip.Prefix.Compare)
			t.Peers = append(t.Peers, p)
		}
		for r, dev := range m.routes {
			if dev == name {
				t.Routes = append(t.Routes, r)
			}
		}
		slices.SortFunc(t.Peers, func(a, b Peer) int { return strings.Compare(a.Name, b.Name) })
		slices.SortFunc(t.Routes, path.Route.Compare)
		s.Tunnels = append(s.Tunnels, t)
	}
	slices.SortFunc(s.Tunnels, func(a, b Tunnel) int { return strings.Compare(a.Name, b.Name) })
	return s
}

func sorted(seq func(func(netip.Prefix) bool)) []netip.Prefix {
	return slices.SortedFunc(seq, netip.Prefix.Compare)
}
