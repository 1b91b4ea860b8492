package wireguard

import (
	"net/netip"
	"slices"
	"time"

	"sluice/crypto/path"
)

// Diff returns the ops that bring a machine from have to want. It is pure, and Diff(x, x) is empty.
//
// The order keeps traffic encrypted and flowing: a device stands before its peers, peers before the routes that lead to
// them. What is taken away comes after everything that is built: peers and addresses, then routes (a removed link takes
// its routes with it at the same instant).
//
// Peer names are not compared: no device knows them. They are for the words of steps alone.
func Diff(have, want State) []Op {
	var build, tear []Op
	build = append(build, releasePorts(have, want)...)
	released := map[string]bool{}
	for _, op := range build {
		released[op.tunnel.Name] = op.kind == removeTunnel
	}
	for _, w := range want.Tunnels {
		h, ok := find(have, w.Name)
		b, t := diffTunnel(h, w, ok)
		build, tear = append(build, b...), append(tear, t...)
	}
	for _, h := range have.Tunnels {
		if _, ok := find(want, h.Name); !ok && !released[h.Name] {
			tear = append(tear, Op{kind: removeTunnel, tunnel: h})
		}
	}
	return append(build, tear...)
}

// releasePorts frees the UDP ports that another tunnel is to take over: building comes before removing, and the bind
// of the new owner would fail. A tunnel that goes is removed early; one that stays listens on any port meanwhile.
func releasePorts(have, want State) []Op {
	var ops []Op
	for _, h := range have.Tunnels {
		taken := slices.ContainsFunc(want.Tunnels, func(w Tunnel) bool {
			return w.Name != h.Name && w.ListenPort != 0 && w.ListenPort == h.ListenPort
		})
		if !taken {
			continue
		}
		w, stays := find(want, h.Name)
		if !stays {
			ops = append(ops, Op{kind: removeTunnel, tunnel: h, early: true})
			continue
		}
		w.ListenPort = 0
		ops = append(ops, Op{kind: setDevice, tunnel: w, fields: fields{port: true}})
	}
	return ops
}

func diffTunnel(have, want Tunnel, exists bool) (build, tear []Op) {
	switch {
	case !exists:
		build = append(build, Op{kind: createTunnel, tunnel: want})
		have = started(Tunnel{}, want)
	case needsReplacing(have, want):
		build = append(build, Op{kind: replaceTunnel, tunnel: want})
		have = started(Tunnel{}, want)
	case have.Down:
		build = append(build, Op{kind: startTunnel, tunnel: want})
		have = started(have, want)
	default:
		if f := diffDevice(have, want); f != (fields{}) {
			build = append(build, Op{kind: setDevice, tunnel: want, fields: f})
		}
	}
	if want.MTU != 0 && have.MTU != want.MTU {
		build = append(build, Op{kind: setMTU, tunnel: want})
	}
	peers, peersGone := diffPeers(have, want)
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

// started is have after a create, replace or start for want: those write every attribute of the device.
func started(have, want Tunnel) Tunnel {
	have.Down = false
	have.Backend, have.PublicKey = want.Backend, want.PublicKey
	have.ListenPort, have.FirewallMark, have.MTU = want.ListenPort, want.FirewallMark, want.MTU
	have.Local = want.Local
	return have
}

func needsReplacing(have, want Tunnel) bool {
	return want.Backend != Auto && want.Backend != have.Backend
}

func diffDevice(have, want Tunnel) fields {
	return fields{
		key:  want.PublicKey != "" && have.PublicKey != want.PublicKey,
		port: want.ListenPort != 0 && have.ListenPort != want.ListenPort,
		mark: have.FirewallMark != want.FirewallMark,
		// The kernel's device has no such setting.
		local: have.Backend == Userspace && have.Local != want.Local,
	}
}

// diffPeers never takes a prefix from a peer by name when another peer gains it: giving it to the new owner moves it in
// one step of the device, while taking it first would leave a gap, and taking it afterwards would take it from the new
// owner.
func diffPeers(have, want Tunnel) (build, tear []Op) {
	gained := map[netip.Prefix]bool{}
	had, wanted := byKey(have), byKey(want)
	var fresh []Peer
	for _, w := range want.Peers {
		h, exists := had[w.PublicKey]
		if !exists {
			h = &Peer{}
		}
		added, _ := path.Difference(h.AllowedIPs, w.AllowedIPs)
		for _, p := range added {
			gained[p] = true
		}
		if !exists {
			fresh = append(fresh, w)
			continue
		}
		c := peerChange{
			endpoint:  w.Endpoint.IsValid() && w.Endpoint != h.Endpoint,
			keepalive: w.Keepalive.Truncate(time.Second) != h.Keepalive.Truncate(time.Second),
			preshared: w.PresharedKeyFile != h.PresharedKeyFile,
			allowed:   added,
		}
		if c.endpoint || c.keepalive || c.preshared || len(c.allowed) > 0 {
			build = append(build, Op{kind: updatePeer, tunnel: want, peer: w, change: c})
		}
	}
	batch := 1 // a plan tells them one by one
	if len(fresh) > fewPeers {
		batch = len(fresh)
	}
	for list := range slices.Chunk(fresh, batch) {
		key := sameName(have, list[0]) || len(list[0].AllowedIPs) == 0 && sameName(want, list[0])
		build = append(build, Op{kind: addPeers, tunnel: want, peers: list, key: key})
	}
	for _, h := range have.Peers {
		w, stays := wanted[h.PublicKey]
		if !stays {
			tear = append(tear, Op{kind: removePeer, tunnel: want, peer: h, key: sameName(want, h)})
			continue
		}
		_, lost := path.Difference(h.AllowedIPs, w.AllowedIPs)
		lost = slices.DeleteFunc(lost, func(p netip.Prefix) bool { return gained[p] })
		if len(lost) > 0 {
			tear = append(tear, Op{kind: dropAllowed, tunnel: want, peer: *w, change: peerChange{allowed: lost}})
		}
	}
	return build, tear
}

// sameName says whether a tunnel has a peer of that name with another key.
func sameName(t Tunnel, p Peer) bool {
	return p.Name != "" && slices.ContainsFunc(t.Peers, func(o Peer) bool { return o.Name == p.Name && o.PublicKey != p.PublicKey })
}

func find(s State, name string) (Tunnel, bool) {
	i := slices.IndexFunc(s.Tunnels, func(t Tunnel) bool { return t.Name == name })
	if i < 0 {
		return Tunnel{}, false
	}
	return s.Tunnels[i], true
}

// fewPeers is how many new peers get an op each; more are one op and one request, since a thousand requests take seconds.
const fewPeers = 8

func byKey(t Tunnel) map[string]*Peer {
	out := make(map[string]*Peer, len(t.Peers))
	for i := range t.Peers {
		out[t.Peers[i].PublicKey] = &t.Peers[i]
	}
	return out
}
