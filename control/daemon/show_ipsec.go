package daemon

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"sluice/control/api"
	"sluice/control/config"
	"sluice/control/tunnel"
	"sluice/crypto/ipsec"
)

func (f tunnelFacts) ipsecTunnel(t *api.Tunnel, conf config.Tunnel, watched tunnel.Status) {
	s := find(f.ipsec, func(s ipsec.TunnelStatus) bool { return s.Name == conf.Name })
	t.Backend, t.Running, t.MTU, t.InterfaceID = conf.IPsec.Keying, s.Running, s.MTU, s.IfID
	t.ID, t.Encapsulation = conf.IPsec.ID, cmp.Or(string(s.Encapsulation), conf.IPsec.Encapsulation)
	t.Local = cmp.Or(s.Local, t.Local)
	t.Certificate = shownCertificate(conf, f.now)
	switch {
	case !t.Running:
		t.Why = "its interface is not up, or its UDP port is not held: a repair is under way, see the log"
	case s.Charon != "":
		t.Why = s.Charon
	}
	for _, p := range conf.Peers {
		w := find(watched.Peers, func(w tunnel.PeerStatus) bool { return w.Name == p.Name })
		out := shownPeer(p, w)
		if i := slices.IndexFunc(s.Peers, func(s ipsec.PeerStatus) bool { return s.Name == p.Name }); i >= 0 {
			f.ipsecPeer(&out, conf, s.Peers[i])
			out.State, out.Why = f.ipsecState(*t, out, s.Peers[i], w)
		} else {
			out.State, out.Why = api.PeerDown, cmp.Or(w.Why, "nothing is set up for it: it has no endpoint that is known")
		}
		noteNames(&out, w)
		t.Peers = append(t.Peers, out)
	}
}

func (f tunnelFacts) ipsecPeer(out *api.TunnelPeer, conf config.Tunnel, s ipsec.PeerStatus) {
	if s.Endpoint != out.Endpoint {
		out.Endpoint = s.Endpoint // with the port of UDP, or where the peer moved to
	}
	if s.Moved {
		out.EndpointFrom = ""
	}
	out.EndpointNext = s.Waits
	if s.LastHeard.After(out.LastHeard) {
		out.LastHeard = s.LastHeard
	}
	out.ID, out.RxBytes, out.TxBytes = cmp.Or(s.ID, out.ID), s.RxBytes, s.TxBytes
	if s.SPI == 0 && len(s.SPIsIn) == 0 {
		return
	}
	sa := &api.TunnelSA{
		SPIOut: spiText(s.SPI), SPIIn: []string{}, Begun: s.Begun, Epoch: s.Epoch, PeerEpoch: s.PeerEpoch, RekeyIn: s.Rekey.Seconds(), ESN: s.ESN,
		Sequence: s.Sequence, RxPackets: s.RxPackets, TxPackets: s.TxPackets, Forged: s.Forged, Replayed: s.Replayed,
	}
	for _, spi := range s.SPIsIn {
		sa.SPIIn = append(sa.SPIIn, spiText(spi))
	}
	sa.HeadRoom = math.MaxUint64 - s.Sequence
	if !s.ESN {
		sa.HeadRoom = math.MaxUint32 - min(math.MaxUint32, s.Sequence)
	}
	if every := conf.IPsec.Rekey; conf.IPsec.Keying == config.KeyingStatic && every > 0 && !s.Begun.IsZero() {
		sa.RekeyIn = max(0, s.Begun.Add(every).Sub(f.now)).Round(time.Second).Seconds()
	}
	out.SA = sa
}

func spiText(spi uint32) string {
	if spi == 0 {
		return ""
	}
	return fmt.Sprintf("%08x", spi)
}

func (f tunnelFacts) ipsecState(t api.Tunnel, p api.TunnelPeer, s ipsec.PeerStatus, w tunnel.PeerStatus) (api.PeerState, string) {
	unprobed := sentences(w.Why, w.Doubt)
	if t.Backend == config.KeyingIKE && s.State != string(api.PeerUp) { // what charon says is why
		unprobed = sentences(s.Why, w.Why)
	}
	switch {
	case !t.Running:
		return api.PeerDown, "the tunnel does not run"
	case p.Probe != nil && p.Probe.Down:
		return api.PeerDown, unprobed
	case w.Probe != nil && w.Probe.Held:
		return api.PeerConnecting, unprobed
	case t.Backend == config.KeyingIKE && s.State == string(api.PeerUnknown):
		return api.PeerUnknown, "charon does not answer; what was established goes on until its keys are worn out"
	case t.Backend == config.KeyingIKE && s.State == string(api.PeerConnecting):
		return api.PeerConnecting, sentences("charon is negotiating with it", s.Why)
	case t.Backend == config.KeyingIKE && s.State != string(api.PeerUp) && s.Why != "":
		return api.PeerDown, "charon has no session with it: " + s.Why
	case t.Backend == config.KeyingIKE && s.State != string(api.PeerUp):
		return api.PeerDown, "charon has no session with it: it does not answer, or ids, keys or proposals differ (see charon's log)"
	case t.Backend == config.KeyingIKE && unanswered(p):
		return api.PeerConnecting, "charon has a session with it, but its probes have not been answered yet"
	case t.Backend == config.KeyingIKE:
		return api.PeerUp, ""
	case s.Epoch == 0 && s.Why != "":
		return api.PeerUnknown, "its keys cannot be had, and what an earlier process has set goes on as it is: " + s.Why
	case s.Epoch == 0:
		return api.PeerDown, "no keys are set for sending: see the log"
	case p.Probe != nil && p.Probe.Lost < p.Probe.Sent, !p.LastHeard.IsZero() && f.now.Sub(p.LastHeard) < hearingTime:
		return api.PeerUp, ""
	case p.Probe != nil:
		return api.PeerConnecting, "its probes have not been answered yet"
	case p.LastHeard.IsZero():
		return api.PeerUnknown, "nothing was heard of it yet, and static keys know no handshake: give the tunnel `health.probe`"
	}
	return api.PeerUnknown, "nothing was heard of it for " + f.now.Sub(p.LastHeard).Round(time.Second).String() + ", and nobody probes it"
}
