package bgp

import (
	"context"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"

	"sluice/bgp/flowspec"
)

// source is where all that a neighbor announced can be had again: GoBGP keeps what a table had no room for.
type source struct {
	life context.Context // of the watch over the neighbor
	from *server.BgpServer
	n    Neighbor
}

// refillRest is the part of the time that lists of what was missed may take: one in so many.
const refillRest = 20

// refill takes what there was no room for, where there is some by now, and says when to look again; zero: there is no need. f.mu is held: what is
// withdrawn from a list meanwhile is told behind it.
func (f *flows) refill(now time.Time) (next time.Time) {
	for _, t := range []*flowspec.Table{f.tables.rules, f.tables.blackholes} {
		for _, neighbor := range t.Missed() {
			if now.Before(f.rest) {
				return f.rest
			}
			t.Again(neighbor)
			s, known := f.sources[neighbor]
			if !known || s.life.Err() != nil {
				continue
			}
			began := time.Now()
			if err := s.list(t == f.tables.blackholes, func(a flowspec.Announcement) { t.Offer(a, now) }); err != nil {
				f.log.Warn("FlowSpec rules that there was no room for", "neighbor", s.n.Name, "error", err)
			}
			f.rest = time.Now().Add(refillRest * time.Since(began))
		}
	}
	return next
}

// list has a neighbor's rules, or its blackholes.
func (s source) list(blackholes bool, each func(flowspec.Announcement)) error {
	families := []bgp.Family{bgp.RF_FS_IPv4_UC, bgp.RF_FS_IPv6_UC}
	if blackholes {
		families = unicastFamilies[:]
	}
	for _, family := range families {
		req := apiutil.ListPathRequest{TableType: api.TableType_TABLE_TYPE_ADJ_IN, Name: s.n.Address.String(), Family: family}
		if err := s.from.ListPath(req, func(_ bgp.NLRI, paths []*apiutil.Path) {
			for _, p := range paths {
				if blackholes {
					if a, asks, ok := blackhole(p, s.n.Blackhole); ok && asks {
						each(a)
					}
				} else if a, ok := announcement(p); ok {
					each(a)
				}
			}
		}); err != nil {
			return err
		}
	}
	return nil
}
