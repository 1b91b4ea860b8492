package config

import (
	"net"
	"net/netip"
	"strconv"
	"time"
)

// The types of tunnels, as the file writes them.
const (
	TypeWireGuard = "wireguard"
	TypeIPsec     = "ipsec"
)

// Tunnel is a tunnel device with its peers.
type Tunnel struct {
	Name           string
	Type           string         // TypeWireGuard, TypeIPsec
	Local          netip.AddrPort // the underlay address; of IPsec the port is that of UDP encapsulation
	Addresses      []netip.Prefix // of the device; not masked
	MTU            int            // bytes; 0: auto
	ClampMSS       bool           // of TCP, to what the device carries
	Strict         bool
	Health         *Health // nil: no peer is probed
	Backend        string  // of WireGuard: auto | kernel | userspace
	PrivateKeyFile string  // of WireGuard
	PrivateKeyPos  Pos
	IPsec          *IPsec // with TypeIPsec alone
	Peers          []Peer
	Pos            Pos
}

// Health is how the peers with a Probe are probed.
type Health struct {
	Probe     netip.Addr    // as the file writes it for the tunnel; Peer.Probe has it where it belongs
	Interval  time.Duration // default 1s
	DownAfter int           // probes lost in a row; default 3
	UpAfter   int           // probes answered in a row; default 5
}

// The ways to key an IPsec tunnel: keys derived from a master key and an epoch, or IKEv2 by charon.
const (
	KeyingStatic = "static"
	KeyingIKE    = "ike"
)

// What ESP travels in. Auto: charon finds out; with static keys it is EncapsulationNone.
const (
	EncapsulationAuto = "auto"
	EncapsulationNone = "none"
	EncapsulationUDP  = "udp" // RFC 3948
)

// IPsec is what a tunnel of that type has of its own.
type IPsec struct {
	Keying        string
	ID            string // of this node; default: the local address
	Encapsulation string
	ReplayWindow  int           // packets, a multiple of 32; default 1024
	Rekey         time.Duration // static: time between epochs, default 24h, 0 never. ike: of the ESP keys, 0 the default of crypto/ike
	Charon        string        // VICI socket, default /run/charon.vici; "" with static keys
	IKEProposals  []string      // in charon's words; nil: the defaults of crypto/ike
	ESPProposals  []string
	Auth          *Auth // nil: by the preshared key of each peer, or static keys
}

// Auth is how the ends of a tunnel with keying IKE prove who they are by X.509 certificates.
type Auth struct {
	CertificateFile string // of this node, then those of the CAs between it and its root
	PrivateKeyFile  string // of the certificate
	CAFiles         []string
	CertificatePos  Pos
	PrivateKeyPos   Pos
	CAPos           []Pos
}

// Peer is the other end of a tunnel, or one of them.
type Peer struct {
	Name             string
	Endpoints        []Endpoint // in the order in which they are tried
	PublicKeys       []string   // of WireGuard: base64, 32 bytes each; the first is in use, a second one is pre-staged
	PresharedKeyFile string     // of WireGuard, or IKE's secret; "" where IPsec.Auth is
	MasterKeyFile    string     // of IPsec with static keys
	PresharedKeyPos  Pos
	MasterKeyPos     Pos
	ID               string // of IPsec; default: the host of the first endpoint
	Keepalive        time.Duration
	Prefixes         []netip.Prefix
	Routes           bool // default true
	Metric           int
	Probe            netip.Addr // invalid: not probed. Never valid without Tunnel.Health
	Pos              Pos
}

// Endpoint is where a peer may be found.
type Endpoint struct {
	Host string     // as written: an address, or a DNS name
	Addr netip.Addr // invalid: Host is a DNS name
	Port uint16     // 0: that of the protocol, UDP encapsulation or IKE (IPsec alone)
}

// String is host:port as the file writes it, or the host alone.
func (e Endpoint) String() string {
	if e.Port == 0 {
		return e.Host
	}
	return net.JoinHostPort(e.Host, strconv.Itoa(int(e.Port)))
}

// AddrPort is invalid for a DNS name.
func (e Endpoint) AddrPort() netip.AddrPort {
	if !e.Addr.IsValid() {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(e.Addr, e.Port)
}
