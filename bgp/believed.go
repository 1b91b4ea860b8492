package bgp

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// believed are the routes that the filters let in, counted, and those that are refused for their first AS. GoBGP's own count of accepted
// routes is of those without a loop.
type believed struct {
	accepted, refused count
	from              string    // what they are counted from, and how it was judged
	changed           time.Time // from became what it is
	judged            uint64    // changes of filters, guarded by census.mu
}

// count is replaced as a whole, guarded by census.mu.
type count struct {
	of    map[believer]uint64
	began time.Time
	until time.Time // the next one waits
}

type believer struct {
	neighbor string
	family   bgp.Family
}

// To count is to go through the whole table: that takes one of so many parts of the time at most, and is left out where nothing came since.
// What a neighbor has sent may be counted as a message before it is in the table.
const (
	acceptedRest = 20
	refusedRest  = 100 // the table as it was received is copied for that, and GoBGP does nothing else meanwhile
	inTable      = time.Second
)

// due says whether to count again.
func (c count) due(now, changed time.Time) bool {
	return c.of == nil || now.After(c.until) && c.began.Before(changed.Add(inTable))
}

// believe puts the count of what was believed into what GoBGP says of its neighbors. It is called by one at a time.
func (sp *speaker) believe(peers map[string]*api.Peer, neighbors []Neighbor) error {
	c := &sp.census
	b, now := &c.believed, time.Now()
	c.mu.Lock()
	from := fmt.Sprint(b.judged)
	c.mu.Unlock()
	for _, addr := range slices.Sorted(maps.Keys(peers)) {
		from += fmt.Sprint(" ", addr, peers[addr].GetState().GetMessages().GetReceived().GetUpdate())
		for _, a := range peers[addr].AfiSafis {
			from += fmt.Sprint(" ", a.GetState().GetReceived())
		}
	}
	if b.from != from {
		b.from, b.changed = from, now
	}
	if b.accepted.due(now, b.changed) {
		of, err := sp.countAccepted()
		if err != nil {
			return err
		}
		c.counted(&b.accepted, of, now, acceptedRest*time.Since(now))
	}
	if start := time.Now(); b.refused.due(start, b.changed) {
		of, err := sp.countRefused(peers, neighbors, b.accepted.of)
		if err != nil {
			return err
		}
		c.counted(&b.refused, of, b.accepted.began, refusedRest*time.Since(start)) // no newer than what was left out by it
	}
	for addr, p := range peers {
		for _, a := range p.AfiSafis {
			if family := apiutil.ToFamily(a.GetConfig().GetFamily()); slices.Contains(unicastFamilies[:], family) && a.State != nil {
				a.State.Accepted = b.accepted.of[believer{addr, family}]
			}
		}
	}
	return nil
}

func (sp *speaker) countAccepted() (map[believer]uint64, error) {
	of := map[believer]uint64{}
	for _, family := range unicastFamilies {
		req := apiutil.ListPathRequest{TableType: api.TableType_TABLE_TYPE_GLOBAL, Family: family}
		if err := sp.bgp.ListPath(req, func(_ bgp.NLRI, paths []*apiutil.Path) {
			for _, p := range paths {
				of[believer{p.PeerAddress.Unmap().String(), family}]++
			}
		}); err != nil {
			return nil, fmt.Errorf("bgp: count what was accepted: %w", err)
		}
	}
	return of, nil
}

func (c *census) counted(it *count, of map[believer]uint64, began time.Time, rest time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	*it = count{of, began, time.Now().Add(rest)}
}

// judgedAnew is called once the table is what new filters make of it.
func (c *census) judgedAnew() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.believed.judged++
}
