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

	"sluice/process"
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
	asked, known := make([]*question, len(links)), make([]map[string]peerNotes, len(links))
	for i, link := range links {
		asked[i], known[i] = d.ask(link), d.notes.all(link.Attrs().Name)
	}
	d.mu.Unlock()
	for _, a := range asked {
		a.wait(ctx)
	}
	// What has answered by now is shown, also where the time is over or a step has the lock.
	out := make([]TunnelStatus, 0, len(links))
	var failed []error
	for i, link := range links {
		s, err := status(link, asked[i], known[i])
		if err != nil {
			s.Why = err.Error()
		}
		out, failed = append(out, s), append(failed, err)
	}
	d.seen.Store(&out)
	if d.lockWithin(ctx) {
		for i, link := range links {
			d.sawAll(link.Attrs().Name, asked[i])
		}
		d.mu.Unlock()
	}
	return out, errors.Join(failed...)
}

// ask begins to ask what runs behind a link. A process that nobody has adopted yet is asked, and left to who may wait for it: no answer
// takes longer than adopting one that stands still. The caller holds d.mu.
func (d *Driver) ask(link netlink.Link) *question {
	name := link.Attrs().Name
	if backendOf(link) == Kernel {
		return answered(kernelDevice{d, name}.state())
	}
	if p := d.children[name]; p != nil && p.Alive() {
		return d.asks.begin(name, (&userDevice{d, name, p.Client}).state)
	}
	return d.asks.begin(name, func() (*wgtypes.Device, error) { return d.stateOfLeft(name) })
}

// stateOfLeft is that of the process that an earlier daemon left; nil: there is none.
func (d *Driver) stateOfLeft(name string) (*wgtypes.Device, error) {
	c, err := d.place.Adopt(name, d.childSays(name))
	if errors.Is(err, process.ErrNone) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return (&userDevice{d, name, c}).state()
}

// sawAll remembers the endpoints in use, and who was heard. The caller holds d.mu.
func (d *Driver) sawAll(tunnel string, a *question) {
	have, _ := a.answer()
	if have == nil {
		return
	}
	for _, p := range have.Peers {
		d.notes.saw(tunnel, p)
	}
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

func status(link netlink.Link, a *question, known map[string]peerNotes) (TunnelStatus, error) {
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
		s.Peers = append(s.Peers, peerStatus(p, known))
	}
	slices.SortFunc(s.Peers, func(a, b PeerStatus) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.PublicKey, b.PublicKey))
	})
	return s, nil
}

func peerStatus(p wgtypes.Peer, known map[string]peerNotes) PeerStatus {
	s := PeerStatus{
		PublicKey:     encodeKey(p.PublicKey),
		LastHandshake: p.LastHandshakeTime,
		RxBytes:       p.ReceiveBytes,
		TxBytes:       p.TransmitBytes,
		AllowedIPs:    append([]netip.Prefix{}, allowedOf(p)...),
	}
	s.Name = known[s.PublicKey].name
	if ep := endpointOf(p); ep.IsValid() {
		s.Endpoint = ep.String()
	}
	return s
}
