package ike

import (
	"net/netip"
	"time"
)

// Status is one connection of ours: what is loaded, and what is established of it.
type Status struct {
	Tunnel, Peer string
	Loaded       bool    // false: unloaded or gone from the configuration, and its SAs still end
	Leads        bool    // this end begins; the other one helps only after a grace
	Changed      bool    // charon has a newer configuration than what is established
	SAs          []IKESA // oldest first
	Why          string  // what charon said last of an attempt that failed; "": nothing is known, or it is up
}

// Up says whether a CHILD_SA carries traffic.
func (s Status) Up() bool {
	for _, sa := range s.SAs {
		for _, c := range sa.Children {
			if c.live() {
				return true
			}
		}
	}
	return false
}

// IKESA is an association of charon with a peer, established or on its way.
type IKESA struct {
	Tunnel, Peer  string
	ID            uint32 // charon's own number for it
	State         string // CONNECTING, ESTABLISHED, REKEYING, DELETING and others of charon's
	Initiator     bool
	Local, Remote netip.AddrPort
	LocalID       string
	RemoteID      string
	NAT           bool          // one was found, or ESP in UDP is forced
	Cipher        string        // such as AES_GCM_16-256/PRF_HMAC_SHA2_384/CURVE_25519
	Age           time.Duration // since it was established
	RekeyIn       time.Duration // 0: not planned
	Children      []ChildSA     // oldest first
}

// ChildSA is a pair of ESP states.
type ChildSA struct {
	ID              uint32
	Name            string // as Loaded.Digest, of the Conn that it was made of
	State           string // INSTALLED, REKEYING, REKEYED, DELETING and others of charon's
	SPIIn, SPIOut   uint32
	Encapsulated    bool // in UDP
	ESN             bool
	Cipher          string
	InterfaceID     uint32
	BytesIn         uint64
	PacketsIn       uint64
	BytesOut        uint64
	PacketsOut      uint64
	Age             time.Duration
	RekeyIn, EndsIn time.Duration
	LocalTS         []netip.Prefix
	RemoteTS        []netip.Prefix
}

// live says whether traffic is sent by it. One that was rekeyed only receives what is still on its way.
func (c ChildSA) live() bool { return c.State == "INSTALLED" || c.State == "REKEYING" }

// pending says whether an SA is on its way up.
func (s IKESA) pending() bool { return s.State == "CREATED" || s.State == "CONNECTING" }

// Loaded is a connection of ours as charon tells it.
type Loaded struct {
	Tunnel, Peer      string
	Digest            string // of the Conn that was loaded, and of its certificates; "": of another make
	LocalID, RemoteID string
	Remote            string         // an address, as written
	Prefixes          []netip.Prefix // sorted
	SecretFile        string         // whose key charon has; UnknownKey where the file says something else by now; "" with certificates
}

// Is says whether this is a Conn as it is meant, whatever its files hold: Run takes certificates that were exchanged.
func (l Loaded) Is(conn Conn) bool {
	digest, keyID := splitChild(l.Digest)
	return digest == conn.Digest() && (keyID != "") == (conn.Certificates != nil)
}

// UnknownKey stands for a key in charon that is in no file which we know, or for none. No file has this name.
const UnknownKey = "\x00unknown"

// Event is a change that the supervision has seen.
type Event struct {
	Kind         EventKind
	Socket       string // of the charon
	Tunnel, Peer string // of PeerUp and PeerDown
	Err          error  // of CharonGone
}

// EventKind says what has changed.
type EventKind string

// The kinds of events.
const (
	CharonBack EventKind = "charon-back" // it answers, and has again all that was loaded before
	CharonGone EventKind = "charon-gone"
	CharonIdle EventKind = "charon-idle" // nothing is loaded any more, so nobody asks it
	PeerUp     EventKind = "peer-up"     // a CHILD_SA carries traffic
	PeerDown   EventKind = "peer-down"   // none does any more
)
