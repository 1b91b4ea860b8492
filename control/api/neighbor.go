package api

import (
	"context"

	"sluice/bgp"
)

// NeighborRequest asks for one BGP neighbor, and for one of its tables.
type NeighborRequest struct {
	Name  string        `json:"name"`
	Table NeighborTable `json:"table,omitempty"` // advertised, received, accepted; "": none
	Limit int           `json:"limit,omitempty"` // the first so many paths; 0: DefaultPaths
}

// DefaultPaths are shown where nobody says how many.
const DefaultPaths = 1000

// NeighborTable is a word that NeighborRequest.Table takes.
type NeighborTable = bgp.Table

// NeighborTables are all of them.
func NeighborTables() []NeighborTable { return bgp.Tables }

// What happens to sessions, in Session.Kind.
const (
	SessionUp     = bgp.EventUp
	SessionDown   = bgp.EventDown
	SessionNearly = bgp.EventNearly
	SessionLimit  = bgp.EventLimit
	SessionLive   = bgp.EventLive
	SessionDead   = bgp.EventDead
	RoutesTaken   = bgp.EventTaken
)

// SessionKind is one of them.
type SessionKind = bgp.EventKind

// NeighborDetail is one BGP neighbor.
type NeighborDetail struct {
	Neighbor
	Table NeighborTable `json:"table,omitempty"`
	Total int           `json:"total"` // paths in the table
	Paths []Path        `json:"paths"` // the first of them, sorted by prefix
}

// Path is one path of a neighbor's table.
type Path = bgp.RIBEntry

// RoutesRequest asks for learned routes, or only for their numbers.
type RoutesRequest struct {
	About string `json:"about,omitempty"` // an address or a prefix: those that cover it, and those within it
	Limit int    `json:"limit,omitempty"` // the first so many; 0: DefaultPaths
	Count bool   `json:"count,omitempty"` // no routes, only their numbers
}

// ClearBGPRequest resets a session; soft leaves it up, and has routes judged and sent again.
type ClearBGPRequest struct {
	Neighbor string `json:"neighbor"`
	Soft     bool   `json:"soft,omitempty"`
}

// BGPCleared is what was cleared.
type BGPCleared struct {
	Neighbor string `json:"neighbor"`
	Soft     bool   `json:"soft"`
}

// Neighbor looks at one BGP neighbor.
func (c *Client) Neighbor(ctx context.Context, in NeighborRequest) (NeighborDetail, error) {
	return post[NeighborDetail](ctx, c, "bgp/neighbor", in)
}

// Routes reads learned routes.
func (c *Client) Routes(ctx context.Context, in RoutesRequest) (Routes, error) {
	return post[Routes](ctx, c, "routes", in)
}

// ClearBGP resets a session.
func (c *Client) ClearBGP(ctx context.Context, in ClearBGPRequest) (BGPCleared, error) {
	return post[BGPCleared](ctx, c, "clear/bgp", in)
}
