package ipsec

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"sluice/crypto/path"
)

// Diff returns the ops that bring a machine from have to want. It is pure, and Diff(x, x) is empty.
//
// A link stands before its peers, and peers before the routes that lead to them; what a link has no policy for, the kernel
// drops. What is taken away comes after everything that is built, and a tunnel goes as a whole.
func Diff(have, want State) []Op {
	build, released := release(have, want)
	var tear []Op
	for _, w := range want.Tunnels {
		h, ok := find(have, w.Name)
		b, t := diffTunnel(h, w, ok)
		build = append(build, b...)
		tear = append(tear, slices.DeleteFunc(t, func(o Op) bool { return o.kind == removePeer && released[w.Name+"/"+o.peer.Name] })...)
	}
	for _, h := range have.Tunnels {
		if _, ok := find(want, h.Name); !ok && !released[h.Name] {
			tear = append(tear, Op{kind: removeTunnel, tunnel: h})
		}
	}
	return append(build, tear...)
}

// release frees the SPIs that another tunnel is to take over: they follow from the identities of both ends, and building
// comes before removing. released names the tunnels and peers that are removed early.
func release(have, want State) (ops []Op, released map[string]bool) {
	type ends struct{ local, remote string }
	claimed := map[ends]string{}
	for _, w := range want.Tunnels {
		for _, p := range w.Peers {
			claimed[ends{w.ID, p.ID}] = w.Name
		}
	}
	released = map[string]bool{}
	for _, h := range have.Tunnels {
		w, stays := find(want, h.Name)
		for _, p := range h.Peers {
			by, taken := claimed[ends{h.ID, p.ID}]
			if !taken || by == h.Name || released[h.Name] {
				continue
			}
			if !stays {
				ops, released[h.Name] = append(ops, Op{kind: removeTunnel, tunnel: h, early: true}), true
			} else if _, ok := findPeer(w, p.Name); !ok {
				ops = append(ops, Op{kind: removePeer, tunnel: w, peer: p, early: true})
				released[h.Name+"/"+p.Name] = true
			}
		}
	}
	return ops, released
}

func diffTunnel(have, want Tunnel, exists bool) (build, tear []Op) {
	anew := "" // why every peer's states are written again
	why := diffSettings(have, want)
	switch {
	case !exists:
		build = append(build, Op{kind: createTunnel, tunnel: want})
	case have.Down:
		build = append(build, Op{kind: startTunnel, tunnel: want})
		anew = keyed(have, want)
	case why != "":
		build = append(build, Op{kind: setTunnel, tunnel: want, why: why})
		anew = keyed(have, want)
	}
	if exists && want.MTU != 0 && have.MTU != 0 && have.MTU != want.MTU {
		build = append(build, Op{kind: setMTU, tunnel: want})
	}
	peers, peersGone := diffPeers(have, want, anew)
	build, tear = append(build, peers...), append(tear, peersGone...)

	added, gone := path.Difference(have.Addresses, want.Addresses)
	for _, p := range added {
		build = append(build, Op{kind: addAddress, tunnel: want, prefix: p})
	}
	for _, p := range gone {
		tear = append(tear, Op{kind: removeAddress, tunnel: want, prefix: p})
	}
	missing, surplus := path.DiffRoutes(have.Routes, want.Routes)
	for _, r := range missing {
		build = append(build, Op{kind: addRoute, tunnel: want, route: r})
	}
	for _, r := range surplus {
		tear = append(tear, Op{kind: removeRoute, tunnel: want, route: r})
	}
	return build, tear
}

// keyed says what of a tunnel's settings differs that all its states have in them; "" for nothing.
func keyed(have, want Tunnel) string {
	var parts []string
	add := func(differs bool, what string) {
		if differs {
			parts = append(parts, what)
		}
	}
	add(have.Local.Addr() != want.Local.Addr() || want.udp() && port(have.Local) != port(want.Local), fmt.Sprintf("local %s", want.Local))
	add(have.FirewallMark != want.FirewallMark, fmt.Sprintf("fwmark %#x", want.FirewallMark))
	add(have.Keying != want.Keying, fmt.Sprintf("keying %s", want.Keying))
	add(have.ID != want.ID, fmt.Sprintf("id %q", want.ID))
	add(effective(have) != effective(want), fmt.Sprintf("encapsulation %s", effective(want)))
	add(have.ReplayWindow != want.ReplayWindow, fmt.Sprintf("replay window %d", want.ReplayWindow))
	if want.Keying == IKE {
		add(have.Rekey != want.Rekey, fmt.Sprintf("rekey %s", want.Rekey))
		add(have.Charon != want.Charon, "charon at "+want.Charon)
		add(!slices.Equal(have.IKEProposals, want.IKEProposals) || !slices.Equal(have.ESPProposals, want.ESPProposals), "proposals")
		add(!reflect.DeepEqual(have.Certificates, want.Certificates), proofText(want))
	}
	return strings.Join(parts, ", ")
}

