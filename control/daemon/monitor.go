package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"sluice/bgp"
	"sluice/control/api"
	"sluice/control/ban"
	"sluice/control/engine"
	"sluice/control/host"
	"sluice/xdp"
	"sluice/xdp/abi"
	"sluice/xdp/packet"
)

// dropRate is how many dropped packets a second are sampled at most, in all. It is a human's rate: the counters have
// every drop, and this costs the data path what it costs at any rate of packets.
const dropRate = 2000

// Monitor streams what happens to who asked.
func (d *Daemon) Monitor(ctx context.Context, r api.MonitorRequest, each func(api.Event) error) error {
	return d.hub.listen(ctx, r.Drops, each)
}

func (d *Daemon) engineNotice(n engine.Notice) {
	d.hub.publish(api.Event{Type: api.EventEngine, Engine: &n})
	d.feeds.Wake() // another revision may watch other files
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
	d *Daemon

	mu    sync.Mutex
	names map[int]string    // of interfaces, by index; both are looked up anew every second
	rules map[uint32]string // by stable id
	last  *xdp.Unseen
}

func (d *Daemon) newDropWriter() *dropWriter {
	return &dropWriter{d: d, names: map[int]string{}}
}

// unseen comes before sampling begins, when it does, and then once a second.
func (w *dropWriter) unseen(u xdp.Unseen) {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.names)
	w.rules = nil
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

func (w *dropWriter) drop(p xdp.Drop) {
	e := api.Drop{
		Hook: hookNames[min(p.Hook, abi.HookMax)], Interface: w.interfaceName(p.Ifindex), Reason: p.Reason.String(), Text: p.Reason.Text(),
		Rule: w.ruleName(p.Rule), Source: p.Src.Addr(), Destination: p.Dst.Addr(),
		Fragment: p.Fragment, VLAN: p.VLAN, Length: p.Len,
	}
	if p.Src.IsValid() {
		e.Protocol = packet.ProtocolName(p.Protocol)
	}
	if p.Ports {
		source, destination := p.Src.Port(), p.Dst.Port()
		e.SourcePort, e.DestinationPort = &source, &destination
	}
	switch p.Protocol {
	case packet.TCP:
		if p.Ports {
			e.TCPFlags = packet.FlagText(p.TCPFlags)
		}
	case packet.ICMP, packet.ICMPv6:
		if !p.Fragment {
			e.ICMPType = &p.ICMPType
		}
	}
	if p.Reason == abi.ReasonBanned {
		if b, ok := w.d.bans.Find(p.Src.Addr()); ok {
			e.Ban = ban.Text(b.Target)
		}
	}
	w.d.hub.publish(api.Event{Time: time.Now().Add(p.Time - w.d.clock.Boot()), Type: api.EventDrop, Drop: &e})
}

var hookNames = [abi.HookMax + 1]string{"xdp", "tcx-ingress", "tcx-egress", "unknown"}

func (w *dropWriter) interfaceName(index int) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if name, ok := w.names[index]; ok {
		return name
	}
	name := fmt.Sprintf("interface %d", index)
	if device, err := net.InterfaceByIndex(index); err == nil {
		name = device.Name
	}
	w.names[index] = name
	return name
}

func (w *dropWriter) ruleName(id uint32) string {
	if id == 0 {
		return ""
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.rules == nil {
		w.rules = map[uint32]string{}
		for _, p := range w.d.policies() {
			for _, r := range p.Rules {
				w.rules[r.ID] = p.Name + "/" + r.Name
			}
		}
	}
	return w.rules[id]
}
