package wireguard

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sluice/crypto/path"
)

// Op is one step from one State towards another. It names key files and never holds a secret.
type Op struct {
	kind   kind
	tunnel Tunnel // as wanted; of a removed one, as observed
	fields fields // what a set changes
	peer   Peer   // of ops on one peer
	peers  []Peer // of addPeers
	change peerChange
	prefix netip.Prefix // of address ops
	route  path.Route
	early  bool // a remove that must come before something else can be built
	key    bool // of addPeers and removePeer: the device's peer is one of several keys that a peer of the file has, or had
}

type kind int

const (
	createTunnel  kind = iota // make the link, start it
	startTunnel               // the link is there and ours, but not running: adopt it, routes untouched
	replaceTunnel             // the wanted backend needs another link
	setDevice
	setMTU
	addPeers
	updatePeer
	addAddress
	addRoute

	// From here on ops take something away.
	dropAllowed
	removePeer
	removeAddress
	removeRoute
	removeTunnel
)

// fields says which attributes of a device a setDevice writes.
type fields struct{ key, port, mark, local bool }

// peerChange says what of a peer is written; allowed are prefixes that it gains, or loses in a dropAllowed.
type peerChange struct {
	endpoint, keepalive, preshared bool
	allowed                        []netip.Prefix
}

// Teardown says whether the op takes something away.
func (o Op) Teardown() bool { return o.kind >= dropAllowed && !o.early }

// Contained says whether the op changes nothing that another subsystem observes: peers of a device, or routes of our own protocol.
// A route of ours takes the place of none but one of the same prefix, metric and table, and no blackhole has a peer's metric.
func (o Op) Contained() bool {
	return slices.Contains([]kind{addPeers, updatePeer, dropAllowed, removePeer, addRoute, removeRoute}, o.kind)
}

// Builds says that all of a tunnel builds on its link, and routes on the peers that they lead to: a route whose peer is not there would
// take packets from the tunnel that still carries them.
func (o Op) Builds() (what string, on []string) {
	link, peers := o.tunnel.Name, "peers of "+o.tunnel.Name
	switch o.kind {
	case createTunnel, startTunnel, replaceTunnel:
		return link, nil
	case addPeers, updatePeer:
		return peers, []string{link}
	case addRoute:
		return "", []string{link, peers}
	}
	return "", []string{link}
}

// String says what the op does, in one line.
func (o Op) String() string {
	name := o.tunnel.Name
	switch o.kind {
	case createTunnel:
		return fmt.Sprintf("create tunnel %s (wireguard, backend %s, port %d)", name, o.tunnel.Backend, o.tunnel.ListenPort)
	case startTunnel:
		return fmt.Sprintf("start tunnel %s on its existing interface", name)
	case replaceTunnel:
		return fmt.Sprintf("replace tunnel %s by one of backend %s", name, o.tunnel.Backend)
	case setDevice:
		return fmt.Sprintf("set tunnel %s: %s", name, o.describeFields())
	case setMTU:
		return fmt.Sprintf("set MTU of %s to %d", name, o.tunnel.MTU)
	case addPeers:
		if len(o.peers) != 1 {
			return fmt.Sprintf("add %d peers to %s: %s", len(o.peers), name, someNames(o.peers))
		}
		p := o.peers[0]
		if !o.key {
			return fmt.Sprintf("add peer %s to %s (%s)", peerName(p), name, prefixes(p.AllowedIPs))
		}
		what := prefixes(p.AllowedIPs)
		if len(p.AllowedIPs) == 0 {
			what += " until the peer uses it"
		}
		return fmt.Sprintf("add key %s of peer %s to %s (%s)", p.PublicKey, peerName(p), name, what)
	case updatePeer:
		return fmt.Sprintf("update peer %s of %s: %s", o.peerName(), name, o.describeChange())
	case addAddress:
		return fmt.Sprintf("add address %s to %s", o.prefix, name)
	case addRoute:
		return fmt.Sprintf("add route %s dev %s metric %d", o.route.Prefix, name, o.route.Metric)
	case dropAllowed:
		return fmt.Sprintf("take %s from peer %s of %s", prefixes(o.change.allowed), o.peerName(), name)
	case removePeer:
		if o.key {
			return fmt.Sprintf("remove key %s of peer %s from %s; the peer stays", o.peer.PublicKey, o.peerName(), name)
		}
		return fmt.Sprintf("remove peer %s from %s", o.peerName(), name)
	case removeAddress:
		return fmt.Sprintf("remove address %s from %s", o.prefix, name)
	case removeRoute:
		return fmt.Sprintf("remove route %s dev %s metric %d", o.route.Prefix, name, o.route.Metric)
	case removeTunnel:
		return fmt.Sprintf("remove tunnel %s", name)
	}
	return fmt.Sprintf("unknown op %d", int(o.kind))
}

func (o Op) describeFields() string {
	var parts []string
	if o.fields.key {
		parts = append(parts, "private key of "+o.tunnel.PrivateKeyFile)
	}
	if o.fields.port {
		parts = append(parts, fmt.Sprintf("port %d", o.tunnel.ListenPort))
	}
	if o.fields.mark {
		parts = append(parts, fmt.Sprintf("fwmark %#x", o.tunnel.FirewallMark))
	}
	if o.fields.local {
		local := "as routed"
		if o.tunnel.Local.IsValid() {
			local = o.tunnel.Local.String()
		}
		parts = append(parts, "local address "+local)
	}
	return strings.Join(parts, ", ")
}

func (o Op) describeChange() string {
	var parts []string
	if o.change.endpoint {
		parts = append(parts, "endpoint "+o.peer.Endpoint.String())
	}
	if o.change.keepalive {
		parts = append(parts, "keepalive "+o.peer.Keepalive.String())
	}
	if o.change.preshared {
		file := o.peer.PresharedKeyFile
		if file == "" {
			file = "none"
		}
		parts = append(parts, "preshared key "+file)
	}
	if len(o.change.allowed) > 0 {
		parts = append(parts, "add "+prefixes(o.change.allowed))
	}
	return strings.Join(parts, ", ")
}

func (o Op) peerName() string { return peerName(o.peer) }

// peerName falls back to the public key where nobody told a name.
func peerName(p Peer) string {
	if p.Name != "" {
		return p.Name
	}
	return p.PublicKey
}

// someNames names a few of many peers.
func someNames(list []Peer) string {
	var names []string
	for _, p := range list[:min(fewPeers, len(list))] {
		names = append(names, peerName(p))
	}
	if len(list) > fewPeers {
		names = append(names, "…")
	}
	return strings.Join(names, " ")
}

func prefixes(list []netip.Prefix) string {
	if len(list) == 0 {
		return "no prefixes"
	}
	parts := make([]string, len(list))
	for i, p := range list {
		parts[i] = p.String()
	}
	return strings.Join(parts, " ")
}
