package bfd

import (
	"encoding/binary"
	"fmt"
	"time"
)

// State of a session, as on the wire (RFC 5880 section 4.1).
type State uint8

// The states.
const (
	AdminDown State = iota
	Down
	Init
	Up
)

var stateNames = [...]string{"admin-down", "down", "init", "up"}

// String is the state's name in show, JSON and metrics.
func (s State) String() string { return name(stateNames[:], int(s)) }

// MarshalText is String.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText is the reverse of MarshalText.
func (s *State) UnmarshalText(text []byte) error { return read(stateNames[:], text, (*uint8)(s)) }

// Diag says why a session last left Up (RFC 5880 section 4.1).
type Diag uint8

// Those that we send. The others are what peers may say.
const (
	NoDiag       Diag = 0
	TimeExpired  Diag = 1 // nothing was received for the detection time
	NeighborDown Diag = 3 // the neighbor signaled that its session is down
	AdminDiag    Diag = 7
)

var diagNames = [...]string{
	"none", "control detection time expired", "echo function failed", "neighbor signaled session down",
	"forwarding plane reset", "path down", "concatenated path down", "administratively down", "reverse concatenated path down",
}

// String is the diagnostic in words.
func (d Diag) String() string { return name(diagNames[:], int(d)) }

// MarshalText is String.
func (d Diag) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText is the reverse of MarshalText.
func (d *Diag) UnmarshalText(text []byte) error { return read(diagNames[:], text, (*uint8)(d)) }

func name(names []string, i int) string {
	if i < len(names) {
		return names[i]
	}
	return fmt.Sprint(i)
}

func read(names []string, text []byte, to *uint8) error {
	for i, n := range names {
		if n == string(text) {
			*to = uint8(i)
			return nil
		}
	}
	_, err := fmt.Sscan(string(text), to)
	return err
}

// Flags, the low six bits of the second byte.
const (
	flagMultipoint = 1 << iota // M, reserved: zero
	flagDemand                 // D
	flagAuth                   // A: an authentication section follows
	flagCPI                    // C, control plane independent: BFD goes on while the control plane restarts
	flagFinal                  // F: the answer to a poll
	flagPoll                   // P
)

const (
	version    = 1
	packetSize = 24 // the mandatory section, which is all without authentication
	authSize   = packetSize + 2
)

// packet is a control packet (RFC 5880 section 4.1). On the wire everything is in network byte order:
//
//	byte 0     version (3 bits), Diag (5 bits)
//	byte 1     State (2 bits), flags P F C A D M
//	byte 2     detect multiplier
//	byte 3     length in bytes of all of it
//	4-7, 8-11  my, your discriminator
//	12-15      desired min TX interval, microseconds
//	16-19      required min RX interval, microseconds
//	20-23      required min echo RX interval, microseconds
type packet struct {
	diag         Diag
	state        State
	flags        uint8
	multiplier   uint8
	mine, yours  uint32 // discriminators, as the sender sees them
	minTx, minRx time.Duration
	minEcho      time.Duration // 0: the sender loops back no echo packets
}

// append encodes p at the end of b. Intervals are cut to whole microseconds.
func (p packet) append(b []byte) []byte {
	b = append(b, version<<5|byte(p.diag)&0x1f, byte(p.state)<<6|p.flags&0x3f, p.multiplier, packetSize)
	for _, v := range []uint32{p.mine, p.yours, microseconds(p.minTx), microseconds(p.minRx), microseconds(p.minEcho)} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return b
}

func microseconds(d time.Duration) uint32 { return uint32(d / time.Microsecond) }

// parse makes the checks of RFC 5880 section 6.8.6 that need no session, in their order, and says which one failed.
func parse(b []byte) (p packet, discard Discard) {
	if len(b) < packetSize {
		return p, BadLength
	}
	if b[0]>>5 != version {
		return p, BadVersion
	}
	p = packet{diag: Diag(b[0] & 0x1f), state: State(b[1] >> 6), flags: b[1] & 0x3f, multiplier: b[2]}
	length, least := int(b[3]), packetSize
	if p.flags&flagAuth != 0 {
		least = authSize
	}
	word := func(at int) uint32 { return binary.BigEndian.Uint32(b[at:]) }
	interval := func(at int) time.Duration { return time.Duration(word(at)) * time.Microsecond }
	p.mine, p.yours = word(4), word(8)
	p.minTx, p.minRx, p.minEcho = interval(12), interval(16), interval(20)
	switch {
	case length < least || length > len(b):
		return p, BadLength
	case p.multiplier == 0:
		return p, ZeroMultiplier
	case p.flags&flagMultipoint != 0:
		return p, Multipoint
	case p.mine == 0:
		return p, ZeroDiscriminator
	case p.yours == 0 && p.state != Down && p.state != AdminDown:
		return p, NotDown
	}
	return p, Accepted
}
