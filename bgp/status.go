package bgp

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"sluice/bgp/bfd"
	"sluice/bgp/fib"
)

// NeighborStatus is one session now.
type NeighborStatus struct {
	Name          string         `json:"name"`
	Address       netip.Addr     `json:"address"`
	ASN           uint32         `json:"asn"`
	State         string         `json:"state"`          // idle, active, opensent, openconfirm, established
	Down          string         `json:"down,omitempty"` // why it is kept down: shutdown, prefix-limit
	UptimeSeconds int64          `json:"uptime_seconds"`
	Families      []FamilyStatus `json:"families"`
	LastError     string         `json:"last_error,omitempty"` // why it is not up, or was last lost
	LastDial      *Dial          `json:"last_dial,omitempty"`  // of a session that should be up, and that nothing stands in the way of here
	BFD           *bfd.Status    `json:"bfd,omitempty"`        // none is wanted, or not known yet: absent

	Internal         bool          `json:"internal"` // iBGP
	Passive          bool          `json:"passive"`
	LocalAddress     netip.Addr    `json:"local_address,omitzero"` // of the session
	RouterID         string        `json:"router_id,omitempty"`    // the neighbor's
	HoldSeconds      uint64        `json:"hold_seconds,omitempty"` // negotiated
	KeepaliveSeconds uint64        `json:"keepalive_seconds,omitempty"`
	MaxPrefixes      uint32        `json:"max_prefixes,omitempty"` // of each family
	Flaps            uint64        `json:"flaps"`                  // sessions lost since the neighbor was configured
	Sent             MessageCounts `json:"sent"`
	Received         MessageCounts `json:"received"`
	Notification     *Notification `json:"last_notification,omitempty"`
}

// MessageCounts are of the neighbor's sessions since it was last added or shut down.
type MessageCounts struct {
	Open         uint64 `json:"open"`
	Update       uint64 `json:"update"`
	Notification uint64 `json:"notification"`
	Keepalive    uint64 `json:"keepalive"`
	RouteRefresh uint64 `json:"route_refresh"`
}

// FamilyStatus counts prefixes of one family of one session.
type FamilyStatus struct {
	Family     string `json:"family"` // ipv4-unicast, ipv6-unicast
	Received   uint64 `json:"received"`
	Accepted   uint64 `json:"accepted"`   // after the import policy and loop check; of a large table that changes it may be a minute old
	Advertised uint64 `json:"advertised"` // ours: nothing else is ever announced
	// OtherFirstAS are those of Received that Neighbor.FirstAS refuses.
	OtherFirstAS uint64 `json:"other_first_as,omitempty"`
}

// RouteStatus is one learned route, in the kernel or kept from it.
type RouteStatus struct {
	Prefix   netip.Prefix `json:"prefix"`
	NextHops []netip.Addr `json:"next_hops"` // in the kernel: gateways; not installed: as learned
	Metric   int          `json:"metric"`
	Stale    bool         `json:"stale"`             // kept over a restart, not learned again yet
	Absent   bool         `json:"absent,omitempty"`  // not in the kernel
	Problem  string       `json:"problem,omitempty"` // why it is absent, or lacks a next hop
}

// RouteQuery chooses learned routes.
type RouteQuery = fib.Query

// Routes are learned routes that a query chose.
type Routes struct {
	Total  int           `json:"total"` // beyond the limit, too, as are those of them that are
	Stale  int           `json:"stale"`
	Absent int           `json:"absent"`
	Routes []RouteStatus `json:"routes"` // sorted by prefix
}

