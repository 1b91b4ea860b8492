package ipsec

import (
	"fmt"
	"net/netip"
	"strings"

	"sluice/crypto/path"
)

// Op is one step from one State towards another. It names files of secrets and never holds a secret.
type Op struct {
	kind   kind
	tunnel Tunnel // as wanted; of a removed one, as observed
	peer   Peer   // of peer ops
	why    string // of updates: what differs
	prefix netip.Prefix
	lost   []netip.Prefix // of dropPrefixes
	route  path.Route
	early  bool // a removal that must come before something else can be built
}

type kind int

const (
	createTunnel kind = iota // make the link, set it up
	startTunnel              // what is there of it is adopted
	setTunnel                // settings that the states and the driver know
	setMTU
	addPeer
	updatePeer
	addAddress
	addRoute

	// From here on ops take something away.
	dropPrefixes
	removePeer
	removeAddress
	removeRoute
	removeTunnel
)

// Teardown says whether the op takes something away.
func (o Op) Teardown() bool { return o.kind >= dropPrefixes && !o.early }

// Builds says that all of a tunnel builds on its link, and routes on the peers that they lead to.
func (o Op) Builds() (what string, on []string) {
	link, peers := o.tunnel.Name, "peers of "+o.tunnel.Name
	switch o.kind {
	case createTunnel, startTunnel:
		return link, nil
	case setTunnel, addPeer, updatePeer:
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
		return fmt.Sprintf("create tunnel %s (ipsec, keying %s, encapsulation %s)", name, o.tunnel.Keying, effective(o.tunnel))
	case startTunnel:
		return fmt.Sprintf("start tunnel %s", name)
	case setTunnel:
		return fmt.Sprintf("set tunnel %s: %s", name, o.why)
	case setMTU:
		return fmt.Sprintf("set MTU of %s to %d", name, o.tunnel.MTU)
	case addPeer:
		return fmt.Sprintf("add peer %s to %s (%s)", o.peer.Name, name, prefixes(o.peer.Prefixes))
	case updatePeer:
		return fmt.Sprintf("update peer %s of %s: %s", o.peer.Name, name, o.why)
	case addAddress:
		return fmt.Sprintf("add address %s to %s", o.prefix, name)
	case addRoute:
		return fmt.Sprintf("add route %s dev %s metric %d", o.route.Prefix, name, o.route.Metric)
	case dropPrefixes:
		return fmt.Sprintf("take %s from peer %s of %s", prefixes(o.lost), o.peer.Name, name)
	case removePeer:
		return fmt.Sprintf("remove peer %s from %s", o.peer.Name, name)
	case removeAddress:
		return fmt.Sprintf("remove address %s from %s", o.prefix, name)
	case removeRoute:
		return fmt.Sprintf("remove route %s dev %s metric %d", o.route.Prefix, name, o.route.Metric)
	case removeTunnel:
		return fmt.Sprintf("remove tunnel %s", name)
	}
	return fmt.Sprintf("unknown op %d", int(o.kind))
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
