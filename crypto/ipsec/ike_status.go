package ipsec

import (
	"context"
	"math"
	"net/netip"
	"time"

	"sluice/crypto/ike"
)

// told is what the charons say at one moment, and what the kernel has counted for their states.
type told struct {
	away   map[string]error // by socket
	peers  map[ikePeer]ike.Status
	states map[uint32]sa // by SPI
}

type ikePeer struct{ tunnel, peer string }

func (c *charons) status(ctx context.Context) told {
	t := told{map[string]error{}, map[ikePeer]ike.Status{}, map[uint32]sa{}}
	for _, client := range c.all() {
		list, err := client.Status(ctx)
		if err != nil {
			t.away[client.Socket()] = err
		}
		for _, s := range list {
			t.peers[ikePeer{s.Tunnel, s.Peer}] = s
		}
	}
	return t
}

// counts adds what the kernel counts.
func (x told) counts(states map[owner][]sa) {
	for o, list := range states {
		for _, s := range list {
			if !isOurs(o.reqid) {
				x.states[s.spi] = s
			}
		}
	}
}

// tell completes the status of a tunnel of keying IKE.
func (x told) tell(t Tunnel, s *TunnelStatus) {
	err := x.away[t.Charon]
	if err != nil {
		s.Charon = err.Error()
	}
	for _, w := range t.Peers {
		p := PeerStatus{
			Name: w.Name, ID: w.ID, Endpoint: w.Endpoint.Addr().String(), Prefixes: append([]netip.Prefix{}, w.Prefixes...), State: "down",
		}
		now := x.peers[ikePeer{t.Name, w.Name}]
		p.Why = now.Why
		switch {
		case err != nil:
			p.State = "unknown"
		case now.Up():
			p.State = "up"
		case len(now.SAs) > 0:
			p.State = "connecting"
		}
		x.count(&p, now)
		s.Peers = append(s.Peers, p)
	}
}

// count sums up what the CHILD_SAs of a peer carry by the kernel's counts, and tells of the newest of them.
func (x told) count(p *PeerStatus, now ike.Status) {
	for _, ikesa := range now.SAs {
		p.Endpoint = ikesa.Remote.String()
		for _, child := range ikesa.Children {
			in, out := x.states[child.SPIIn], x.states[child.SPIOut]
			p.RxPackets, p.RxBytes = p.RxPackets+in.packets, p.RxBytes+in.bytes
			p.TxPackets, p.TxBytes = p.TxPackets+out.packets, p.TxBytes+out.bytes
			p.Forged, p.Replayed = p.Forged+in.failed, p.Replayed+in.replayed
			p.SPIsIn = append(p.SPIsIn, child.SPIIn)
			if at := time.Unix(in.used, 0); in.used != 0 && at.After(p.LastHeard) {
				p.LastHeard = at
			}
			if out.spi != 0 {
				p.SPI, p.Sequence, p.Begun, p.Rekey = out.spi, out.seq, time.Unix(out.added, 0), child.RekeyIn
				p.ESN, p.HeadRoom = child.ESN, math.MaxUint64-out.seq
				if !child.ESN {
					p.HeadRoom = math.MaxUint32 - min(math.MaxUint32, out.seq)
				}
			}
		}
	}
}
