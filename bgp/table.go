package bgp

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"sluice/bgp/shortlist"
)

// RIBEntry is one path that a neighbor announced, or that is announced to it.
type RIBEntry struct {
	Prefix      netip.Prefix `json:"prefix"`
	NextHop     netip.Addr   `json:"next_hop"`
	Neighbor    netip.Addr   `json:"neighbor"`
	ASPath      []uint32     `json:"as_path"`
	Communities []uint32     `json:"communities"`
	LocalPref   *uint32      `json:"local_pref,omitempty"`
	MED         *uint32      `json:"med,omitempty"`
	Best        bool         `json:"best"`
	Stale       bool         `json:"stale"`             // kept while the neighbor restarts
	Refused     string       `json:"refused,omitempty"` // of what was received: why it is not believed, whatever the filters say
}

// Table is one of the views on what goes to and fro with a neighbor.
type Table string

// The tables of a neighbor.
const (
	Received   Table = "received"   // as it came
	Accepted   Table = "accepted"   // after the import policy and the check for loops
	Advertised Table = "advertised" // ours, with what the neighbor is told
)

// Tables are all of them.
var Tables = []Table{Advertised, Received, Accepted} // never changed

// chooser says whether a path belongs into a list, and why it is not believed; "": it may be.
type chooser func(*apiutil.Path) (refused string, ok bool)

func everyPath(*apiutil.Path) (string, bool) { return "", true }

// RIB returns every path that neighbors announced, believed or not, sorted by prefix.
func (s *Subsystem) RIB() ([]RIBEntry, error) {
	s.mu.Lock()
	sp, neighbors := s.speaker, s.have.Neighbors
	s.mu.Unlock()
	var out []RIBEntry
	for _, n := range neighbors {
		one, _, err := sp.list(apiutil.ListPathRequest{TableType: api.TableType_TABLE_TYPE_ADJ_IN, Name: n.Address.String()}, everyPath, 0)
		if err != nil {
			return nil, err
		}
		out = append(out, one...)
	}
	slices.SortStableFunc(out, func(a, b RIBEntry) int { return a.Prefix.Compare(b.Prefix) })
	return out, nil
}

// listAtMost bounds a list that GoBGP had time for when it was asked: a long one takes its time.
const listAtMost = time.Minute

// NeighborTable returns the first so many of one table of the neighbor of this name, sorted by prefix, and how many it has. Limit 0: all.
// A busy GoBGP is not waited for.
func (s *Subsystem) NeighborTable(name string, table Table, limit int) (entries []RIBEntry, total int, err error) {
	s.mu.Lock()
	sp := s.speaker
	n, ok := s.named(name)
	s.mu.Unlock()
	if !ok {
		return nil, 0, fmt.Errorf("%w: %s", ErrNoNeighbor, name)
	}
	req, want := apiutil.ListPathRequest{Name: n.Address.String()}, chooser(everyPath)
	switch table {
	case Received:
		req.TableType = api.TableType_TABLE_TYPE_ADJ_IN
		want = func(p *apiutil.Path) (string, bool) { return n.refuses(p), true }
	case Advertised:
		req.TableType = api.TableType_TABLE_TYPE_ADJ_OUT
	case Accepted:
		// Not by EnableFiltered of the received one, which stores what the import policy made of it.
		req = apiutil.ListPathRequest{TableType: api.TableType_TABLE_TYPE_GLOBAL}
		want = func(p *apiutil.Path) (string, bool) { return "", p.PeerAddress.Unmap() == n.Address }
	default:
		return nil, 0, fmt.Errorf("a neighbor has no table %q", table)
	}
	if entries, total, err = sp.listInTime(req, want, limit); table == Advertised {
		for i := range entries {
			entries[i].Neighbor = n.Address
		}
	}
	return entries, total, err
}

// listInTime is list, or errBusy. It asks for a little first: a list that nobody waits for is still made.
func (sp *speaker) listInTime(req apiutil.ListPathRequest, want chooser, limit int) ([]RIBEntry, int, error) {
	type listed struct {
		entries []RIBEntry
		total   int
	}
	made := make(chan listed, 1)
	err := busyAfter(patience, func(ctx context.Context) error {
		_, err := sp.states(ctx)
		return err
	})
	if err == nil {
		err = busyAfter(listAtMost, func(context.Context) error {
			entries, total, err := sp.list(req, want, limit)
			made <- listed{entries, total}
			return err
		})
	}
	if err != nil {
		return nil, 0, err
	}
	out := <-made
	return out.entries, out.total, nil
}

// list is the first so many of a table of GoBGP's, of the families that we speak, and how many it has. Limit 0: all.
func (sp *speaker) list(req apiutil.ListPathRequest, want chooser, limit int) (entries []RIBEntry, total int, err error) {
	if sp == nil {
		return nil, 0, nil
	}
	list := shortlist.New(limit, func(a, b RIBEntry) int {
		return cmp.Or(a.Prefix.Compare(b.Prefix), a.Neighbor.Compare(b.Neighbor))
	})
	for _, req.Family = range []bgp.Family{bgp.RF_IPv4_UC, bgp.RF_IPv6_UC} {
		err := sp.bgp.ListPath(req, func(_ bgp.NLRI, paths []*apiutil.Path) {
			for _, p := range paths {
				prefix, ok := unicast(p)
				if !ok {
					continue
				}
				if refused, ok := want(p); ok {
					list.Add(ribEntry(prefix, p, refused))
				}
			}
		})
		if err != nil {
			return nil, 0, fmt.Errorf("bgp: list the paths: %w", err)
		}
	}
	entries, total = list.First()
	return entries, total, nil
}

func ribEntry(prefix netip.Prefix, p *apiutil.Path, refused string) RIBEntry {
	e := RIBEntry{
		Prefix: prefix, NextHop: nextHop(p), Neighbor: p.PeerAddress.Unmap(), ASPath: asPath(p),
		Communities: communities(p), Best: p.Best, Stale: p.Stale, Refused: refused,
	}
	for _, a := range p.Attrs {
		switch a := a.(type) {
		case *bgp.PathAttributeLocalPref:
			e.LocalPref = &a.Value
		case *bgp.PathAttributeMultiExitDisc:
			e.MED = &a.Value
		}
	}
	return e
}
