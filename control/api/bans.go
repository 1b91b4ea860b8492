package api

import (
	"context"
	"time"
)

// BanRequest bans sources. A target is an address or a prefix; all are judged before the first is banned.
type BanRequest struct {
	Targets    []string `json:"targets"`
	ForSeconds float64  `json:"for_seconds,omitempty"` // 0: until it is lifted
	Why        string   `json:"why,omitempty"`
	By         string   `json:"by,omitempty"`
	Force      bool     `json:"force,omitempty"` // also what covers a neighbor, a next hop, a tunnel's peer, or very much
}

// UnbanRequest lifts bans: of targets as they were banned, or all of them.
type UnbanRequest struct {
	Targets []string `json:"targets,omitempty"`
	All     bool     `json:"all,omitempty"`
}

// Ban is one banned source, a line of `show bans`.
type Ban struct {
	Target           string     `json:"target"` // an address, or a prefix
	Since            time.Time  `json:"since"`
	Until            *time.Time `json:"until,omitempty"` // none: until it is lifted
	RemainingSeconds float64    `json:"remaining_seconds,omitempty"`
	Why              string     `json:"why,omitempty"`
	By               string     `json:"by,omitempty"`
	Packets          uint64     `json:"packets"` // that it dropped, at all hooks
	LastHit          *time.Time `json:"last_hit,omitempty"`
	Before           *FormerBan `json:"before,omitempty"` // that a new ban took the place of: in the answer to Ban and in its event
}

// FormerBan is a ban that a new one of the same target took the place of.
type FormerBan struct {
	Until *time.Time `json:"until,omitempty"` // none: until it is lifted
	Why   string     `json:"why,omitempty"`
	By    string     `json:"by,omitempty"`
}

// BansRequest asks for bans, or only for their number.
type BansRequest struct {
	About string `json:"about,omitempty"` // an address or a prefix: those that cover it, and those within it
	By    string `json:"by,omitempty"`
	Why   string `json:"why,omitempty"`   // a part of it
	Limit int    `json:"limit,omitempty"` // the first so many; 0: DefaultBans
	Count bool   `json:"count,omitempty"` // no bans, only their number
}

// DefaultBans are shown where nobody says how many.
const DefaultBans = 1000

// Bans are those that a request chose.
type Bans struct {
	Total int   `json:"total"` // beyond the limit, too
	Bans  []Ban `json:"bans"`  // sorted by target
}

// Bans reads bans.
func (c *Client) Bans(ctx context.Context, in BansRequest) (Bans, error) {
	return post[Bans](ctx, c, "bans", in)
}

// Ban bans sources. When it returns their next packet is dropped.
func (c *Client) Ban(ctx context.Context, in BanRequest) ([]Ban, error) {
	return post[[]Ban](ctx, c, "ban", in)
}

// Unban lifts bans, and returns those that it lifted.
func (c *Client) Unban(ctx context.Context, in UnbanRequest) ([]Ban, error) {
	return post[[]Ban](ctx, c, "unban", in)
}
