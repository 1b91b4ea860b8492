package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/control/api"
	"sluice/control/config"
	"sluice/control/tunnel"
	"sluice/crypto/ipsec"
	"sluice/crypto/keys"
	"sluice/crypto/wireguard"
)

const (
	// sessionLife is WireGuard's REJECT_AFTER_TIME: so long after its handshake a session is over.
	sessionLife = 180 * time.Second
	// answerTime is within what WireGuard is answered: KEEPALIVE_TIMEOUT and REKEY_TIMEOUT.
	answerTime = 15 * time.Second
	// hearingTime is how long ago something may have come from a peer without handshakes and probes that is called up.
	hearingTime = time.Minute
)

func (d *Daemon) showTunnels(ctx context.Context) (api.Tunnels, error) {
	f, failed := d.tunnelFacts(ctx)
	counters, err := xfrmCounters()
	out := api.Tunnels{Tunnels: f.shown(), XFRM: counters}
	if failed != nil { // the other tunnels are no worse for it
		out.Warnings = strings.Split(failed.Error(), "\n") // one joined error a line
	}
	return out, err
}

// tunnelFacts is everything that is known of tunnels at one moment.
type tunnelFacts struct {
	conf      []config.Tunnel
	wireguard []wireguard.TunnelStatus
	ipsec     []ipsec.TunnelStatus
	watched   []tunnel.Status
	staged    func(file string) string // public key of the next private key; "": none is staged
	now       time.Time
}

func (d *Daemon) tunnelFacts(ctx context.Context) (tunnelFacts, error) {
	f := tunnelFacts{conf: d.liveConfig().Tunnels, watched: d.tunnels.Status(), staged: stagedKey, now: time.Now()}
	var err, errIPsec error
	var both sync.WaitGroup
	both.Go(func() { f.wireguard, err = d.wireguard.Status(ctx) })
	both.Go(func() { f.ipsec, errIPsec = d.ipsec.Status(ctx) })
	both.Wait()
	return f, errors.Join(err, errIPsec)
}

// stagedKey is the public half of the key that waits beside a private key file; "": none does, or it cannot be used.
func stagedKey(file string) string {
	public, err := keys.PublicKey(keys.FilesOf(file).Next)
	if err != nil {
		return ""
	}
	return public
}

// shown are the tunnels of the file, in its order; then those that are only there still.
func (f tunnelFacts) shown() []api.Tunnel {
	out := []api.Tunnel{}
	for _, conf := range f.conf {
		t := api.Tunnel{
			Name: conf.Name, Type: conf.Type, Interface: conf.Name, Addresses: listed(conf.Addresses), ClampMSS: conf.ClampMSS, Strict: conf.Strict,
			Local: localText(conf), Peers: []api.TunnelPeer{},
		}
		w := find(f.watched, func(s tunnel.Status) bool { return s.Name == conf.Name })
		t.Underlay = w.Underlay
		if conf.Type == config.TypeIPsec {
			f.ipsecTunnel(&t, conf, w)
		} else {
			f.wireguardTunnel(&t, conf, w)
		}
		out = append(out, t)
	}
	return append(out, f.leftovers()...)
}

// leftovers are tunnels of ours that the live file does not name: after a change that failed.
func (f tunnelFacts) leftovers() (out []api.Tunnel) {
	named := func(name string) bool {
		return slices.ContainsFunc(f.conf, func(t config.Tunnel) bool { return t.Name == name })
	}
	add := func(name, kind, backend string, mtu int, running bool) {
		if !named(name) {
			out = append(out, api.Tunnel{Name: name, Type: kind, Backend: backend, Interface: name, MTU: mtu, Running: running,
				Why: "the live revision does not name it", Addresses: []netip.Prefix{}, Peers: []api.TunnelPeer{}})
		}
	}
	for _, t := range f.wireguard {
		add(t.Name, config.TypeWireGuard, string(t.Backend), t.MTU, t.Running)
	}
	for _, t := range f.ipsec {
		add(t.Name, config.TypeIPsec, string(t.Keying), t.MTU, t.Running)
	}
	return out
}

func localText(t config.Tunnel) string {
	switch {
	case !t.Local.Addr().IsValid():
		return ""
	case t.Local.Port() == 0:
		return t.Local.Addr().String()
	}
	return t.Local.String()
}

// find returns the first that fits, or nothing.
func find[T any](list []T, fits func(T) bool) (none T) {
	if i := slices.IndexFunc(list, fits); i >= 0 {
		return list[i]
	}
	return none
}

// shownPeer is what the file and the watcher say of a peer.
func shownPeer(p config.Peer, w tunnel.PeerStatus) api.TunnelPeer {
	out := api.TunnelPeer{
		Name: p.Name, State: api.PeerUnknown, EndpointFrom: w.From, Endpoints: []string{}, LastHeard: w.Heard, Prefixes: listed(p.Prefixes),
		Metric: p.Metric, Routes: api.RoutesInstalled, ID: p.ID, PresharedKeyFile: p.PresharedKeyFile,
	}
	for _, e := range p.Endpoints {
		out.Endpoints = append(out.Endpoints, e.String())
	}
	if w.Endpoint.IsValid() {
		out.Endpoint = endpointText(w.Endpoint)
	}
	if b := w.Probe; b != nil {
		out.Probe = &api.TunnelProbe{Target: b.To, Down: b.Down, Since: b.Since, Sent: b.Sent, Lost: b.Lost, RTT: b.Last.Seconds(), MedianRTT: b.Median.Seconds()}
	}
	switch {
	case !p.Routes || len(p.Prefixes) == 0:
		out.Routes = api.RoutesNone
	case w.Probe != nil && (w.Probe.Down || w.Probe.Held) && !w.Probe.Kept:
		out.Routes = api.RoutesWithdrawn
	}
	return out
}

