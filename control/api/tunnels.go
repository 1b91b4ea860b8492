package api

import (
	"context"
	"net/netip"
	"time"

	"sluice/control/tunnel"
)

// TunnelEvent is what happened to a tunnel.
type TunnelEvent = tunnel.Event

// Tunnels is the answer of `show tunnels`.
type Tunnels struct {
	Tunnels []Tunnel `json:"tunnels"` // in the order of the file
	// XFRM are the kernel's IPsec error counters, sorted by name. They count for all tunnels of the network namespace
	// together, and for foreign states as well. Empty: the kernel keeps none.
	XFRM []XFRMCounter `json:"xfrm"`
	// Warnings say what could not be read: what the tunnels say of it is missing, or old.
	Warnings []string `json:"warnings,omitempty"`
}

// TunnelCount is the peers of all tunnels by their states.
type TunnelCount struct {
	Up         int `json:"up"`
	Down       int `json:"down"`
	Connecting int `json:"connecting"`
	Unknown    int `json:"unknown"`
	// Troubles are the first of those that are down or connecting, the down ones first, and what keeps a tunnel itself from running.
	Troubles []TunnelTrouble `json:"troubles"`
}

// TunnelTrouble says why a peer is not up.
type TunnelTrouble struct {
	Tunnel string    `json:"tunnel"`
	Peer   string    `json:"peer"`
	State  PeerState `json:"state"`
	Why    string    `json:"why"`
}

// MaxTroubles is how many of TunnelCount are named: where a hub's own uplink is away, all of its peers are down.
const MaxTroubles = 5

// CountTunnels makes the summary; nil: there is no tunnel.
func CountTunnels(list []Tunnel) *TunnelCount {
	if len(list) == 0 {
		return nil
	}
	c := &TunnelCount{Troubles: []TunnelTrouble{}}
	var connecting []TunnelTrouble
	for _, t := range list {
		for _, p := range t.Peers {
			trouble := TunnelTrouble{t.Name, p.Name, p.State, p.Why}
			if t.Why != "" {
				trouble.Why = t.Why
			}
			switch p.State {
			case PeerUp:
				c.Up++
			case PeerDown:
				c.Down++
				c.Troubles = append(c.Troubles, trouble)
			case PeerConnecting:
				c.Connecting++
				connecting = append(connecting, trouble)
			default:
				c.Unknown++
			}
		}
	}
	c.Troubles = append(c.Troubles, connecting...)
	c.Troubles = c.Troubles[:min(MaxTroubles, len(c.Troubles))]
	return c
}

// XFRMCounter is one line of /proc/net/xfrm_stat, by the kernel's own name.
type XFRMCounter struct {
	Name    string `json:"name"`
	Packets uint64 `json:"packets"`
	Text    string `json:"text,omitempty"` // what it means; "": a counter that this version does not know
}

// Tunnel is one tunnel, whatever its type. A secret is never part of it.
type Tunnel struct {
	Name      string         `json:"name"`
	Type      string         `json:"type"`    // wireguard, ipsec
	Backend   string         `json:"backend"` // wireguard: kernel, userspace; ipsec: static, ike; "": there is no device
	Interface string         `json:"interface"`
	Running   bool           `json:"running"`       // the link is up, and what carries it runs
	Why       string         `json:"why,omitempty"` // it does not run, or its keys cannot be negotiated
	Addresses []netip.Prefix `json:"addresses"`
	MTU       int            `json:"mtu"`                    // of the device, bytes
	Underlay  int            `json:"underlay_mtu,omitempty"` // of the routes to the endpoints, the smallest; 0: not known
	ClampMSS  bool           `json:"clamp_mss"`
	Strict    bool           `json:"strict"`
	Local     string         `json:"local"` // address of the underlay, with the port where there is one

	// WireGuard.
	ListenPort      uint16 `json:"listen_port,omitempty"`
	PublicKey       string `json:"public_key,omitempty"`        // base64, of this end
	StagedPublicKey string `json:"staged_public_key,omitempty"` // of the key that `sluice key rotate` takes next

	// IPsec.
	ID            string `json:"id,omitempty"`            // of this end
	Encapsulation string `json:"encapsulation,omitempty"` // auto, none, udp
	InterfaceID   uint32 `json:"if_id,omitempty"`         // of the kernel's states and policies
	// Certificate proves this end; absent: preshared or static keys do.
	Certificate *TunnelCertificate `json:"certificate,omitempty"`

	Peers []TunnelPeer `json:"peers"`
}

// TunnelCertificate is an X.509 certificate of this end, as its file holds it now.
type TunnelCertificate struct {
	File       string    `json:"file"`
	Subject    string    `json:"subject,omitempty"` // in the order of the certificate; absent: the file cannot be read
	Issuer     string    `json:"issuer,omitempty"`
	NotBefore  time.Time `json:"not_before,omitzero"`
	NotAfter   time.Time `json:"not_after,omitzero"`
	CANotAfter time.Time `json:"ca_not_after,omitzero"` // of the CAs that peers are believed by, the first to end
	Why        string    `json:"why,omitempty"`         // what is wrong with the files, or will be soon
}

// PeerState says whether a peer can be reached.
type PeerState string

// The states of peers. A peer that nobody probes may be silent because nothing is sent: then its state is unknown.
const (
	PeerUp         PeerState = "up"
	PeerDown       PeerState = "down"
	PeerConnecting PeerState = "connecting" // something was sent, and an answer is waited for
	PeerUnknown    PeerState = "unknown"
)

