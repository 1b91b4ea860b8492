package daemon

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"sluice/control/config"
	"sluice/control/probe"
	"sluice/control/tunnel"
	"sluice/crypto/wireguard"
	"sluice/crypto/wireguard/child"
	"sluice/xdp/abi"
)

// openWireGuard makes the driver, whose tunnels' processes probe. There is a watcher before there is a probe.
func (d *Daemon) openWireGuard() (err error) {
	d.wireguard, err = wireguard.New(d.opts.Log, wireguard.Options{
		StateDir: d.opts.StateDir, Command: d.opts.TunnelCommand,
		Answered: func(tag uint64, at time.Time) { d.tunnels.Answered(tag, at) },
		Refused:  func(tag uint64, err error) { d.tunnels.Refused(tag, err) },
		Deletes:  d.gone.ours,
	})
	return err
}

// openTunnels makes the watcher of tunnels, and what it asks the machine with.
func (d *Daemon) openTunnels(ctx context.Context) error {
	underlay, err := tunnel.NewUnderlay(abi.MarkUnderlay)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, underlay.Close)
	routes, err := tunnel.WatchRoutes(ctx)
	if err != nil {
		return err
	}
	resolver := tunnel.Resolver{File: cmp.Or(d.opts.ResolvConf, DefaultResolvConf), Servers: func() []netip.Addr { return d.liveConfig().Node.DNS }}
	// Answers come from the first ping on, and then there is a watcher.
	pinger := probe.NewPinger(func(a probe.Answer) { d.tunnels.Answered(a.Tag, a.At) })
	context.AfterFunc(ctx, func() { _ = pinger.Close() })
	d.tunnels = tunnel.New(tunnel.Options{
		Path: filepath.Join(d.state, "tunnels.json"), Log: d.opts.Log, Faults: d.faults,
		Wanted:  d.liveTunnels,
		Sources: map[string]tunnel.Source{config.TypeWireGuard: d.wireguardPeers, config.TypeIPsec: d.ipsecPeers},
		Resolve: resolver.Resolve, Ping: func(list []tunnel.Ping) { d.ping(pinger, list) }, Gathers: d.wireguard.Probes, Underlay: underlay.MTU, Routes: routes,
		Withhold: d.withhold,
		Changed:  func(why string) error { return d.engine.Recompile(ctx, why) },
		Notify:   d.tunnelNotice, Report: d.reportTunnels,
	})
	return nil
}

// ping has the process of a userspace tunnel send its probes; those of others leave by their device.
func (d *Daemon) ping(pinger *probe.Pinger, list []tunnel.Ping) {
	for len(list) > 0 {
		name := list[0].Tunnel
		n := slices.IndexFunc(list, func(p tunnel.Ping) bool { return p.Tunnel != name })
		if n < 0 {
			n = len(list)
		}
		own := make([]child.Probe, n)
		for i, p := range list[:n] {
			own[i] = child.Probe{To: p.To, Tag: p.Tag}
		}
		list = list[n:]
		if d.wireguard.Probe(name, own) {
			continue
		}
		for _, p := range own {
			if err := pinger.Ping(name, p.To, p.Tag); err != nil {
				d.tunnels.Refused(p.Tag, err)
			}
		}
	}
}

func (d *Daemon) liveTunnels() (list []config.Tunnel, live bool) {
	number, _, _ := d.engine.Current()
	return d.liveConfig().Tunnels, number != 0
}

// wireguardPeers is what the devices say. The watcher knows peers by their keys, which devices never forget.
func (d *Daemon) wireguardPeers(ctx context.Context) ([]tunnel.Seen, error) {
	tunnels, err := d.wireguard.Status(ctx)
	var out []tunnel.Seen
	for _, t := range tunnels {
		for _, p := range t.Peers {
			s := tunnel.Seen{Tunnel: t.Name, PublicKey: p.PublicKey, Handshake: p.LastHandshake, Rx: uint64(p.RxBytes), Tx: uint64(p.TxBytes)}
			if p.Endpoint != "" {
				s.Endpoint, _ = netip.ParseAddrPort(p.Endpoint) // invalid: not known
			}
			out = append(out, s)
		}
	}
	return out, err
}

// ipsecPeers is what the kernel's states and charon say. With static keys there is no session.
func (d *Daemon) ipsecPeers(ctx context.Context) ([]tunnel.Seen, error) {
	sessions := map[string]tunnel.Session{"up": tunnel.SessionUp, "down": tunnel.SessionDown, "connecting": tunnel.SessionDown}
	tunnels, err := d.ipsec.Status(ctx)
	d.epochs.look(tunnels, d.tunnelNotice)
	var out []tunnel.Seen
	for _, t := range tunnels {
		for _, p := range t.Peers {
			s := tunnel.Seen{Tunnel: t.Name, Peer: p.Name, Rx: p.RxBytes, Tx: p.TxBytes, Session: sessions[p.State]}
			if p.Moved || s.Session == tunnel.SessionUp {
				s.Endpoint = whereIs(p.Endpoint)
			}
			out = append(out, s)
		}
	}
	return out, err
}

// whereIs reads an address with or without a port; invalid: neither.
func whereIs(text string) netip.AddrPort {
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.AddrPortFrom(a, 0)
	}
	a, _ := netip.ParseAddrPort(text)
	return a
}

// adoptTunnels has the first compilation take peers where they are.
func (d *Daemon) adoptTunnels(ctx context.Context) {
	if err := d.tunnels.Load(); err != nil {
		d.opts.Log.Warn("tunnels", "error", err)
	}
	seen, err := d.wireguardPeers(ctx)
	if err != nil {
		d.opts.Log.Warn("tunnels of an earlier process", "error", err)
	}
	d.tunnels.Adopt(seen)
}

// withhold takes the routes to peers that are down away while the engine may be busy with something else. What the engine
// wants of tunnels (subsystems) lacks them, too, whenever it was compiled.
func (d *Daemon) withhold(ctx context.Context, down []tunnel.Down) error {
	keys, names := map[string][]string{}, map[string][]string{}
	for _, p := range down {
		if p.Type == config.TypeIPsec {
			names[p.Tunnel] = append(names[p.Tunnel], p.Peer)
		} else {
			keys[p.Tunnel] = append(keys[p.Tunnel], p.PublicKeys...)
		}
	}
	return errors.Join(d.wireguard.Withhold(ctx, keys), d.ipsec.Withhold(ctx, names))
}
