package ike

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/strongswan/govici/vici"
)

// Run supervises until ctx ends, and returns its error: what was loaded or remembered is loaded again where charon lacks
// it (it was restarted, or `swanctl --load-all` took out what is in none of its files), connections of which nothing is
// established are initiated, and what was replaced is closed. Everything stays when Run ends.
func (c *Client) Run(ctx context.Context) error {
	var gone string // as it was told last
	told := false
	t := newTender(c.times)
	for {
		if c.idle() {
			if told { // of a charon that is away, and need not come back
				told = false
				c.tell(Event{Kind: CharonIdle})
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-c.wake:
			}
			continue
		}
		err := c.attend(ctx, t, func() {
			told, gone = false, ""
			c.log.Info("charon answers")
			c.tell(Event{Kind: CharonBack})
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, errIdle) {
			told = false
			c.tell(Event{Kind: CharonIdle})
			continue
		}
		if !told || gone != err.Error() {
			c.log.Warn("tunnels are without charon", "error", err)
			c.tell(Event{Kind: CharonGone, Err: err})
		}
		told, gone = true, err.Error()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(c.times.reload):
		}
	}
}

// errIdle says that nothing is wanted any more: then charon may come and go.
var errIdle = errors.New("nothing is loaded")

func (c *Client) idle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.wanted) == 0
}

// attend serves one charon until it goes. back is called once it has all that it should have.
func (c *Client) attend(ctx context.Context, t *tender, back func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	listening, err := open(ctx, c.socket)
	if err != nil {
		return err
	}
	defer listening.close()
	stop, err := c.listen(ctx)
	if err != nil {
		return err
	}
	defer stop()
	changes := make(chan vici.Event, 64)
	listening.NotifyEvents(changes) // before the first event can come: the library closes it when charon goes
	if err := listening.subscribe(ctx, "ike-updown", "child-updown"); err != nil {
		return err
	}
	for first := true; !c.idle(); first = false {
		begun := time.Now()
		next, err := c.tend(ctx, t)
		if err != nil {
			return err
		}
		if first {
			back()
		}
		breath := min(max(5*time.Since(begun), shortBreath), longBreath)
		if err := pause(ctx, next, breath, changes, c.wake); err != nil {
			return listening.broken(ctx, err)
		}
	}
	return errIdle
}

// A breath is how long changes are gathered at least: they come in bursts, and one look answers all of them. After a look
// that took long it is longer, so that the supervision of many peers takes a sixth of a CPU; but a machine that is slow for
// another reason is not waited for.
const shortBreath, longBreath = 100 * time.Millisecond, 2 * time.Second

var errClosed = fmt.Errorf("charon has closed the connection: %w", errLost)

// pause waits until there is a reason to look again. An error: charon has gone, or ctx has ended.
func pause(ctx context.Context, next, breath time.Duration, changes <-chan vici.Event, wake <-chan struct{}) error {
	timer := time.NewTimer(max(next, breath))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	case <-wake:
	case _, open := <-changes:
		if !open {
			return errClosed
		}
	}
	quiet := time.NewTimer(breath)
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-quiet.C:
			return nil
		case _, open := <-changes:
			if !open {
				return errClosed
			}
		}
	}
}

// tend looks once at everything, does what is to be done, and says when to come again.
func (c *Client) tend(ctx context.Context, t *tender) (next time.Duration, err error) {
	var conns []Loaded
	var sas []IKESA
	missing := 0
	err = c.with(ctx, func(ctx context.Context, s *session) error {
		held, err := s.holdings(ctx)
		if err != nil {
			return err
		}
		conns, missing, err = c.restore(ctx, s, held)
		if err == nil {
			sas, err = s.associations(ctx, "")
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	do, changes, next := t.step(time.Now(), conns, sas)
	for _, e := range changes {
		if e.Kind == PeerUp {
			c.reasons.forget(connName(e.Tunnel, e.Peer))
		}
		c.log.Info("tunnel", "event", e.Kind, "tunnel", e.Tunnel, "peer", e.Peer)
		c.tell(e)
	}
	if missing > 0 {
		next = min(next, c.times.attempt)
	}
	return next, c.perform(ctx, do)
}

// perform does the steps in order. One that charon refuses is told, and comes again with the next look.
func (c *Client) perform(ctx context.Context, do []action) error {
	if len(do) == 0 {
		return nil
	}
	return c.with(ctx, func(ctx context.Context, s *session) error {
		for _, a := range do {
			c.log.Debug("supervision", "does", a)
			err := s.perform(ctx, a)
			if errors.Is(err, ErrRefused) {
				c.log.Warn("charon refused", "step", a, "error", err)
			} else if err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *session) perform(ctx context.Context, a action) error {
	switch a.kind {
	case closeIKE:
		return s.terminateIKE(ctx, a.id)
	case closeChild:
		return s.terminateChild(ctx, a.id)
	}
	return s.initiate(ctx, a.tunnel, a.peer, a.digest)
}

func (c *Client) tell(e Event) {
	e.Socket = c.socket
	select {
	case c.events <- e:
	default:
		c.log.Debug("nobody takes events", "event", e.Kind)
	}
}
