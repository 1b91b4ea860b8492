package wireguard

import (
	"net/netip"
	"slices"
	"time"
)

// Diff returns the ops that bring a machine from have to want. It is pure, and Diff(x, x) is empty.
//
// The order keeps traffic encrypted and flowing: blackholes stand before anything can leak, a device before its peers,
// peers before the routes that lead to them. What is taken away comes after everything that is built: peers and
// addresses, then routes (a removed link takes its routes with it at the same instant), and blackholes last of all.
//
// Peer names are not compared: no device knows them.
func Diff(have, want State) []Op {
	var build, tear []Op
	missing, surplus := diffSets(blackholes(have), blackholes(want))
	for _, p := range missing {
		build = append(build, Op{kind: addBlackhole, prefix: p})
	}
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
		if _, ok := find(want, h.Name); !ok && h.Name != "" && !released[h.Name] {
			tear = append(tear, Op{kind: removeTunnel, tunnel: h})
		}
	}
	for _, p := range surplus {
		tear = append(tear, Op{kind: removeBlackhole, prefix: p})
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

	added, gone := diffSets(have.Addresses, want.Addresses)
	for _, p := range added {
		build = append(build, Op{kind: addAddress, tunnel: want, prefix: p})
	}
	for _, p := range gone {
		tear = append(tear, Op{kind: removeAddress, tunnel: want, prefix: p})
	}
	missing, surplus := diffSets(normalRoutes(have.Routes), normalRoutes(want.Routes))
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
	return have
}

func needsReplacing(have, want Tunnel) bool {
	return want.Backend != Auto && want.Backend != have.Backend
}

func diffDevice(have, want Tunnel) fields {
	return fields{
		key:  have.PublicKey != want.PublicKey,
		port: want.ListenPort != 0 && have.ListenPort != want.ListenPort,
		mark: have.FirewallMark != want.FirewallMark,
	}
}

// diffPeers never takes a prefix from a peer by name when another peer gains it: giving it to the new owner moves it in
// one step of the device, while taking it first would leave a gap, and taking it afterwards would take it from the new
// owner.
func diffPeers(have, want Tunnel) (build, tear []Op) {
	gained := map[netip.Prefix]bool{}
	for _, w := range want.Peers {
		h, exists := findPeer(have, w.PublicKey)
		added, _ := diffSets(h.AllowedIPs, w.AllowedIPs)
		for _, p := range added {
			gained[p] = true
		}
		if !exists {
			build = append(build, Op{kind: addPeer, tunnel: want, peer: w})
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
	for _, h := range have.Peers {
		w, stays := findPeer(want, h.PublicKey)
		if !stays {
			tear = append(tear, Op{kind: removePeer, tunnel: want, peer: h})
			continue
		}
		_, lost := diffSets(h.AllowedIPs, w.AllowedIPs)
		lost = slices.DeleteFunc(lost, func(p netip.Prefix) bool { return gained[p] })
		if len(lost) > 0 {
			tear = append(tear, Op{kind: dropAllowed, tunnel: want, peer: w, change: peerChange{allowed: lost}})
		}
	}
	return build, tear
}

// blackholes is the union over all tunnels: the kernel knows one route per prefix, and not for whom it stands.
func blackholes(s State) []netip.Prefix {
	var all []netip.Prefix
	for _, t := range s.Tunnels {
		all = append(all, t.Blackholes...)
	}
	slices.SortFunc(all, netip.Prefix.Compare)
	return slices.Compact(all)
}

// normalRoutes gives IPv6 routes of metric 0 the metric that the kernel gives them.
func normalRoutes(routes []Route) []Route {
	out := slices.Clone(routes)
	for i, r := range out {
		if r.Metric == 0 && r.Prefix.Addr().Is6() {
			out[i].Metric = ipv6DefaultMetric
		}
	}
	return out
}

// ipv6DefaultMetric is IP6_RT_PRIO_USER of the kernel.
const ipv6DefaultMetric = 1024

// diffSets returns what want has and have lacks, and the reverse, each in its own order.
func diffSets[T comparable](have, want []T) (missing, surplus []T) {
	return without(want, have), without(have, want)
}

// without returns the elements of list that are not in other.
func without[T comparable](list, other []T) []T {
	in := make(map[T]bool, len(other))
	for _, x := range other {
		in[x] = true
	}
	var out []T
	for _, x := range list {
		if !in[x] {
			out = append(out, x)
		}
	}
	return out
}

func find(s State, name string) (Tunnel, bool) {
	i := slices.IndexFunc(s.Tunnels, func(t Tunnel) bool { return t.Name == name })
	if i < 0 {
		return Tunnel{}, false
	}
	return s.Tunnels[i], true
}

func findPeer(t Tunnel, key string) (Peer, bool) {
	i := slices.IndexFunc(t.Peers, func(p Peer) bool { return p.PublicKey == key })
	if i < 0 {
		return Peer{}, false
	}
	return t.Peers[i], true
}
