package wireguard

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// TunnelStatus is one tunnel as `show tunnels` prints it. The JSON names are stable.
type TunnelStatus struct {
	Name       string       `json:"name"`
	Backend    Backend      `json:"backend"` // kernel or userspace
	Interface  string       `json:"interface"`
	Running    bool         `json:"running"`       // the link is up and a device runs behind it
	Why        string       `json:"why,omitempty"` // it cannot be asked
	ListenPort uint16       `json:"listen_port"`
	MTU        int          `json:"mtu"`        // bytes
	PublicKey  string       `json:"public_key"` // base64
	Peers      []PeerStatus `json:"peers"`
}

// PeerStatus is one peer of a tunnel. Bytes count the encrypted side, keepalives and handshakes included.
type PeerStatus struct {
	Name          string         `json:"name"`
	PublicKey     string         `json:"public_key"`
	Endpoint      string         `json:"endpoint"`                // address:port in use now; "" while unknown
	LastHandshake time.Time      `json:"last_handshake,omitzero"` // wall clock; absent: never
	RxBytes       int64          `json:"rx_bytes"`
	TxBytes       int64          `json:"tx_bytes"`
	AllowedIPs    []netip.Prefix `json:"allowed_ips"`
}

// Status returns what the tunnels of ours do now, by name. A tunnel that cannot be read is returned as far as it can,
// beside the error.
func (d *Driver) Status(ctx context.Context) ([]TunnelStatus, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	links, err := d.links.Own()
	if err != nil {
		return nil, err
	}
	out := make([]TunnelStatus, 0, len(links))
	var failed []error
	for _, link := range links {
		s, err := d.status(link)
		if err != nil {
			s.Why = err.Error()
		}
		out, failed = append(out, s), append(failed, err)
	}
	return out, errors.Join(failed...)
}

func (d *Driver) status(link netlink.Link) (TunnelStatus, error) {
	a := link.Attrs()
	s := TunnelStatus{Name: a.Name, Backend: backendOf(link), Interface: a.Name, MTU: a.MTU, Peers: []PeerStatus{}}
	dev, err := d.device(link)
	if dev == nil {
		return s, err
	}
	have, err := dev.state()
	if err != nil {
		return s, err
	}
	s.Running = a.RawFlags&unix.IFF_UP != 0
	s.ListenPort = uint16(have.ListenPort)
	s.PublicKey = encodeKey(have.PublicKey)
	for _, p := range have.Peers {
		s.Peers = append(s.Peers, d.peerStatus(a.Name, p))
	}
	slices.SortFunc(s.Peers, func(a, b PeerStatus) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.PublicKey, b.PublicKey))
	})
	return s, nil
}

func (d *Driver) peerStatus(tunnel string, p wgtypes.Peer) PeerStatus {
	s := PeerStatus{
		PublicKey:     encodeKey(p.PublicKey),
		LastHandshake: p.LastHandshakeTime,
		RxBytes:       p.ReceiveBytes,
		TxBytes:       p.TransmitBytes,
		AllowedIPs:    append([]netip.Prefix{}, allowedOf(p)...),
	}
	s.Name = d.notes.of(tunnel, s.PublicKey).name
	if ep := endpointOf(p); ep.IsValid() {
		s.Endpoint = ep.String()
		d.notes.saw(tunnel, s.PublicKey, ep)
	}
	return s
}
