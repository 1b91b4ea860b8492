package daemon

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sluice/control/compile"
	"sluice/control/engine"
	"sluice/control/host"
	"sluice/crypto/ipsec"
	"sluice/crypto/path"
	"sluice/crypto/wireguard"
	"sluice/netdump"
)

// inspection is how often the machine is compared with what it should hold. Link events and deletions are acted on at once; this is
// for what nobody tells, such as a sysctl that was written.
const inspection = 5 * time.Minute

// inspect repairs drift.
func (d *Daemon) inspect(ctx context.Context) error {
	tick := time.NewTicker(inspection)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := d.engine.Reconcile(ctx, engine.Drift); err != nil && ctx.Err() == nil {
			d.opts.Log.Error("repair", "error", err)
		}
	}
}

const (
	// goneSettle is how long deletions are gathered.
	goneSettle = settle / 2
	// goneRest is the longest pause behind a repair: somebody who deletes again and again costs that many inspections.
	goneRest = 30 * time.Second
	// maxGone is how many deletions are told apart.
	maxGone = 1000
)

// gone are deletions that nobody has looked at yet.
type gone struct {
	wake chan struct{} // somebody is to look now

	mu   sync.Mutex
	list map[host.Gone]int // the number of the last one
	last int
	more int          // the number of the last one that list had no room for; 0: none
	own  map[int]bool // links that are deleted by us, until the kernel has said that they are, by index
}

func newGone() *gone {
	return &gone{wake: make(chan struct{}, 1), list: map[host.Gone]int{}, own: map[int]bool{}}
}

// ours is for who deletes a link himself, beforehand: it may be wanted, and stand again under its name by the next look. No other link
// gets its index.
func (g *gone) ours(link int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.own[link] = true
}

// note takes what is told of a link that goes in the kernel's order: it is down, its addresses go, it is gone.
func (g *gone) note(one host.Gone) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.own[one.Index] {
		if !one.Down && !one.Address.IsValid() {
			delete(g.own, one.Index)
		}
		return
	}
	one.Index = 0 // what is wanted has none
	g.last++
	if _, known := g.list[one]; !known && len(g.list) >= maxGone {
		g.more = g.last
		return
	}
	g.list[one] = g.last
}

// unknown stands for deletions that nobody can tell.
func (g *gone) unknown() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.last++
	g.more = g.last
	wake(g.wake)
}

// look begins a look at the machine, see engine.Options.Look.
func (g *gone) look() (lacks func(wanted func() map[host.Gone]bool) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	before := g.last
	return func(wanted func() map[host.Gone]bool) bool { return g.among(wanted, before) }
}

// among says whether anything of wanted is gone, and forgets up to this number.
func (g *gone) among(wanted func() map[host.Gone]bool, forget int) (lacks bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if lacks = g.more > 0; g.more <= forget {
		g.more = 0
	}
	if len(g.list) == 0 {
		return lacks
	}
	g.mu.Unlock() // note must not wait for it
	is := wanted()
	g.mu.Lock()
	for one, number := range g.list {
		lacks = lacks || is[one]
		if number <= forget {
			delete(g.list, one)
		}
	}
	return lacks
}

func wake(one chan<- struct{}) {
	select {
	case one <- struct{}{}:
	default:
	}
}

// deleted notes a deletion. Those of links and addresses are looked at with their events.
func (d *Daemon) deleted(one host.Gone) {
	d.gone.note(one)
	if one.Link == "" {
		wake(d.gone.wake)
	}
}

// replaced notes where a route of ours may have been: of a million that a routing daemon replaces each costs a look-up. Only the reader of
// those messages calls it.
func (d *Daemon) replaced(one host.Gone) {
	if want := d.liveDesired(); want != d.replaceable.of {
		d.replaceable.of, d.replaceable.list = want, deletable(want, want.WireGuard, want.IPsec)
	}
	if d.replaceable.list[one] {
		d.deleted(one)
	}
}

// look is the engine's Options.Look. What we delete ourselves is not wanted any more, or stands again, when nothing is applied.
func (d *Daemon) look() (lacks func(*compile.Desired) bool) {
	if err := d.repin(); err != nil {
		d.opts.Log.Error("what is banned or filtered from now on may not hold behind the next apply", "error", err)
	}
	among := d.gone.look()
	return func(want *compile.Desired) bool {
		gone := among(func() map[host.Gone]bool { return d.deletable(want) })
		return d.lacksPins(want) || gone
	}
}

// followGone repairs at once what somebody else deleted of ours, but for links and addresses.
func (d *Daemon) followGone(ctx context.Context) error {
	pause, last := goneSettle, time.Time{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.gone.wake:
		}
		if time.Since(last) > goneRest {
			pause = goneSettle
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		lacked, err := d.engine.Mend(ctx)
		if err != nil && ctx.Err() == nil {
			d.opts.Log.Error("repair", "error", err)
		}
		if lacked {
			pause, last = min(2*pause, goneRest), time.Now()
		}
	}
}

// deletable is everything that is wanted now, as its deletion would tell of it.
func (d *Daemon) deletable(want *compile.Desired) map[host.Gone]bool {
	return deletable(want, d.wireguard.Wanted(want.WireGuard), d.ipsec.Wanted(want.IPsec))
}

func deletable(want *compile.Desired, wg wireguard.State, esp ipsec.State) map[host.Gone]bool {
	out := map[host.Gone]bool{}
	route := func(p netip.Prefix, metric, table int) {
		if table == 0 {
			table = unix.RT_TABLE_MAIN
		}
		out[host.Gone{Route: p.Masked(), Metric: netdump.Metric(p, metric), Table: table}] = true
	}
	device := func(name string, addresses []netip.Prefix, routes []path.Route) {
		out[host.Gone{Link: name}], out[host.Gone{Link: name, Down: true}] = true, true
		for _, a := range addresses {
			out[host.Gone{Link: name, Address: a}] = true
		}
		for _, r := range routes {
			route(r.Prefix, r.Metric, r.Table)
		}
	}
	for _, b := range want.Path.Blackholes {
		route(b.Prefix, path.BlackholeMetric, b.Table)
	}
	for _, t := range wg.Tunnels {
		device(t.Name, t.Addresses, t.Routes)
	}
	for _, t := range esp.Tunnels {
		device(t.Name, t.Addresses, t.Routes)
	}
	for _, v := range want.Host.Devices {
		device(v.Name, nil, nil)
	}
	for _, l := range want.Host.Links {
		if l.Up {
			out[host.Gone{Link: l.Name, Down: true}] = true
		}
	}
	for _, a := range want.Host.Addresses {
		out[host.Gone{Link: a.Link, Address: a.Prefix}] = true
	}
	for _, r := range want.Host.Routes {
		route(r.Prefix, r.Metric, r.Table)
	}
	for _, r := range want.Host.Rules {
		out[host.Gone{Rule: r.Priority, IPv6: r.IPv6}] = true
	}
	return out
}
