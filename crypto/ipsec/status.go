package ipsec

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// TunnelStatus is one tunnel as `show tunnels` prints it. The JSON names are stable.
type TunnelStatus struct {
	Name          string        `json:"name"`
	Keying        Keying        `json:"keying"`
	Interface     string        `json:"interface"`
	Running       bool          `json:"running"` // the link is up, and its UDP port is held if it needs one
	Local         string        `json:"local"`   // address, with the port where ESP is in UDP
	Encapsulation Encapsulation `json:"encapsulation"`
	MTU           int           `json:"mtu"`              // bytes
	IfID          uint32        `json:"if_id"`            // of the kernel's states and policies
	Charon        string        `json:"charon,omitempty"` // keying ike: why charon does not serve
	Peers         []PeerStatus  `json:"peers"`
}

// PeerStatus is one peer of a tunnel. Packets and bytes count what its present states have carried: encrypted packets
// sent, and packets received that were authentic, inner headers included.
type PeerStatus struct {
	Name      string         `json:"name"`
	ID        string         `json:"id"`
	Endpoint  string         `json:"endpoint"`        // address, with the port where ESP is in UDP
	Moved     bool           `json:"moved,omitempty"` // Endpoint is where its packets come from, and not the wanted one
	Waits     string         `json:"waits,omitempty"` // where it moves to once its epochs, which count at most one a minute for that, allow
	Prefixes  []netip.Prefix `json:"prefixes"`
	State     string         `json:"state,omitempty"`    // keying ike: up, connecting, down, or unknown without charon
	Why       string         `json:"why,omitempty"`      // static keying: its keys cannot be had, so its epochs are not kept; ike: what charon said of its last attempt
	Rekey     time.Duration  `json:"rekey_in,omitempty"` // keying ike: until its keys are renewed, nanoseconds
	Epoch     uint64         `json:"epoch"`              // static keying: in which it is sent to; 0: no state sends
	SPI       uint32         `json:"spi"`                // of what is sent
	SPIsIn    []uint32       `json:"spis_in,omitempty"`  // by which it is received, sorted
	ESN       bool           `json:"esn"`
	Begun     time.Time      `json:"begun,omitzero"`    // when that epoch began
	Sequence  uint64         `json:"sequence"`          // last number sent in it
	HeadRoom  uint64         `json:"sequence_headroom"` // packets until the next epoch must begin
	PeerEpoch uint64         `json:"peer_epoch"`        // the highest in which it was heard; 0: never
	LastHeard time.Time      `json:"last_heard,omitzero"`
	TxPackets uint64         `json:"tx_packets"`
	TxBytes   uint64         `json:"tx_bytes"`
	RxPackets uint64         `json:"rx_packets"`
	RxBytes   uint64         `json:"rx_bytes"`
	Forged    uint32         `json:"forged"`   // packets that were not authentic
	Replayed  uint32         `json:"replayed"` // packets that came twice, or too late for the window
}

// Status returns what the tunnels of ours do now, by name.
func (d *Driver) Status(ctx context.Context) ([]TunnelStatus, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	charons := d.charons.status(ctx) // before the lock: charon may take its time
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.load(); err != nil {
		return nil, err
	}
	out := []TunnelStatus{}
	links, err := d.links.Own()
	if err != nil || len(links) == 0 {
		return out, err
	}
	if err := d.lookAtStates(); err != nil {
		return nil, err
	}
	charons.counts(d.seen.states)
	for _, link := range links {
		a := link.Attrs()
		t := d.tunnels[a.Name]
		if t == nil {
			continue
		}
		s := TunnelStatus{
			Name: a.Name, Keying: t.want.Keying, Interface: a.Name, Local: endpoint(t.want.Local, t.want.udp()),
			Running:       a.RawFlags&unix.IFF_UP != 0 && (!t.want.udp() || d.holds(t.want.Local)),
			Encapsulation: effective(t.want), MTU: a.MTU, IfID: t.ifID, Peers: []PeerStatus{},
		}
		if t.want.Keying == IKE {
			charons.tell(t.want, &s)
			t = &tunnel{} // whose peers have no epochs
		}
		for _, p := range t.peers {
			s.Peers = append(s.Peers, d.peerStatus(t, p))
		}
		slices.SortFunc(s.Peers, func(a, b PeerStatus) int { return strings.Compare(a.Name, b.Name) })
		out = append(out, s)
	}
	return out, nil
}

func (d *Driver) peerStatus(t *tunnel, p *peer) PeerStatus {
	s := PeerStatus{
		Name: p.want.Name, ID: p.want.ID, Endpoint: endpoint(p.endpoint(), t.want.udp()), Moved: p.At.IsValid(), PeerEpoch: p.Heard,
		Prefixes: append([]netip.Prefix{}, p.want.Prefixes...), Why: p.fault,
	}
	if p.Waits.IsValid() {
		s.Waits = endpoint(p.Waits, t.want.udp())
	}
	if p.directions == nil {
		return s
	}
	st := d.take(t, p)
	if st.live != nil {
		s.ESN = true // always, with static keys
		s.Epoch, s.SPI, s.Sequence, s.Begun = st.epoch, st.live.spi, st.live.seq, time.Unix(st.live.added, 0)
		s.HeadRoom = maxPackets - min(maxPackets, s.Sequence)
	}
	for _, x := range d.seen.states[owner{t.ifID, p.reqid}] {
		if !p.directions.receive.owns(x.spi) {
			s.TxPackets, s.TxBytes = s.TxPackets+x.packets, s.TxBytes+x.bytes
			continue
		}
		s.SPIsIn = append(s.SPIsIn, x.spi)
		s.RxPackets, s.RxBytes = s.RxPackets+x.packets, s.RxBytes+x.bytes
		s.Forged, s.Replayed = s.Forged+x.failed, s.Replayed+x.replayed
		if x.used != 0 {
			if at := time.Unix(x.used, 0); at.After(s.LastHeard) {
				s.LastHeard = at
			}
		}
	}
	slices.Sort(s.SPIsIn)
	return s
}

func endpoint(p netip.AddrPort, udp bool) string {
	if !udp {
		return p.Addr().String()
	}
	return netip.AddrPortFrom(p.Addr(), port(p)).String()
}
