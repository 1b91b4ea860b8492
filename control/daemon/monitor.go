package daemon

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"sluice/bgp"
	"sluice/control/api"
	"sluice/control/ban"
	"sluice/control/engine"
	"sluice/control/host"
	"sluice/xdp"
	"sluice/xdp/abi"
)

// dropRate is how many dropped packets a second are sampled at most, in all. It is a human's rate: the counters have
// every drop, and this costs the data path what it costs at any rate of packets.
const dropRate = 2000

// Monitor streams what happens to who asked.
func (d *Daemon) Monitor(ctx context.Context, r api.MonitorRequest, each func(api.Event) error) error {
	return d.hub.listen(ctx, r.Drops, each)
}

func (d *Daemon) engineNotice(n engine.Notice) {
	d.rulesChanged()
	d.hub.publish(api.Event{Type: api.EventEngine, Engine: &n})
	d.feeds.Wake() // another revision may watch other files
	d.works()
}

// rulesChanged tells who waits for rules that log.
func (d *Daemon) rulesChanged() {
	select {
	case d.policyChanged <- struct{}{}:
	default:
	}
}

func (d *Daemon) banNotice(kind ban.Kind, b ban.Ban) {
	shown := shownBan(ban.Shown{Ban: b})
	d.hub.publish(api.Event{Type: api.EventBan, Text: string(kind), Ban: &shown})
}

func (d *Daemon) linkNotice(e host.Event) {
	if e.Resync {
		d.hub.publish(api.Event{Type: api.EventNote, Text: "link events were lost: all links are looked at again"})
		return
	}
	d.hub.publish(api.Event{Type: api.EventLink, Link: &api.Link{
		Name: e.Link, Exists: e.Exists, Up: e.Up, Carrier: e.Carrier, Addresses: e.Addresses,
	}})
}

// followBGP hands the ups and downs of sessions on.
func (d *Daemon) followBGP(ctx context.Context, events <-chan bgp.Event) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-events:
			d.hub.publish(api.Event{Time: e.Time, Type: api.EventBGP, BGP: &e})
		}
	}
}

// retryDrops is the pause after sampling failed, as it does where the data path cannot be loaded at all.
const retryDrops = 5 * time.Second

// followDrops samples dropped packets for as long as anybody wants them.
func (d *Daemon) followDrops(ctx context.Context) error {
	for {
		for !d.hub.wanted() {
			select {
			case <-ctx.Done():
				return nil
			case <-d.hub.demand:
			}
		}
		err := d.sampleDrops(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			d.opts.Log.Warn("dropped packets cannot be sampled", "error", err)
			d.hub.publish(api.Event{Type: api.EventNote, Text: "dropped packets cannot be sampled: " + err.Error()})
			d.hub.setSampling(true)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(retryDrops):
			}
		}
	}
}

// sampleDrops ends when nobody wants drops any more.
func (d *Daemon) sampleDrops(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		for d.hub.wanted() {
			select {
			case <-ctx.Done():
				return
			case <-d.hub.demand:
			}
		}
		cancel()
	}()
	w := d.newDropWriter()
	defer d.hub.setSampling(false)
	err := xdp.WatchDrops(ctx, d.opts.BPFDir, dropRate, w.drop, w.unseen)
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return err
}

// dropWriter turns samples into events.
type dropWriter struct {
	d     *Daemon
	names *names

	mu   sync.Mutex
	last *xdp.Unseen
}

func (d *Daemon) newDropWriter() *dropWriter {
	return &dropWriter{d: d, names: d.newNames()}
}

// unseen comes before sampling begins, when it does, and then once a second.
func (w *dropWriter) unseen(u xdp.Unseen) {
	w.mu.Lock()
	defer w.mu.Unlock()
	last := w.last
	w.last = &u
	if last == nil {
		return
	}
	w.d.hub.setSampling(true)
	if n := u.Suppressed - last.Suppressed + u.Lost - last.Lost; n > 0 {
		w.d.hub.publish(api.Event{Type: api.EventUnseen, Count: n})
	}
}

func (w *dropWriter) drop(s xdp.Sample) {
	e := api.Drop{Packet: w.names.packet(s), Reason: s.Reason.String(), Text: s.Reason.Text(), Ban: w.d.banTarget(s.Reason, s.Src.Addr())}
	w.d.hub.publish(api.Event{Time: w.d.wallClock(s.Time), Type: api.EventDrop, Drop: &e})
}

// wallClock is the time of a moment of CLOCK_BOOTTIME.
func (d *Daemon) wallClock(boot time.Duration) time.Time {
	return time.Now().Add(boot - d.clock.Boot())
}

// banTarget names the ban that dropped a packet.
func (d *Daemon) banTarget(reason abi.Reason, source netip.Addr) string {
	if reason == abi.ReasonBanned {
		if b, ok := d.bans.Find(source); ok {
			return ban.Text(b.Target)
		}
	}
	return ""
}
