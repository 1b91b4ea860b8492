package daemon

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sluice/control/compile"
	"sluice/control/host"
	"sluice/crypto/ipsec"
	"sluice/crypto/path"
	"sluice/crypto/wireguard"
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
		if err := d.engine.Reconcile(ctx); err != nil && ctx.Err() == nil {
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
	wake chan struct{} // has one while there are any

	mu   sync.Mutex
	list map[host.Gone]bool
	more bool // than list has
}

func newGone() *gone { return &gone{wake: make(chan struct{}, 1), list: map[host.Gone]bool{}} }

func (g *gone) note(one host.Gone) {
	g.mu.Lock()
	if g.more = g.more || len(g.list) >= maxGone; !g.more {
		g.list[one] = true
	}
	g.mu.Unlock()
	wake(g.wake)
}

// any stands for deletions that nobody can tell.
func (g *gone) any() {
	g.mu.Lock()
	g.more = true
	g.mu.Unlock()
	wake(g.wake)
}

func wake(one chan<- struct{}) {
	select {
	case one <- struct{}{}:
	default:
	}
}

// among says whether anything of wanted was deleted since it was last asked.
func (g *gone) among(wanted func() map[host.Gone]bool) bool {
	g.mu.Lock()
	list, more := g.list, g.more
	g.list, g.more = map[host.Gone]bool{}, false
	g.mu.Unlock()
	if len(list) == 0 || more {
		return more
	}
	is := wanted()
	for one := range list {
		if is[one] {
			return true
		}
	}
	return false
}

// deleted sorts deletions: those of links and addresses are looked at with their events.
func (d *Daemon) deleted(one host.Gone) {
	if one.Link != "" {
		d.goneFacts.note(one)
	} else {
		d.gone.note(one)
	}
}

// replaced notes where a route of ours may have been: of a million that a routing daemon replaces each costs a look-up. Only the reader of
// those messages calls it.
func (d *Daemon) replaced(one host.Gone) {
	if want := d.liveDesired(); want != d.replaceable.of {
		d.replaceable.of, d.replaceable.list = want, deletable(want, want.WireGuard, want.IPsec)
	}
	if d.replaceable.list[one] {
		d.gone.note(one)
	}
}

// followGone repairs at once the routes and rules that somebody else deleted of ours.
func (d *Daemon) followGone(ctx context.Context) error {
	return d.mend(ctx, d.gone.wake, func(want *compile.Desired) bool {
		return d.gone.among(func() map[host.Gone]bool { return d.deletable(want) })
	})
}

// mend repairs at once where lacks says so after a wake. What we delete ourselves is not wanted any more, or stands again, by the time that
// the engine is free.
func (d *Daemon) mend(ctx context.Context, wake <-chan struct{}, lacks func(*compile.Desired) bool) error {
	pause, last := goneSettle, time.Time{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		}
		if time.Since(last) > goneRest {
			pause = goneSettle
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		lacked, err := d.engine.Mend(ctx, false, lacks)
		if err != nil && ctx.Err() == nil {
			d.opts.Log.Error("repair", "error", err)
		}
		if lacked {
			pause, last = min(2*pause, goneRest), time.Now()
		}
	}
}

// compileAgain follows what changed. What somebody deleted of ours is told as a repair, routes and rules included: they come back with the
// rest.
func (d *Daemon) compileAgain(ctx context.Context, why string) error {
	lacked, err := d.engine.Mend(ctx, true, func(want *compile.Desired) bool {
		wanted := func() map[host.Gone]bool { return d.deletable(want) }
		facts, others := d.goneFacts.among(wanted), d.gone.among(wanted)
		return facts || others
	})
	if lacked || err != nil {
		return err
	}
	return d.engine.Recompile(ctx, why)
}

// deletable is everything that is wanted now, as its deletion would tell of it.
func (d *Daemon) deletable(want *compile.Desired) map[host.Gone]bool {
	return deletable(want, d.wireguard.Wanted(want.WireGuard), d.ipsec.Wanted(want.IPsec))
}

func deletable(want *compile.Desired, wg wireguard.State, esp ipsec.State) map[host.Gone]bool {
	out := map[host.Gone]bool{}
	route := func(p netip.Prefix, metric, table int) {
		if metric == 0 && p.Addr().Is6() {
			metric = defaultMetric6
		}
		if table == 0 {
			table = unix.RT_TABLE_MAIN
		}
		out[host.Gone{Route: p.Masked(), Metric: metric, Table: table}] = true
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

// defaultMetric6 is what the kernel makes of an IPv6 route without a metric (IP6_RT_PRIO_USER).
const defaultMetric6 = 1024