// noteNames says of a peer whose state is known what is wrong with its names.
func noteNames(out *api.TunnelPeer, w tunnel.PeerStatus) {
	if out.State == api.PeerUp {
		out.Note = w.Unresolved
	} else {
		out.Why = sentences(out.Why, w.Unresolved)
	}
}

// endpointText is the address alone where there is no port of ours.
func endpointText(e netip.AddrPort) string {
	if e.Port() == 0 {
		return e.Addr().String()
	}
	return e.String()
}

func (f tunnelFacts) wireguardTunnel(t *api.Tunnel, conf config.Tunnel, watched tunnel.Status) {
	s := find(f.wireguard, func(s wireguard.TunnelStatus) bool { return s.Name == conf.Name })
	t.Backend, t.Running, t.MTU, t.ListenPort, t.PublicKey = string(s.Backend), s.Running, s.MTU, s.ListenPort, s.PublicKey
	if !t.Running {
		t.Why = cmp.Or(s.Why, "its device does not run: a repair is under way, see the log")
	}
	t.StagedPublicKey = f.staged(conf.PrivateKeyFile)
	for _, p := range conf.Peers {
		w := find(watched.Peers, func(w tunnel.PeerStatus) bool { return w.Name == p.Name })
		out := shownPeer(p, w)
		out.PublicKeys, out.PublicKey = listed(p.PublicKeys), w.PublicKey
		if out.PublicKey == "" && len(p.PublicKeys) > 0 {
			out.PublicKey = p.PublicKeys[0]
		}
		for _, dp := range s.Peers { // a peer with two keys is two of the device
			if !slices.Contains(p.PublicKeys, dp.PublicKey) {
				continue
			}
			out.RxBytes, out.TxBytes = out.RxBytes+uint64(dp.RxBytes), out.TxBytes+uint64(dp.TxBytes)
			if dp.LastHandshake.After(out.LastHandshake) {
				out.LastHandshake = dp.LastHandshake
			}
			if dp.PublicKey == out.PublicKey && dp.Endpoint != "" && dp.Endpoint != out.Endpoint {
				out.Endpoint, out.EndpointFrom = dp.Endpoint, "" // it roamed
			}
		}
		out.State, out.Why = f.wireguardState(*t, out, w)
		noteNames(&out, w)
		t.Peers = append(t.Peers, out)
	}
}

// handshakeText is what to look at where there is no session though one is sought; "": there is one, or nobody knows where to.
func (f tunnelFacts) handshakeText(p api.TunnelPeer) string {
	if p.Endpoint == "" || f.session(p) {
		return ""
	}
	text := "no handshake yet"
	if !p.LastHandshake.IsZero() {
		text = fmt.Sprintf("no handshake for %.0f s", f.now.Sub(p.LastHandshake).Seconds())
	}
	if f.calls(p) {
		text += ", but it calls, so the public keys fit: check the preshared key, and that UDP gets back to it"
	} else {
		text += ": check the UDP port, the public keys, the preshared key"
	}
	if p.PresharedKeyFile == "" {
		text += " (there is no preshared key at this end)"
	}
	return text
}

// session says whether WireGuard has one with the peer.
func (f tunnelFacts) session(p api.TunnelPeer) bool {
	return !p.LastHandshake.IsZero() && f.now.Sub(p.LastHandshake) < sessionLife
}

// calls says whether handshakes of the peer arrive that come to nothing: what is heard without a session can be nothing else. Whoever begins
// one proves both public keys; the preshared key comes with the answer.
func (f tunnelFacts) calls(p api.TunnelPeer) bool {
	return !f.session(p) && f.now.Sub(p.LastHeard) < hearingTime && p.LastHeard.After(p.LastHandshake.Add(sessionLife))
}

// sentences are those that say something, in one line.
func sentences(list ...string) string {
	return strings.Join(slices.DeleteFunc(list, func(s string) bool { return s == "" }), "; ")
}

// wireguardState judges by the probes where there are any; without them a device that has nothing to send says nothing.
func (f tunnelFacts) wireguardState(t api.Tunnel, p api.TunnelPeer, w tunnel.PeerStatus) (api.PeerState, string) {
	session := f.session(p)
	sought := sentences(f.handshakeText(p), w.Why)
	if session {
		sought = sentences(w.Why, w.Doubt)
	}
	switch {
	case !t.Running:
		return api.PeerDown, "the tunnel does not run"
	case p.Probe != nil && p.Probe.Down:
		return api.PeerDown, sought
	case w.Silent >= answerTime, w.Probe != nil && w.Probe.Held, f.calls(p):
		return api.PeerConnecting, sought
	case session && unanswered(p):
		return api.PeerConnecting, "there are handshakes, but its probes have not been answered yet"
	case session:
		return api.PeerUp, ""
	case p.Endpoint == "" && len(p.Endpoints) == 0:
		return api.PeerUnknown, "no endpoint is known: it has to call first"
	case p.Endpoint == "":
		return api.PeerUnknown, "no endpoint is known yet"
	case w.Silent > 0 || p.Probe != nil:
		return api.PeerConnecting, sought
	case p.LastHandshake.IsZero():
		return api.PeerUnknown, "no handshake yet: nothing was sent to it"
	}
	return api.PeerUnknown, "idle: the last handshake was " + f.now.Sub(p.LastHandshake).Round(time.Second).String() + " ago, and nothing has been sent since"
}

// unanswered says whether each of its last probes was lost: not enough of them yet for it to be down.
func unanswered(p api.TunnelPeer) bool {
	return p.Probe != nil && p.Probe.Sent > 0 && p.Probe.Lost == p.Probe.Sent
}