// Status returns the sessions, sorted by name.
func (s *Subsystem) Status(ctx context.Context) ([]NeighborStatus, error) {
	s.mu.Lock()
	sp, neighbors := s.speaker, s.have.Neighbors
	s.mu.Unlock()
	if sp == nil {
		return nil, nil
	}
	peers, err := sp.peers(ctx, neighbors) // may take a second, which no change has to wait for
	live := s.liveness()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.speaker != sp { // it ended meanwhile
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	announced, refused := s.have.announced(), sp.census.refused()
	out := make([]NeighborStatus, 0, len(s.have.Neighbors))
	for _, n := range s.have.Neighbors {
		st := s.neighborStatus(n)
		if p := peers[n.Address.String()]; p != nil {
			st.fill(n, p, announced(n.Address), refused)
		}
		st.BFD = live[n.Address]
		out = append(out, st)
	}
	return out, nil
}

func (s *Subsystem) neighborStatus(n Neighbor) NeighborStatus {
	shown := s.sessions.shown(n.Address)
	st := NeighborStatus{
		Name: n.Name, Address: n.Address, ASN: n.ASN, State: "idle", Internal: n.ASN == s.have.ASN, Passive: n.Passive,
		MaxPrefixes: n.Limit.Max, LastError: shown.error, Flaps: shown.flaps, Notification: shown.last,
	}
	switch {
	case n.Shutdown:
		st.Down = "shutdown"
	case shown.over:
		st.Down = "prefix-limit"
	default:
		st.LastDial = shown.dial
	}
	return st
}

func (st *NeighborStatus) fill(n Neighbor, p *api.Peer, announced map[bgp.Family]uint64, refused map[believer]uint64) {
	st.State = strings.ToLower(strings.TrimPrefix(p.GetState().GetSessionState().String(), "SESSION_STATE_"))
	st.Sent, st.Received = messageCounts(p.GetState().GetMessages().GetSent()), messageCounts(p.GetState().GetMessages().GetReceived())
	up := p.GetState().GetSessionState() == api.PeerState_SESSION_STATE_ESTABLISHED
	if up {
		st.LastDial = nil
		timers := p.GetTimers().GetState()
		if since := timers.GetUptime(); since != nil {
			st.UptimeSeconds = int64(time.Since(since.AsTime()) / time.Second)
		}
		st.HoldSeconds, st.KeepaliveSeconds = timers.GetNegotiatedHoldTime(), timers.GetKeepaliveInterval()
		st.RouterID = p.GetState().GetRouterId()
		st.LocalAddress, _ = netip.ParseAddr(p.GetTransport().GetLocalAddress())
	}
	for _, f := range n.families() {
		fs := FamilyStatus{Family: f.String()}
		for _, a := range p.AfiSafis {
			if c := a.GetState(); up && apiutil.ToFamily(a.GetConfig().GetFamily()) == f {
				fs.Received, fs.Accepted, fs.Advertised = c.GetReceived(), c.GetAccepted(), announced[f]
				fs.OtherFirstAS = refused[believer{n.Address.String(), f}]
			}
		}
		st.Families = append(st.Families, fs)
	}
}

func messageCounts(m *api.Message) MessageCounts {
	return MessageCounts{m.GetOpen(), m.GetUpdate(), m.GetNotification(), m.GetKeepalive(), m.GetRefresh()}
}

// Routes returns the learned routes that a query chooses, those that could not be installed included.
func (s *Subsystem) Routes(q RouteQuery) (out Routes) {
	sp := s.running()
	if sp == nil {
		return out
	}
	shown := sp.fib.Routes(q)
	out.Total, out.Stale, out.Absent = shown.Total, shown.Stale, shown.Absent
	for _, r := range shown.Routes {
		out.Routes = append(out.Routes, RouteStatus{r.Prefix, r.NextHops, r.Metric, r.Stale, r.Absent, r.Problem})
	}
	return out
}

// NextHops returns the gateways of the learned routes in the kernel, each with a prefix that goes by it.
func (s *Subsystem) NextHops() map[netip.Addr]netip.Prefix {
	if sp := s.running(); sp != nil {
		return sp.fib.NextHops()
	}
	return nil
}

// running is the speaker; nil: there is none.
func (s *Subsystem) running() *speaker {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.speaker
}

// FIB returns what could not be installed so far.
func (s *Subsystem) FIB() fib.Counters {
	if sp := s.running(); sp != nil {
		return sp.fib.Counters()
	}
	return fib.Counters{}
}

// announced counts what a neighbor hears, by family.
func (s State) announced() func(neighbor netip.Addr) map[bgp.Family]uint64 {
	paths := byPrefix(s.Paths)
	return func(neighbor netip.Addr) map[bgp.Family]uint64 {
		out := map[bgp.Family]uint64{}
		for prefix, ways := range paths.all() {
			if slices.ContainsFunc(ways, func(p Path) bool { return p.hears(neighbor) }) {
				out[familyOf(prefix)]++
			}
		}
		return out
	}
}

func familyOf(p netip.Prefix) bgp.Family {
	if p.Addr().Is4() {
		return bgp.RF_IPv4_UC
	}
	return bgp.RF_IPv6_UC
}