// diffSettings is keyed, and what the driver alone knows.
func diffSettings(have, want Tunnel) string {
	parts := []string{}
	if k := keyed(have, want); k != "" {
		parts = append(parts, k)
	}
	if have.Rekey != want.Rekey {
		parts = append(parts, fmt.Sprintf("rekey %s", want.Rekey))
	}
	if have.Charon != want.Charon || !slices.Equal(have.IKEProposals, want.IKEProposals) || !slices.Equal(have.ESPProposals, want.ESPProposals) {
		parts = append(parts, "charon and proposals")
	}
	return strings.Join(parts, ", ")
}

// proofText says what proves who is who.
func proofText(t Tunnel) string {
	if t.Certificates == nil {
		return "preshared keys"
	}
	return "certificate " + t.Certificates.Certificate
}

// effective is the encapsulation in use.
func effective(t Tunnel) Encapsulation {
	if t.Encapsulation == UDP {
		return UDP
	}
	return None
}

// diffPeers takes no prefix from a peer that another peer gains: the kernel has one policy for it, which the new owner has
// replaced by then.
func diffPeers(have, want Tunnel, anew string) (build, tear []Op) {
	gained := map[netip.Prefix]bool{}
	for _, w := range want.Peers {
		h, exists := findPeer(have, w.Name)
		added, _ := path.Difference(h.Prefixes, w.Prefixes)
		for _, p := range added {
			gained[p] = true
		}
		if !exists {
			build = append(build, Op{kind: addPeer, tunnel: want, peer: w})
		} else if why := diffPeer(h, w, want.udp(), added, anew); why != "" {
			build = append(build, Op{kind: updatePeer, tunnel: want, peer: w, why: why})
		}
	}
	for _, h := range have.Peers {
		w, stays := findPeer(want, h.Name)
		if !stays {
			tear = append(tear, Op{kind: removePeer, tunnel: want, peer: h})
			continue
		}
		_, lost := path.Difference(h.Prefixes, w.Prefixes)
		lost = slices.DeleteFunc(lost, func(p netip.Prefix) bool { return gained[p] })
		if len(lost) > 0 {
			tear = append(tear, Op{kind: dropPrefixes, tunnel: want, peer: w, lost: lost})
		}
	}
	return build, tear
}

// diffPeer says what of a peer is to be written, "" for nothing.
func diffPeer(have, want Peer, udp bool, added []netip.Prefix, anew string) string {
	var parts []string
	if anew != "" {
		parts = append(parts, anew)
	}
	if have.ID != want.ID {
		parts = append(parts, fmt.Sprintf("id %q", want.ID))
	}
	if have.Endpoint.Addr() != want.Endpoint.Addr() || udp && port(have.Endpoint) != port(want.Endpoint) {
		parts = append(parts, "endpoint "+want.Endpoint.String())
	}
	if have.SecretFile != want.SecretFile && want.SecretFile != "" {
		parts = append(parts, "secret of "+want.SecretFile)
	}
	if len(added) > 0 {
		parts = append(parts, "add "+prefixes(added))
	}
	if have.Down && len(parts) == 0 {
		parts = append(parts, "repair its states and policies")
	}
	return strings.Join(parts, ", ")
}

func find(s State, name string) (Tunnel, bool) {
	i := slices.IndexFunc(s.Tunnels, func(t Tunnel) bool { return t.Name == name })
	if i < 0 {
		return Tunnel{}, false
	}
	return s.Tunnels[i], true
}

func findPeer(t Tunnel, name string) (Peer, bool) {
	i := slices.IndexFunc(t.Peers, func(p Peer) bool { return p.Name == name })
	if i < 0 {
		return Peer{}, false
	}
	return t.Peers[i], true
}
