package wireguard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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

// statusTime bounds Status: a process that stands still is not to hide the other tunnels. Whoever asked it goes on, and ends it.
const statusTime = 2 * time.Second

// Status returns what the tunnels of ours do now, by name. A tunnel that cannot be read is returned as far as it can,
// beside the error. While a step takes longer than statusTime, it is what was seen last.
func (d *Driver) Status(ctx context.Context) ([]TunnelStatus, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, statusTime)
	defer cancel()
	if !d.lockWithin(ctx) {
		return d.seenLast()
	}
	links, err := d.links.Own()
	if err != nil {
		d.mu.Unlock()
		return nil, err
	}
	asked := make([]*question, len(links))
	for i, link := range links {
		asked[i] = d.asks.begin(link.Attrs().Name, func() (device, error) { return d.device(link) })
	}
	d.mu.Unlock()
	for _, a := range asked {
		a.wait(ctx)
	}
	// What has answered by now is shown, also where the time is over.
	naming, done := context.WithTimeout(context.WithoutCancel(ctx), statusTime/4)
	defer done()
	if !d.lockWithin(naming) {
		return d.seenLast()
	}
	defer d.mu.Unlock()
	out := make([]TunnelStatus, 0, len(links))
	var failed []error
	for i, link := range links {
		s, err := d.status(link, asked[i])
		if err != nil {
			s.Why = err.Error()
		}
		out, failed = append(out, s), append(failed, err)
	}
	d.seen.Store(&out)
	return out, errors.Join(failed...)
}

// lockWithin takes d.mu unless ctx ends before.
func (d *Driver) lockWithin(ctx context.Context) bool {
	for !d.mu.TryLock() {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(5 * time.Millisecond):
		}
	}
	return true
}

func (d *Driver) seenLast() ([]TunnelStatus, error) {
	err := fmt.Errorf("a change of the WireGuard tunnels has taken longer than %s: what is shown of them is from before", statusTime)
	if last := d.seen.Load(); last != nil {
		return slices.Clone(*last), err
	}
	return nil, err
}

func (d *Driver) status(link netlink.Link, a *question) (TunnelStatus, error) {
	l := link.Attrs()
	s := TunnelStatus{Name: l.Name, Backend: backendOf(link), Interface: l.Name, MTU: l.MTU, Peers: []PeerStatus{}}
	have, err := a.answer()
	if have == nil {
		return s, err
	}
	s.Running = l.RawFlags&unix.IFF_UP != 0
	s.ListenPort = uint16(have.ListenPort)
	s.PublicKey = encodeKey(have.PublicKey)
	for _, p := range have.Peers {
		s.Peers = append(s.Peers, d.peerStatus(l.Name, p))
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
