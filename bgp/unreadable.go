package bgp

import (
	"context"
	"net/netip"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// GoBGP v4.8.0 misreads the length of a FlowSpec rule of 240 octets or more, and ends the session for it, or for a malformed one, again and again: its neighbor's routes go as well.
// So a session that ended like that comes back without FlowSpec. Its rules are stale then, and end by their age, until somebody clears the session.

// unreadable says that a notification of ours is what GoBGP sends for such a rule: its data is the attribute that was not understood, MP_REACH_NLRI or
// MP_UNREACH_NLRI (RFC 4760) of a FlowSpec family.
func unreadable(n Notification, data []byte) bool {
	if !n.Sent || n.Code != bgp.BGP_ERROR_UPDATE_MESSAGE_ERROR || n.Subcode != bgp.BGP_ERROR_SUB_INVALID_NETWORK_FIELD || len(data) < 2 {
		return false
	}
	value := 3
	if bgp.BGPAttrFlag(data[0])&bgp.BGP_ATTR_FLAG_EXTENDED_LENGTH != 0 {
		value = 4
	}
	kind := bgp.BGPAttrType(data[1])
	return (kind == bgp.BGP_ATTR_TYPE_MP_REACH_NLRI || kind == bgp.BGP_ATTR_TYPE_MP_UNREACH_NLRI) && len(data) >= value+3 && data[value+2] == bgp.SAFI_FLOW_SPEC_UNICAST
}

// spoilt says, once, that a neighbor's session ended for such a rule.
func (s *sessions) spoilt(addr netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.known[addr]
	if known == nil || known.plain || !known.spoilt {
		return false
	}
	known.plain, known.spoilt = true, false
	return true
}

// plain says that a neighbor is offered no FlowSpec.
func (s *sessions) plain(addr netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known[addr] != nil && s.known[addr].plain
}

// offer has a neighbor offered all that it is configured for, and says whether it was not.
func (s *sessions) offer(addr netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.known[addr]
	if known == nil || !known.plain {
		return false
	}
	known.plain = false
	return true
}

func (k *session) plainError() string {
	if !k.plain {
		return ""
	}
	return "FlowSpec is left out: a rule of 240 octets or more, or a malformed one, ended the session; split it at the neighbor, then clear bgp " + k.n.Name
}

// offered is a neighbor with the families that its session is to have now.
func (s *Subsystem) offered(n Neighbor) Neighbor {
	if s.sessions.plain(n.Address) {
		n.FlowSpec4, n.FlowSpec6 = false, false
	}
	return n
}

// leaveOut brings a session back without FlowSpec.
func (s *Subsystem) leaveOut(addr netip.Addr) {
	s.change.Lock()
	defer s.change.Unlock()
	n, ok := s.neighbor(addr)
	if s.speaker == nil || !ok || !s.sessions.plain(addr) {
		return
	}
	s.log.Error("BGP session comes back without FlowSpec", "neighbor", n.Name, "reason", s.sessions.shown(addr).error)
	if err := s.again(context.Background(), n, n.Shutdown); err != nil {
		s.log.Error("BGP session without FlowSpec", "neighbor", n.Name, "error", err)
	}
}
