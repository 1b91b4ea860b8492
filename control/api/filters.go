package api

import (
	"context"
	"net/netip"
	"time"
)

// FilterKind is what a neighbor sent.
type FilterKind string

// The kinds of filters.
const (
	FilterFlowSpec  FilterKind = "flowspec"  // RFC 8955, RFC 8956
	FilterBlackhole FilterKind = "blackhole" // a unicast route with a community that asks for it (RFC 7999)
)

// What may have happened to a filter: the Text of an EventFlowSpec.
const (
	FilterAdded     = "added"
	FilterChanged   = "changed"   // its actions did
	FilterRefused   = "refused"   // Refused says why
	FilterStale     = "stale"     // its session is down, and it stays until Until
	FilterConfirmed = "confirmed" // its neighbor is back and announced it again
	FilterAgedOut   = "aged out"  // its session stayed down
	FilterRemoved   = "removed"   // withdrawn, or not announced again
)

// Filter is what a BGP neighbor wants filtered, a line of `show flowspec`. They stand in the order of their evaluation.
type Filter struct {
	Rule     string     `json:"rule"`
	Kind     FilterKind `json:"kind"`
	Neighbor string     `json:"neighbor"`
	Address  netip.Addr `json:"address"` // of the neighbor
	Actions  string     `json:"actions"`
	Socket   string     `json:"socket,omitempty"` // that it redirects to
	Since    time.Time  `json:"since"`            // when it was announced as it is
	Stale    *time.Time `json:"stale,omitempty"`  // when its session went down, if it did
	Until    *time.Time `json:"until,omitempty"`  // when it ends, unless the session comes back before
	Valid    bool       `json:"valid"`            // it is in the data path
	Refused  string     `json:"refused,omitempty"`
	Packets  uint64     `json:"packets"` // that it matched
	Bytes    uint64     `json:"bytes"`
	Dropped  uint64     `json:"dropped"` // of the packets
	LastHit  *time.Time `json:"last_hit,omitempty"`
}

// FiltersRequest asks for filters, or only for their numbers.
type FiltersRequest struct {
	Neighbor string `json:"neighbor,omitempty"` // "": of all
	Limit    int    `json:"limit,omitempty"`    // the first so many; 0: DefaultFilters
	Count    bool   `json:"count,omitempty"`    // no filters, only their numbers
}

// DefaultFilters are shown where nobody says how many.
const DefaultFilters = 1000

// Filters are those that a request chose.
type Filters struct {
	Total   int      `json:"total"` // beyond the limit, too, as are those of them that are
	Stale   int      `json:"stale"`
	Refused int      `json:"refused"`
	Filters []Filter `json:"filters"` // in the order of their evaluation
}

// Filters reads what BGP neighbors want filtered.
func (c *Client) Filters(ctx context.Context, in FiltersRequest) (Filters, error) {
	return post[Filters](ctx, c, "flowspec", in)
}
