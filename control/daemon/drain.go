package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"sluice/control/api"
	"sluice/control/drain"
	"sluice/control/engine"
	"sluice/control/health"
	"sluice/control/probe"
)

// openAnnouncements makes what decides about announcements beside the file: a drain, and the health that they wait for.
func (d *Daemon) openAnnouncements(ctx context.Context) {
	d.drain = drain.New(drain.Options{
		Path: filepath.Join(d.state, "drain.json"), Log: d.opts.Log, Notify: d.drainNotice, Faults: d.faults,
		Alter: func(ctx context.Context, a engine.Alteration) error { return d.engine.Alter(ctx, a) },
	})
	// One echo request a round, which must be over before the next.
	prober := probe.New(probe.Options{Interval: health.Interval, Timeout: health.Interval * 8 / 10})
	d.health = health.New(health.Options{
		Path: filepath.Join(d.state, "health.json"), BootID: d.clock.BootID(), Log: d.opts.Log, Faults: d.faults,
		Wanted: func() []netip.Addr { return d.liveConfig().Probed() },
		Reach: func(ctx context.Context, a netip.Addr) error {
			_, err := prober.Reach(ctx, a)
			return err
		},
		Changed: func(why string) error { return d.engine.Recompile(ctx, why) },
		Notify:  func(text string) { d.hub.publish(api.Event{Type: api.EventNote, Text: "announcements: " + text}) },
	})
}

func (d *Daemon) loadAnnouncements() {
	if err := errors.Join(d.drain.Load(), d.health.Load()); err != nil {
		d.opts.Log.Error("announcements", "error", err)
	}
}

// Drain announces everything as the last choice, and returns when everything is withdrawn.
func (d *Daemon) Drain(ctx context.Context, r api.DrainRequest) (api.Drain, error) {
	if r.WaitSeconds < 0 || r.WaitSeconds > maxDrainWait.Seconds() {
		return api.Drain{}, refused(fmt.Errorf("a wait of %gs is not allowed: say 0s to %s", r.WaitSeconds, maxDrainWait))
	}
	if d.liveConfig().BGP == nil && !d.drain.State().On() {
		return api.Drain{}, refused(errors.New("nothing is announced here: the live revision has no bgp"))
	}
	state, err := d.drain.Begin(ctx, seconds(r.WaitSeconds), r.By)
	return d.shownDrain(state), refused(err)
}

// maxDrainWait bounds what is surely a mistake.
const maxDrainWait = 24 * time.Hour

// Undrain announces everything again. It returns the drain that there was.
func (d *Daemon) Undrain(ctx context.Context) (api.Drain, error) {
	before, err := d.drain.End(ctx)
	return d.shownDrain(before), refused(err)
}

func (d *Daemon) shownDrain(s drain.State) api.Drain {
	out := shownDrain(s)
	out.Unkept = d.drain.Unkept()
	return out
}

func shownDrain(s drain.State) api.Drain {
	switch {
	case !s.On():
		return api.Drain{State: api.DrainNone}
	case s.Done:
		return api.Drain{State: api.DrainDone, Since: &s.Since, By: s.By}
	}
	until := s.Since.Add(s.Wait)
	return api.Drain{State: api.DrainGraceful, Since: &s.Since, By: s.By, WithdrawnAt: &until}
}

func (d *Daemon) drainNotice(s drain.State) {
	text := map[string]string{
		api.DrainNone: "drain: ended, everything is announced as the file says", api.DrainDone: "drain: everything is withdrawn",
		api.DrainGraceful: "drain: everything is announced as the last choice",
	}[shownDrain(s).State]
	d.opts.Log.Info(text)
	d.hub.publish(api.Event{Type: api.EventNote, Text: text})
}
