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
	"sluice/xdp/table"
)

// dropRate is how many dropped packets a second are sampled at most, in all. It is a human's rate: the counters have
// every drop, and this costs the data path what it costs at any rate of packets.
const dropRate = 2000

// flowRate is the same of events of flows.
const flowRate = 2000

// Monitor streams what happens to who asked.
func (d *Daemon) Monitor(ctx context.Context, r api.MonitorRequest, each func(api.Event) error) error {
	return d.hub.listen(ctx, [streams]bool{dropStream: r.Drops, flowStream: r.Flows}, each)
}

func (d *Daemon) engineNotice(n engine.Notice) {
	if n.Kind == engine.NoticeHealthy { // now, while no step can come in between
		d.healed()
	}
	d.revised(n)
	d.rulesChanged()
	d.filtersRevised()
	d.hub.publish(api.Event{Type: api.EventEngine, Engine: &n})
	d.feeds.Wake() // another revision may watch other files
	d.tunnels.Wake()
	d.health.Wake()
	d.tell()
	d.works()
}

// healed follows the repair of a machine that was degraded, since its start perhaps.
func (d *Daemon) healed() {
	if !d.unadopted.Swap(false) {
		d.rememberTunnels()
	} else if err := d.adopted(context.Background()); err != nil {
		d.opts.Log.Error("routes that an earlier process learned may be left", "error", err)
	}
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

// bfdTrouble hears that BFD sessions are not held, and why; "": they are again.
func (d *Daemon) bfdTrouble(why string) {
	text := why
	if why == "" {
		d.engine.SetCondition(engine.ConditionBFD, "", "", "")
		text = "the BFD process runs again, and its sessions begin anew"
	} else {
		d.engine.SetCondition(engine.ConditionBFD, engine.False, "NotRunning", why)
	}
	d.hub.publish(api.Event{Type: api.EventNote, Text: text})
}

// retryDrops is the pause after sampling failed, as it does where the data path cannot be loaded at all.
const retryDrops = 5 * time.Second

// followDrops samples dropped packets for as long as anybody wants them.
func (d *Daemon) followDrops(ctx context.Context) error {
	return d.followStream(ctx, dropStream, "dropped packets", func(ctx context.Context) error {
		w := &dropWriter{d: d, names: d.newNames(), unseenStream: unseenStream{hub: d.hub, stream: dropStream}}
		return xdp.WatchDrops(ctx, d.opts.BPFDir, dropRate, w.drop, w.unseen)
	})
}

// followFlows hands on what becomes of flows for as long as anybody wants it.
func (d *Daemon) followFlows(ctx context.Context) error {
	return d.followStream(ctx, flowStream, "flows", func(ctx context.Context) error {
		w := &flowWriter{d: d, names: d.newNames(), unseenStream: unseenStream{hub: d.hub, stream: flowStream, text: api.UnseenFlows}}
		return d.tc.WatchFlows(ctx, flowRate, w.event, w.unseen)
	})
}

// followStream has watch make a stream whenever anybody wants it.
func (d *Daemon) followStream(ctx context.Context, s stream, what string, watch func(context.Context) error) error {
	for {
		for !d.hub.wanted(s) {
			select {
			case <-ctx.Done():
				return nil
			case <-d.hub.demand(s):
			}
		}
		err := d.watchStream(ctx, s, watch)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			d.opts.Log.Warn(what+" cannot be watched", "error", err)
			d.hub.publish(api.Event{Type: api.EventNote, Text: what + " cannot be watched: " + err.Error()})
			d.hub.setBegun(s, true)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(retryDrops):
			}
		}
	}
}

// watchStream ends when nobody wants the stream any more.
func (d *Daemon) watchStream(ctx context.Context, s stream, watch func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		for d.hub.wanted(s) {
			select {
			case <-ctx.Done():
				return
			case <-d.hub.demand(s):
			}
		}
		cancel()
	}()
	defer d.hub.setBegun(s, false)
	err := watch(ctx)
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return err
}

// unseenStream tells the hub of what was not told, and of the beginning of a stream.
type unseenStream struct {
	hub    *hub
	stream stream
	text   string // of an EventUnseen

	mu   sync.Mutex
	last *table.Unseen
}

// unseen comes before watching begins, when it does, and then once a second.
func (w *unseenStream) unseen(u table.Unseen) {
	w.mu.Lock()
	defer w.mu.Unlock()
	last := w.last
	w.last = &u
	if last == nil {
		return
	}
	w.hub.setBegun(w.stream, true)
	if n := u.Suppressed - last.Suppressed + u.Lost - last.Lost; n > 0 {
		w.hub.publish(api.Event{Type: api.EventUnseen, Count: n, Text: w.text})
	}
}

// dropWriter turns samples into events.
type dropWriter struct {
	d     *Daemon
	names *names
	unseenStream
}

func (w *dropWriter) drop(s xdp.Sample) {
	e := api.Drop{Packet: w.names.packet(s), Reason: s.Reason.String(), Text: s.Reason.Text(), Ban: w.d.banTarget(s.Reason, s.Src.Addr()),
		Filter: w.d.filterName(s.Reason, s.Rule)}
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
