package ike

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// hung remembers that charon took a command and did not answer it in time: a plan of many steps would wait for each.
type hung struct {
	mu    sync.Mutex
	until time.Time
	err   error
}

// hungFor is how long a charon that hangs is not asked again.
const hungFor = 5 * time.Second

func (h *hung) recent(now time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now.Before(h.until) {
		return h.err
	}
	return nil
}

func (h *hung) since(now time.Time, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.until, h.err = now.Add(hungFor), err
}

// closing bounds Closed, and closingLook is between two looks of it.
const closing, closingLook = 3 * time.Second, 50 * time.Millisecond

// Closed waits until charon has nothing established of a peer that was unloaded, but not for long: what it closes later
// takes policies of the same prefixes along.
func (c *Client) Closed(ctx context.Context, tunnel, peer string) error {
	ctx, cancel := context.WithTimeout(ctx, closing)
	defer cancel()
	for had := false; ; had = true {
		var sas []IKESA
		err := c.with(ctx, func(ctx context.Context, s *session) (err error) {
			sas, err = s.associations(ctx, connName(tunnel, peer))
			return err
		})
		if had && ctx.Err() != nil { // also where the time was over in the midst of a question
			return fmt.Errorf("charon at %s still has SAs of tunnel %s, peer %s: %w", c.socket, tunnel, peer, ctx.Err())
		}
		if errors.Is(err, ErrNoCharon) || err == nil && len(sas) == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(closingLook):
		}
	}
}
