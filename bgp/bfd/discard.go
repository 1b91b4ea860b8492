package bfd

// Discard is why a packet was not believed.
type Discard uint8

// The reasons, in the order of the checks: GTSM (RFC 5881 section 5) first, then RFC 5880 section 6.8.6.
const (
	Accepted          Discard = iota
	BadTTL                    // TTL or hop limit is not 255: it comes from beyond the link
	BadVersion                // not version 1
	BadLength                 // shorter than its header, or longer than what came
	ZeroMultiplier            // detect multiplier 0
	Multipoint                // M is set
	ZeroDiscriminator         // my discriminator is 0
	NotDown                   // your discriminator is 0 in a state that knows ours
	Unknown                   // no session of this discriminator, or with this peer
	WrongPeer                 // our discriminator, from another address or interface than the session's
	Authenticated             // A is set, and no authentication is in use
	Disabled                  // the session is administratively down
	discards
)

var discardNames = [discards]string{
	"accepted", "ttl", "version", "length", "zero-multiplier", "multipoint", "zero-discriminator", "not-down", "unknown-session",
	"wrong-peer", "authenticated", "admin-down",
}

// String labels the reason in metrics and JSON.
func (d Discard) String() string { return discardNames[d] }
