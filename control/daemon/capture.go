package daemon

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"sluice/control/api"
	"sluice/xdp"
	"sluice/xdp/abi"
)

// captureRate is how many packets a second are captured at most, in all. What the data path may cost is bounded by it, and
// a reader that keeps up with it writes 15 MB a second.
const captureRate = 10000

// captures is the one capture that there may be at a time: its filter is in the kernel.
type captures struct {
	mu   sync.Mutex
	last uint64 // id
	end  context.CancelFunc
	by   string
	at   time.Time
}

// begin takes the place; the context ends with the capture.
func (c *captures) begin(ctx context.Context, by string) (context.Context, uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.end != nil {
		return nil, 0, fmt.Errorf("a capture of %s is under way since %s, and there is one at a time: end it first", c.by, c.at.Format(time.TimeOnly))
	}
	ctx, c.end = context.WithCancel(ctx)
	c.last++
	c.by, c.at = by, time.Now()
	if by == "" {
		c.by = "somebody"
	}
	return ctx, c.last, nil
}

// stop ends the capture of that id, if it is under way. The place is free once it is over.
func (c *captures) stop(id uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.end == nil || c.last != id {
		return false
	}
	c.end()
	return true
}

func (c *captures) over() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.end()
	c.end = nil
}

// maxBy bounds the name of who captures.
const maxBy = 200

// Capture streams packets to who asked.
func (d *Daemon) Capture(ctx context.Context, r api.CaptureRequest, each func(api.CaptureEvent) error) error {
	filter, err := d.captureFilter(r)
	if err == nil && len(r.By) > maxBy {
		err = errors.New("by: too long a name")
	}
	if err != nil {
		return refused(err)
	}
	until, id, err := d.captures.begin(ctx, r.By)
	if err != nil {
		return refused(err)
	}
	defer d.captures.over()
	d.opts.Log.Info("capture begins", "by", r.By)
	names, shown := d.newNames(), 0
	total, err := xdp.Capture(until, d.opts.BPFDir, filter, captureRate,
		func() error { return each(api.CaptureEvent{Type: api.CaptureBegin, ID: id}) },
		func(f xdp.Frame) error {
			shown++
			return each(api.CaptureEvent{Type: api.CaptureFrame, Frame: d.frame(names, f)})
		})
	d.opts.Log.Info("capture ended", "by", r.By, "captured", shown, "suppressed", total.Suppressed, "lost", total.Lost)
	if err != nil || ctx.Err() != nil {
		return err // nobody is there any more to be told
	}
	return each(api.CaptureEvent{Type: api.CaptureEnded, Count: &api.CaptureCount{
		Wanted: total.Wanted, Suppressed: total.Suppressed, Lost: total.Lost,
	}})
}

// EndCapture ends a capture in good order: its stream still gets what was captured, and the count.
func (d *Daemon) EndCapture(_ context.Context, r api.CaptureEnd) error {
	if !d.captures.stop(r.ID) {
		return refused(fmt.Errorf("capture %d is not under way", r.ID))
	}
	return nil
}

func (d *Daemon) frame(names *names, f xdp.Frame) *api.Frame {
	var rule ruleName
	if !byFilter(f.Reason) {
		rule = names.rule(f.Rule)
	}
	out := &api.Frame{
		Time: d.wallClock(f.Time), Hook: hookName(f.Hook), Interface: names.iface(f.Ifindex),
		Fate: f.Reason.Fate().String(), Reason: f.Reason.String(), Rule: rule.name, File: rule.pos.File, Line: rule.pos.Line,
		IP: f.L3, Length: f.Len, Data: f.Data,
	}
	out.Filter = d.filterName(f.Reason, f.Rule)
	if f.Reason == abi.ReasonBanned {
		out.Ban = d.banTarget(f.Reason, sourceOf(f))
	}
	return out
}
