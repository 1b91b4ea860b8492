package daemon

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/control/api"
)

// The metrics of tunnels. What does not apply to a peer is absent: a probe's figures without a probe, an epoch without
// static keys.
var (
	descTunnelUp    = desc("tunnel_up", "1 where the tunnel's device runs.", "tunnel", "type", "backend")
	descTunnelMTU   = desc("tunnel_mtu_bytes", "MTU of the tunnel's device.", "tunnel")
	descCertificate = desc("tunnel_certificate_not_after_seconds", "Unix time when a certificate of a tunnel ends; of is own, or ca: the first of the CAs that peers are believed by.", "tunnel", "of")
	descPeerUp      = desc("tunnel_peer_up", "1 where the peer is up; state is up, down, connecting or unknown.", "tunnel", "peer", "state")
	descPeerRoutes  = desc("tunnel_routes_withdrawn", "1 where the peer's routes are withdrawn, since its probes fail.", "tunnel", "peer")
	descPeerBytes   = desc("tunnel_bytes_total", "Bytes of a tunnel's peer: encrypted ones of WireGuard, those that the present SAs of IPsec carried.", "tunnel", "peer", "direction")
	descPeerPackets = desc("tunnel_packets_total", "Packets that the present SAs of an IPsec peer carried.", "tunnel", "peer", "direction")
	descPeerErrors  = desc("tunnel_errors_total", "Packets from an IPsec peer that its present SAs refused: forged or replayed.", "tunnel", "peer", "error")
	descHandshake   = desc("tunnel_last_handshake_seconds", "Unix time of WireGuard's last handshake; 0: never.", "tunnel", "peer")
	descHeard       = desc("tunnel_last_heard_seconds", "Unix time when something authentic last came from the peer; absent: never, as far as is known.", "tunnel", "peer")
	descProbeRTT    = desc("tunnel_probe_rtt_seconds", "Round trip of the probes that were answered, of the last 100; of is last or median.", "tunnel", "peer", "of")
	descProbeLoss   = desc("tunnel_probe_loss_ratio", "Share of the last 100 probes that was lost.", "tunnel", "peer")
	descEpoch       = desc("tunnel_epoch", "Epoch of static IPsec keys; direction is sent or heard.", "tunnel", "peer", "direction")
	descSAAge       = desc("tunnel_sa_age_seconds", "Age of the SA by which is sent to an IPsec peer.", "tunnel", "peer")
	descHeadRoom    = desc("tunnel_sequence_headroom", "Sequence numbers that are left to the SA by which is sent to an IPsec peer.", "tunnel", "peer")
	descXFRM        = desc("xfrm_errors_total", "The kernel's IPsec error counters, of all tunnels and foreign states together, by the kernel's names.", "counter")
)

func (c collector) tunnels(ctx context.Context, out chan<- prometheus.Metric) error {
	f, err := c.d.tunnelFacts(ctx)
	collectTunnels(f.shown(), f.now, out)
	counters, errXFRM := xfrmCounters()
	for _, x := range counters {
		counter(out, descXFRM, x.Packets, x.Name)
	}
	return errors.Join(err, errXFRM)
}

func collectTunnels(list []api.Tunnel, now time.Time, out chan<- prometheus.Metric) {
	for _, t := range list {
		gauge(out, descTunnelUp, flag(t.Running), t.Name, t.Type, t.Backend)
		gauge(out, descTunnelMTU, float64(t.MTU), t.Name)
		if c := t.Certificate; c != nil && !c.NotAfter.IsZero() {
			gauge(out, descCertificate, unixSeconds(c.NotAfter), t.Name, "own")
		}
		if c := t.Certificate; c != nil && !c.CANotAfter.IsZero() {
			gauge(out, descCertificate, unixSeconds(c.CANotAfter), t.Name, "ca")
		}
		for _, p := range t.Peers {
			gauge(out, descPeerUp, flag(p.State == api.PeerUp), t.Name, p.Name, string(p.State))
			gauge(out, descPeerRoutes, flag(p.Routes == api.RoutesWithdrawn), t.Name, p.Name)
			counter(out, descPeerBytes, p.RxBytes, t.Name, p.Name, "received")
			counter(out, descPeerBytes, p.TxBytes, t.Name, p.Name, "sent")
			if len(p.PublicKeys) > 0 {
				gauge(out, descHandshake, unixSeconds(p.LastHandshake), t.Name, p.Name)
			}
			if !p.LastHeard.IsZero() {
				gauge(out, descHeard, unixSeconds(p.LastHeard), t.Name, p.Name)
			}
			if b := p.Probe; b != nil && b.Sent > 0 {
				gauge(out, descProbeLoss, float64(b.Lost)/float64(b.Sent), t.Name, p.Name)
				if b.Lost < b.Sent {
					gauge(out, descProbeRTT, b.RTT, t.Name, p.Name, "last")
					gauge(out, descProbeRTT, b.MedianRTT, t.Name, p.Name, "median")
				}
			}
			if p.SA != nil {
				collectSA(*p.SA, now, out, t.Name, p.Name)
			}
		}
	}
}

func collectSA(sa api.TunnelSA, now time.Time, out chan<- prometheus.Metric, tunnel, peer string) {
	counter(out, descPeerPackets, sa.RxPackets, tunnel, peer, "received")
	counter(out, descPeerPackets, sa.TxPackets, tunnel, peer, "sent")
	counter(out, descPeerErrors, uint64(sa.Forged), tunnel, peer, "forged")
	counter(out, descPeerErrors, uint64(sa.Replayed), tunnel, peer, "replayed")
	gauge(out, descHeadRoom, float64(sa.HeadRoom), tunnel, peer)
	if !sa.Begun.IsZero() {
		gauge(out, descSAAge, now.Sub(sa.Begun).Seconds(), tunnel, peer)
	}
	if sa.Epoch != 0 {
		gauge(out, descEpoch, float64(sa.Epoch), tunnel, peer, "sent")
	}
	if sa.PeerEpoch != 0 {
		gauge(out, descEpoch, float64(sa.PeerEpoch), tunnel, peer, "heard")
	}
}

func flag(on bool) float64 {
	if on {
		return 1
	}
	return 0
}

// unixSeconds is 0 for a time that is none.
func unixSeconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.Unix())
}
