package api

import (
	"context"

	"sluice/control/engine"
)

// CheckRequest asks the live revision's apply.checks again, outside of an apply.
type CheckRequest struct {
	Established []string `json:"established"` // BGP neighbors that were up before; those that the revision lacks are not missed
}

// Checked is what does not hold now.
type Checked struct {
	Failing []engine.Failure `json:"failing"`
}

// Check asks apply.checks of the live revision, and for neighbors.
func (c *Client) Check(ctx context.Context, in CheckRequest) (Checked, error) {
	return post[Checked](ctx, c, "check", in)
}
