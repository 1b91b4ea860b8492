package api

import (
	"context"
	"time"
)

// DrainRequest takes the box out of traffic.
type DrainRequest struct {
	WaitSeconds float64 `json:"wait_seconds"` // between the last choice and the withdrawal
	By          string  `json:"by,omitempty"`
}

// The states of a Drain.
const (
	DrainNone     = "none"
	DrainGraceful = "draining" // everything is announced with GRACEFUL_SHUTDOWN
	DrainDone     = "drained"  // everything is withdrawn
)

// Drain says how far a drain is.
type Drain struct {
	State       string     `json:"state"`
	Since       *time.Time `json:"since,omitempty"`
	By          string     `json:"by,omitempty"`
	WithdrawnAt *time.Time `json:"withdrawn_at,omitempty"` // while draining
	Unkept      bool       `json:"unkept,omitempty"`       // the disk takes nothing: a restart would not know
}

// Drain returns when everything is withdrawn. It goes on where ctx ends before.
func (c *Client) Drain(ctx context.Context, in DrainRequest) (Drain, error) {
	return post[Drain](ctx, c, "drain", in)
}

// Undrain announces everything again, and returns the drain that there was.
func (c *Client) Undrain(ctx context.Context) (Drain, error) {
	return post[Drain](ctx, c, "undrain", struct{}{})
}
