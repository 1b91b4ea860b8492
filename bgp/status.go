package bgp

import (
	"cmp"
	"context"
	"fmt"
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
	State         string         `json:"state"` // idle, active, opensent, openconfirm, established
	UptimeSeconds int64          `json:"uptime_seconds"`
	Families      []FamilyStatus `json:"families"`
	LastError     string         `json:"last_error,omitempty"` // why it is not up, or was last lost
	BFD           *bfd.Status    `json:"bfd,omitempty"`        // none is wanted, or not known yet: absent
}

// FamilyStatus counts prefixes of one family of one session.
type FamilyStatus struct {
	Family     string `json:"family"` // ipv4-unicast, ipv6-unicast
	Received   uint64 `json:"received"`
	Accepted   uint64 `json:"accepted"`   // after the import policy and loop check
	Advertised uint64 `json:"advertised"` // ours: nothing else is ever announced
}

// RouteStatus is one learned route in the kernel.
type RouteStatus struct {
	Prefix   netip.Prefix `json:"prefix"`
	NextHops []netip.Addr `json:"next_hops"`
	Metric   int          `json:"metric"`
	Stale    bool         `json:"stale"` // kept over a restart, not learned again yet
}

// RIBEntry is one path that a neighbor announced.
type RIBEntry struct {
	Prefix      netip.Prefix `json:"prefix"`
	NextHop     netip.Addr   `json:"next_hop"`
	Neighbor    netip.Addr   `json:"neighbor"`
	ASPath      []uint32     `json:"as_path"`
	Communities []uint32     `json:"communities"`
	Best        bool         `json:"best"`
	Stale       bool         `json:"stale"` // kept while the neighbor restarts
}

// Status returns the sessions, sorted by name.
func (s *Subsystem) Status(ctx context.Context) ([]NeighborStatus, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.speaker == nil {
		return nil, nil
	}
	peers := map[string]*api.Peer{}
	err := s.speaker.bgp.ListPeer(ctx, &api.ListPeerRequest{}, func(p *api.Peer) { peers[p.Conf.NeighborAddress] = p })
	if err != nil {
		return nil, fmt.Errorf("bgp: list the neighbors: %w", err)
	}
	live := s.liveness()
	announced := map[bgp.Family]uint64{}
	for _, p := range s.have.Paths {
		announced[familyOf(p.Prefix)]++
	}
	out := make([]NeighborStatus, 0, len(s.have.Neighbors))
	for _, n := range s.have.Neighbors {
		st := NeighborStatus{Name: n.Name, Address: n.Address, ASN: n.ASN, State: "idle", LastError: s.sessions.lastError(n.Address)}
		if p := peers[n.Address.String()]; p != nil {
			st.fill(n, p, announced)
		}
		st.BFD = live[n.Address]
		out = append(out, st)
	}
	return out, nil
}

func (st *NeighborStatus) fill(n Neighbor, p *api.Peer, announced map[bgp.Family]uint64) {
	st.State = strings.ToLower(strings.TrimPrefix(p.GetState().GetSessionState().String(), "SESSION_STATE_"))
	up := p.GetState().GetSessionState() == api.PeerState_SESSION_STATE_ESTABLISHED
	if overLimit(p) {
		st.LastError = fmt.Sprintf("more than %d prefixes of one family: the session is shut down", n.MaxPrefixes)
	}
	if since := p.GetTimers().GetState().GetUptime(); up && since != nil {
		st.UptimeSeconds = int64(time.Since(since.AsTime()) / time.Second)
	}
	for _, f := range n.families() {
		fs := FamilyStatus{Family: f.String()}
		for _, a := range p.AfiSafis {
			if c := a.GetState(); up && apiutil.ToFamily(a.GetConfig().GetFamily()) == f {
				fs.Received, fs.Accepted, fs.Advertised = c.GetReceived(), c.GetAccepted(), announced[f]
			}
		}
		st.Families = append(st.Families, fs)
	}
}

// overLimit reports whether GoBGP shut the session down for good because of max_prefixes.
func overLimit(p *api.Peer) bool {
	return p.GetState().GetAdminState() == api.PeerState_ADMIN_STATE_PFX_CT
}

// Routes returns the learned routes in the kernel, sorted by prefix.
func (s *Subsystem) Routes() []RouteStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.speaker == nil {
		return nil
	}
	var out []RouteStatus
	for _, r := range s.speaker.fib.Routes() {
		out = append(out, RouteStatus{Prefix: r.Prefix, NextHops: r.NextHops, Metric: r.Metric, Stale: r.Stale})
	}
	return out
}

// FIB returns what could not be installed so far.
func (s *Subsystem) FIB() fib.Counters {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.speaker == nil {
		return fib.Counters{}
	}
	return s.speaker.fib.Counters()
}

// RIB returns every path learned from neighbors, sorted by prefix and neighbor.
func (s *Subsystem) RIB() ([]RIBEntry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.speaker == nil {
		return nil, nil
	}
	var out []RIBEntry
	for _, family := range []bgp.Family{bgp.RF_IPv4_UC, bgp.RF_IPv6_UC} {
		req := apiutil.ListPathRequest{TableType: api.TableType_TABLE_TYPE_GLOBAL, Family: family}
		err := s.speaker.bgp.ListPath(req, func(_ bgp.NLRI, paths []*apiutil.Path) {
			for _, p := range paths {
				if prefix, ok := unicast(p); ok && p.PeerAddress.IsValid() {
					out = append(out, RIBEntry{
						Prefix: prefix, NextHop: nextHop(p), Neighbor: p.PeerAddress.Unmap(), ASPath: asPath(p),
						Communities: communities(p), Best: p.Best, Stale: p.Stale,
					})
				}
			}
		})
		if err != nil {
			return nil, fmt.Errorf("bgp: list the paths: %w", err)
		}
	}
	slices.SortFunc(out, func(a, b RIBEntry) int {
		return cmp.Or(a.Prefix.Compare(b.Prefix), a.Neighbor.Compare(b.Neighbor))
	})
	return out, nil
}

func familyOf(p netip.Prefix) bgp.Family {
	if p.Addr().Is4() {
		return bgp.RF_IPv4_UC
	}
	return bgp.RF_IPv6_UC
}