// What has become of a peer's routes.
const (
	RoutesInstalled = "installed"
	RoutesWithdrawn = "withdrawn" // its probes fail; blackholes and the guard of a strict tunnel stay
	RoutesNone      = "none"      // it has none: routes: false, or no prefixes
)

// TunnelPeer is one peer of a tunnel.
type TunnelPeer struct {
	Name          string         `json:"name"`
	State         PeerState      `json:"state"`
	Why           string         `json:"why,omitempty"`           // it is not up
	Note          string         `json:"note,omitempty"`          // it is up, and something is not as the file wants it: a name that does not resolve
	Endpoint      string         `json:"endpoint"`                // in use; "": none is known
	EndpointFrom  string         `json:"endpoint_from,omitempty"` // the entry of the file that it comes from; absent: the peer roamed
	EndpointNext  string         `json:"endpoint_next,omitempty"` // IPsec, static keys: where it is followed to once its next epoch may begin
	Endpoints     []string       `json:"endpoints"`               // of the file
	LastHandshake time.Time      `json:"last_handshake,omitzero"` // WireGuard; absent: never
	LastHeard     time.Time      `json:"last_heard,omitzero"`     // when something authentic came; absent: never, as far as is known
	RxBytes       uint64         `json:"rx_bytes"`                // WireGuard: encrypted ones; IPsec: what its present SAs carried
	TxBytes       uint64         `json:"tx_bytes"`
	Prefixes      []netip.Prefix `json:"prefixes"`
	Metric        int            `json:"metric,omitempty"`
	Routes        string         `json:"routes"`          // installed, withdrawn, none
	Probe         *TunnelProbe   `json:"probe,omitempty"` // absent: it is not probed

	// WireGuard. PublicKey is the one in use, of those in the file.
	PublicKey  string   `json:"public_key,omitempty"`
	PublicKeys []string `json:"public_keys,omitempty"`

	PresharedKeyFile string `json:"preshared_key_file,omitempty"` // its path; absent: none is in use

	// IPsec.
	ID string    `json:"id,omitempty"`
	SA *TunnelSA `json:"sa,omitempty"` // absent: nothing sends to the peer
}

// TunnelProbe is the outcome of the last probes of a peer.
type TunnelProbe struct {
	Target    netip.Addr `json:"target"`
	Down      bool       `json:"down"`
	Since     time.Time  `json:"since,omitzero"`     // of Down; absent: ever since
	Sent      int        `json:"sent"`               // of those that are remembered, 100 at most
	Lost      int        `json:"lost"`               // of Sent
	RTT       float64    `json:"rtt_last_seconds"`   // of the last one that was answered; 0: none was
	MedianRTT float64    `json:"rtt_median_seconds"` // of those that were answered
}

// TunnelSA is the pair of security associations by which packets go to a peer and come from it.
type TunnelSA struct {
	SPIOut    string    `json:"spi_out"` // hexadecimal
	SPIIn     []string  `json:"spi_in"`  // static keys: of all epochs that are accepted
	Begun     time.Time `json:"begun,omitzero"`
	Epoch     uint64    `json:"epoch,omitempty"`            // static keys: in which is sent
	PeerEpoch uint64    `json:"peer_epoch,omitempty"`       // static keys: the highest that was heard
	RekeyIn   float64   `json:"rekey_in_seconds,omitempty"` // until the keys change by themselves; absent: not planned
	ESN       bool      `json:"esn"`
	Sequence  uint64    `json:"sequence"`          // last number that was sent
	HeadRoom  uint64    `json:"sequence_headroom"` // numbers that are left: of 2^64 with ESN, of 2^32 without
	RxPackets uint64    `json:"rx_packets"`
	TxPackets uint64    `json:"tx_packets"`
	Forged    uint32    `json:"forged"`   // packets that were not authentic
	Replayed  uint32    `json:"replayed"` // packets that came twice, or too late for the window
}

// RotateRequest asks for new keys of a tunnel.
type RotateRequest struct {
	Tunnel string `json:"tunnel"`
	// Stage makes WireGuard's next key and leaves the present one in use: the other ends have to know it first.
	Stage bool `json:"stage,omitempty"`
	// Forget removes the private key that WireGuard had before, and changes nothing else.
	Forget bool `json:"forget,omitempty"`
}

// Rotated says what was done, and what it is about.
type Rotated struct {
	Tunnel  string `json:"tunnel"`
	Type    string `json:"type"`
	Backend string `json:"backend"`
	Staged  bool   `json:"staged"` // and not rotated yet
	// Forgotten says that OldFile was removed, and nothing else done.
	Forgotten bool `json:"forgotten,omitempty"`
	// WireGuard: the next key's file where Staged, else the tunnel's; the key that was is kept in OldFile.
	File         string        `json:"file,omitempty"`
	OldFile      string        `json:"old_file,omitempty"`
	PublicKey    string        `json:"public_key,omitempty"`     // of File
	OldPublicKey string        `json:"old_public_key,omitempty"` // in use before, and while Staged
	Again        bool          `json:"again,omitempty"`          // the next key had been staged before
	Peers        []RotatedPeer `json:"peers"`
}

// RotatedPeer is a peer of a tunnel whose keys were changed.
type RotatedPeer struct {
	Name     string `json:"name"`
	InTouch  bool   `json:"in_touch"` // it took part; else it was away, and nobody knows what it knows
	OldEpoch uint64 `json:"old_epoch,omitempty"`
	Epoch    uint64 `json:"epoch,omitempty"` // static keys
}

// RotateKey has a tunnel take new keys.
func (c *Client) RotateKey(ctx context.Context, in RotateRequest) (Rotated, error) {
	return post[Rotated](ctx, c, "key/rotate", in)
}
