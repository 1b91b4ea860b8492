package flowspec

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"strings"
)

// ActionKind is what an action does. The order is that of the text.
type ActionKind uint8

// The actions of RFC 8955 section 7, RFC 8956 section 6 and draft-ietf-idr-flowspec-redirect-ip. A rule without any lets its
// packets pass, and ends the search.
const (
	RateBytes   ActionKind = iota // 0: discard
	RatePackets                   // 0: discard
	Sample                        // the S bit of traffic-action
	GoOn                          // its T bit, set: later rules are asked as well (the RFC calls it terminal)
	Redirect                      // to the VRF of a route target
	RedirectIP                    // to a next hop
	Mark                          // the DSCP becomes another
)

// Action is one. Only the fields of its kind are set.
type Action struct {
	Kind   ActionKind
	Rate   float32 // per second; never negative
	Target string  // Redirect: the route target; RedirectIP: the address
	Copy   bool    // RedirectIP: of a copy
	DSCP   uint8
}

// String is the action in words.
func (a Action) String() string {
	switch {
	case a.Kind <= RatePackets && a.Rate == 0:
		return "discard"
	case a.Kind == RateBytes:
		return fmt.Sprintf("rate %.0f bytes/s", a.Rate)
	case a.Kind == RatePackets:
		return fmt.Sprintf("rate %.0f packets/s", a.Rate)
	case a.Kind == Sample:
		return "sample"
	case a.Kind == GoOn:
		return "go on"
	case a.Kind == Redirect:
		return "redirect " + a.Target
	case a.Kind == RedirectIP && a.Copy:
		return "copy to " + a.Target
	case a.Kind == RedirectIP:
		return "redirect to " + a.Target
	}
	return fmt.Sprintf("mark dscp %d", a.DSCP)
}

// ActionsText joins the actions of a rule; none is "accept".
func ActionsText(actions []Action) string {
	if len(actions) == 0 {
		return "accept"
	}
	words := make([]string, len(actions))
	for i, a := range actions {
		words[i] = a.String()
	}
	return strings.Join(words, ", ")
}

const (
	communityLen  = 8  // RFC 4360
	community6Len = 20 // RFC 5701
)

// ParseActions reads the values of the attributes EXTENDED_COMMUNITIES and IPv6-address-specific ones, as they stand on the
// wire. Communities that are no actions are passed over.
func ParseActions(communities, communities6 []byte) ([]Action, error) {
	if len(communities)%communityLen != 0 || len(communities6)%community6Len != 0 {
		return nil, fmt.Errorf("flowspec: extended communities of %d and %d octets: want multiples of %d and %d",
			len(communities), len(communities6), communityLen, community6Len)
	}
	var out []Action
	for ; len(communities) > 0; communities = communities[communityLen:] {
		found, err := action([communityLen]byte(communities))
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	for ; len(communities6) > 0; communities6 = communities6[community6Len:] {
		out = append(out, action6([community6Len]byte(communities6))...)
	}
	return out, nil
}

// action is what an extended community asks for: nothing, one thing, or two bits.
func action(c [communityLen]byte) ([]Action, error) {
	high, low := binary.BigEndian.Uint16(c[2:]), binary.BigEndian.Uint16(c[6:])
	number := binary.BigEndian.Uint32(c[4:])
	switch kind := binary.BigEndian.Uint16(c[:]); kind {
	case 0x8006:
		return rate(RateBytes, number)
	case 0x800c:
		return rate(RatePackets, number)
	case 0x8007:
		var out []Action
		if c[7]&0x02 != 0 {
			out = append(out, Action{Kind: Sample})
		}
		if c[7]&0x01 != 0 {
			out = append(out, Action{Kind: GoOn})
		}
		return out, nil
	case 0x8008: // 2 octets of AS, 4 of number
		return redirect("%d:%d", high, number)
	case 0x8108:
		return redirect("%s:%d", netip.AddrFrom4([4]byte(c[2:6])), low)
	case 0x8208:
		return redirect("%d:%d", binary.BigEndian.Uint32(c[2:]), low)
	case 0x8009:
		return []Action{{Kind: Mark, DSCP: c[7] & 0x3f}}, nil
	case 0x010c:
		return []Action{{Kind: RedirectIP, Target: netip.AddrFrom4([4]byte(c[2:6])).String(), Copy: c[7]&1 != 0}}, nil
	case 0x0800: // an older draft: the address is the path's next hop
		return []Action{{Kind: RedirectIP, Target: "the next hop", Copy: c[7]&1 != 0}}, nil
	}
	return nil, nil
}

func rate(kind ActionKind, bits uint32) ([]Action, error) {
	r := math.Float32frombits(bits)
	if r != r {
		return nil, fmt.Errorf("flowspec: a traffic rate is not a number (%#08x)", bits)
	}
	return []Action{{Kind: kind, Rate: max(r, 0)}}, nil // a negative one is zero (RFC 8955 section 7.1)
}

func redirect(format string, args ...any) ([]Action, error) {
	return []Action{{Kind: Redirect, Target: fmt.Sprintf(format, args...)}}, nil
}

func action6(c [community6Len]byte) []Action {
	addr, local := netip.AddrFrom16([16]byte(c[2:18])), binary.BigEndian.Uint16(c[18:])
	switch binary.BigEndian.Uint16(c[:]) {
	case 0x000d, 0x800b: // RFC 8956 section 6.1, and what drafts before it had
		return []Action{{Kind: Redirect, Target: fmt.Sprintf("[%s]:%d", addr, local)}}
	case 0x000c:
		return []Action{{Kind: RedirectIP, Target: addr.String(), Copy: local&1 != 0}}
	}
	return nil
}
