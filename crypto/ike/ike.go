// Package ike keeps connections in charon, strongSwan's IKE daemon, through its VICI socket. charon negotiates keys and
// puts states and policies into the kernel; links, addresses and routes are the caller's. No file of charon's is written.
//
// What belongs to Sluice in charon bears names that begin with "sluice:"; nothing else is looked at or touched.
package ike

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Errors that a caller may branch on.
var (
	// ErrNoCharon says that nobody answers at the socket, or not in time.
	ErrNoCharon = errors.New("charon does not answer")
	// ErrRefused says that charon refused a command, in its own words.
	ErrRefused = errors.New("charon refused")
	// ErrProtocol says that what answers at the socket does not speak VICI as charon 5.9 does.
	ErrProtocol = errors.New("charon's answer is not understood")
)

// Proposals of a Conn that names none: both ends prefer AES-256-GCM, ESN is not negotiable (RFC 4303 section 2.2.1).
// They need the plugins openssl and gcm or their like (Debian: libstrongswan-standard-plugins).
var (
	DefaultIKEProposals = []string{"aes256gcm16-prfsha384-x25519-ecp384"}
	DefaultESPProposals = []string{"aes256gcm16-x25519-ecp384-esn"}
)

// DefaultRekey is how long a CHILD_SA lives where Conn.Rekey is 0. An IKE_SA lives four times as long.
const DefaultRekey = time.Hour

// Conn is one peer of one tunnel, as charon should have it. Secrets are no part of it: SecretFile is a path.
type Conn struct {
	Tunnel, Peer string         // names without colons
	Local        netip.Addr     // where IKE is sent from, and ESP
	Remote       netip.AddrPort // where it is initiated to; port 0 is IKE's 500. Who has RemoteID and the key may come from elsewhere
	LocalID      string         // as charon reads it: an address, a DNS name, user@domain, a distinguished name
	RemoteID     string
	SecretFile   string         // the preshared key, for keys.Load; both ends have its 32 bytes (swanctl.conf: secret = 0sBASE64)
	Certificates *Certificates  `json:",omitempty"` // nil: the preshared key proves who is who
	InterfaceID  uint32         // XFRMA_IF_ID of the states and policies
	Mark         uint32         // of the encrypted packets; 0: the inner packet's
	Prefixes     []netip.Prefix // what is reached at the peer, and what it may send from
	Encapsulate  bool           // ESP in UDP always, else only where a NAT is found
	ReplayWindow int            // packets; 0: charon's own
	Rekey        time.Duration  // 0: DefaultRekey
	IKEProposals []string       // charon's syntax; none: DefaultIKEProposals
	ESPProposals []string       // none: DefaultESPProposals
}

// Certificates are the files by which two ends prove who they are, in PEM.
type Certificates struct {
	Certificate string   // of this end, for keys.ReadChain: it bears Conn.LocalID
	PrivateKey  string   // of the certificate, for keys.LoadSigner
	CAs         []string // for keys.ReadCAs: one of these has issued the peer's certificate, which bears Conn.RemoteID
}

// layout is part of each digest: raise it when message() says the same Conn in another way, so that it is loaded anew.
const layout = 1

// Digest is short, and differs where anything but the secret, or what the certificates' files hold, does. charon reads back only parts
// of what it was told (no proposals, marks or interface ids), so the digest begins its child's name: a restarted daemon finds it there.
func (c Conn) Digest() string {
	c.SecretFile = ""
	if c.Certificates != nil {
		c.Certificates = &Certificates{}
	}
	c.Prefixes = slices.SortedFunc(slices.Values(c.Prefixes), netip.Prefix.Compare)
	text, err := json.Marshal(struct {
		Layout int
		Conn   Conn
	}{layout, c})
	if err != nil {
		panic(err) // unreachable: every field can be marshalled
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

// Check says what charon would misunderstand.
func (c Conn) Check() error {
	wrong := func(format string, args ...any) error {
		return fmt.Errorf("tunnel %s, peer %s: %s", c.Tunnel, c.Peer, fmt.Sprintf(format, args...))
	}
	switch {
	case c.Tunnel == "" || c.Peer == "" || strings.Contains(c.Tunnel+c.Peer, ":"):
		return wrong("a connection needs the names of a tunnel and a peer, without colons")
	case !c.Local.IsValid() || !c.Remote.IsValid():
		return wrong("a connection needs a local and a remote address")
	case c.Local.Is4() != c.Remote.Addr().Is4():
		return wrong("%s and %s are of two families", c.Local, c.Remote.Addr())
	case len(c.Prefixes) == 0:
		return wrong("no prefixes, so nothing could be sent")
	case c.LocalID == c.RemoteID:
		return wrong("both ends are %q: set ids that differ", c.LocalID)
	}
	for _, id := range []string{c.LocalID, c.RemoteID} {
		// charon takes these for patterns that fit many identities, or for another encoding.
		if id == "" || strings.ContainsAny(id, "*%#") || strings.HasPrefix(id, "{") {
			return wrong("%q cannot be an id: use an address, a DNS name, user@domain or a subject such as O=Example, CN=edge-1", id)
		}
	}
	return nil
}

// prefix begins every name of ours in charon.
const prefix = "sluice:"

func (c Conn) name() string { return connName(c.Tunnel, c.Peer) }

func connName(tunnel, peer string) string { return prefix + tunnel + ":" + peer }

// splitName undoes connName; ok is false for what is not ours.
func splitName(name string) (tunnel, peer string, ok bool) {
	rest, ours := strings.CutPrefix(name, prefix)
	tunnel, peer, ok = strings.Cut(rest, ":")
	return tunnel, peer, ours && ok && tunnel != "" && peer != "" && !strings.Contains(peer, ":")
}

// reqid ties policies to states. It stays the same whatever of a Conn changes, so that the policies of a new CHILD_SA
// take packets of the old one as well. charon counts its own from 1, and 0x51c00000 begins those of static keying.
func (c Conn) reqid() uint32 {
	sum := sha256.Sum256([]byte(c.name()))
	return 1<<30 | binary.BigEndian.Uint32(sum[:])>>4
}

// leads says which end begins. Ends that both begin at once may each destroy what the other has established, for the first
// IKE_SA between two identities says INITIAL_CONTACT (RFC 7296 section 2.4). The other end begins only after a grace.
func leads(localID, remoteID string) bool { return localID < remoteID }
