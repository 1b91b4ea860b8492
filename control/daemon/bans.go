package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"sluice/control/api"
	"sluice/control/ban"
	"sluice/control/config"
	"sluice/xdp"
)

// banTable is the kernel's table as the list of bans wants it.
type banTable struct{ *xdp.Bans }

func (t banTable) Hits(p netip.Prefix) (uint64, time.Duration, error) {
	h, err := t.Bans.Hits(p)
	return h.Packets, h.Last, err
}

func (d *Daemon) openBans() (ban.Table, error) {
	b, err := xdp.OpenBans(d.opts.BPFDir)
	if err != nil {
		return nil, err
	}
	return banTable{b}, nil
}

// maxWhy bounds what a ban says of itself: it is kept with each of many.
const maxWhy = 200

// Ban bans sources. They are judged together, so that a bad one bans nobody.
func (d *Daemon) Ban(ctx context.Context, r api.BanRequest) ([]api.Ban, error) {
	targets, err := parseTargets(r.Targets)
	if err != nil {
		return nil, refused(err)
	}
	if len(r.Why) > maxWhy || strings.ContainsFunc(r.Why, unicode.IsControl) {
		return nil, refused(fmt.Errorf("why: at most %d bytes, in one line", maxWhy))
	}
	if r.ForSeconds < 0 || r.ForSeconds > ban.MaxFor.Seconds() {
		return nil, refused(fmt.Errorf("a ban lasts at most %d days; without an end it holds until it is lifted", ban.MaxFor/(24*time.Hour)))
	}
	guarded, err := d.guarded(ctx, targets)
	if err != nil {
		return nil, err
	}
	if err := judgeTargets(targets, guarded, r.Force); err != nil {
		return nil, refused(err)
	}
	bans, err := d.bans.Add(targets, seconds(r.ForSeconds), r.Why, r.By)
	return shownBans(bans), refused(err)
}

// Unban lifts bans.
func (d *Daemon) Unban(_ context.Context, r api.UnbanRequest) ([]api.Ban, error) {
	if r.All != (len(r.Targets) == 0) {
		return nil, refused(errors.New("say which bans to lift, or all of them"))
	}
	var targets []netip.Prefix
	var err error
	if r.All {
		all, err := d.bans.All()
		if err != nil {
			return nil, err
		}
		for _, b := range all {
			targets = append(targets, b.Target)
		}
	} else if targets, err = parseTargets(r.Targets); err != nil {
		return nil, refused(err)
	}
	bans, err := d.bans.Remove(targets)
	return shownBans(bans), refused(err)
}

func parseTargets(texts []string) ([]netip.Prefix, error) {
	if len(texts) == 0 {
		return nil, errors.New("no target: give addresses or prefixes")
	}
	var (
		out  []netip.Prefix
		errs []error
	)
	for _, text := range texts {
		p, err := ban.ParseTarget(text)
		if err != nil {
			errs = append(errs, err)
		}
		out = append(out, p)
	}
	return out, errors.Join(errs...)
}

// guard is an address that a ban should not cover by mistake.
type guard struct {
	addr netip.Addr
	what string
	own  bool // of the box: no packet of a peer has it as its source
}

// guarded are addresses that targets may cover and should not: the box's own, and those that it depends on.
func (d *Daemon) guarded(ctx context.Context, targets []netip.Prefix) ([]guard, error) {
	var out []guard
	// Asking every link takes the kernel's big network lock, which a ban in a hurry should not wait for: only where it is
	// likely to name one.
	if self := d.liveDesired().TC.Generation.Self; len(self) == 0 || coversOne(targets, self) {
		links, err := d.host.Status(ctx)
		if err != nil {
			return nil, err
		}
		for _, l := range links {
			for _, a := range l.Addresses {
				out = append(out, guard{a.Addr(), "an address of " + l.Name, true})
			}
		}
	}
	out = append(out, dependedOn(d.liveConfig())...)
	return append(out, d.nextHops.get(d.learnedNextHops)...), nil
}

// dependedOn are the addresses of a file that the box cannot do without.
func dependedOn(cfg *config.Config) (out []guard) {
	if cfg.BGP != nil {
		for _, n := range cfg.BGP.Neighbors {
			out = append(out, guard{addr: n.Address, what: "BGP neighbor " + n.Name})
		}
	}
	for _, r := range cfg.Routes {
		for _, via := range r.Via {
			out = append(out, guard{addr: via, what: "the next hop of " + r.Prefix.String()})
		}
	}
	for _, t := range cfg.Tunnels {
		for _, p := range t.Peers {
			for _, e := range p.Endpoints {
				if e.Addr.IsValid() {
					out = append(out, guard{addr: e.Addr, what: "peer " + p.Name + " of tunnel " + t.Name})
				}
			}
		}
	}
	return out
}

// coversOne says whether a target may cover an address of the box. Link-local ones are not all known without asking.
func coversOne(targets []netip.Prefix, self []netip.Addr) bool {
	return slices.ContainsFunc(targets, func(t netip.Prefix) bool {
		return t.Overlaps(linkLocal4) || t.Overlaps(linkLocal6) || slices.ContainsFunc(self, t.Contains)
	})
}

var linkLocal4, linkLocal6 = netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("fe80::/10")

// learnedNextHops are those of the routes in the kernel, each with one of its routes.
func (d *Daemon) learnedNextHops() []guard {
	var out []guard
	for via, prefix := range d.bgp.NextHops() {
		out = append(out, guard{addr: via, what: "the next hop of " + prefix.String()})
	}
	slices.SortFunc(out, func(a, b guard) int { return a.addr.Compare(b.addr) })
	return out
}

// hopsAge is how old the next hops may be that bans are judged by: with a full table, each listing takes its time.
const hopsAge = 5 * time.Second

// hopCache keeps the learned next hops for a while.
type hopCache struct {
	mu   sync.Mutex
	at   time.Time
	hops []guard
}

func (c *hopCache) get(list func() []guard) []guard {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at.IsZero() || time.Since(c.at) > hopsAge {
		c.hops, c.at = list(), time.Now()
	}
	return c.hops
}

// judgeTargets refuses what is surely or likely a mistake.
func judgeTargets(targets []netip.Prefix, guarded []guard, force bool) error {
	for _, t := range targets {
		if ban.IsWide(t) && !force {
			return fmt.Errorf("%s is very wide: say --force if it is meant", t)
		}
		for _, g := range guarded {
			if !t.Contains(g.addr.Unmap().WithZone("")) {
				continue
			}
			if g.own && t.IsSingleIP() {
				return fmt.Errorf("%s is %s: the box does not ban itself", ban.Text(t), g.what)
			}
			if !force {
				return fmt.Errorf("%s covers %s, %s: say --force if it is meant", ban.Text(t), g.addr, g.what)
			}
		}
	}
	return nil
}

// Bans reads bans.
func (d *Daemon) Bans(_ context.Context, r api.BansRequest) (api.Bans, error) {
	about, err := captureHost(r.About)
	if err = errors.Join(err, atLeast(r.Limit, "bans", api.DefaultBans)); err != nil {
		return api.Bans{}, refused(err)
	}
	q := ban.Query{About: about, By: r.By, Why: r.Why, Limit: cmp.Or(r.Limit, api.DefaultBans)}
	if r.Count {
		q.Limit = 1
	}
	some, total, err := d.bans.Some(q)
	out := api.Bans{Total: total, Bans: make([]api.Ban, 0, len(some))}
	for _, s := range some {
		if !r.Count {
			out.Bans = append(out.Bans, shownBan(s))
		}
	}
	return out, err
}

func shownBan(s ban.Shown) api.Ban {
	b := api.Ban{
		Target: ban.Text(s.Target), Since: s.Since, RemainingSeconds: s.Remaining.Seconds(), Why: s.Why, By: s.By, Packets: s.Packets,
	}
	if !s.Until.IsZero() {
		b.Until = &s.Until
	}
	if !s.LastHit.IsZero() {
		b.LastHit = &s.LastHit
	}
	if f := s.Before; f != nil {
		b.Before = &api.FormerBan{Why: f.Why, By: f.By}
		if !f.Until.IsZero() {
			b.Before.Until = &f.Until
		}
	}
	return b
}

func shownBans(bans []ban.Ban) []api.Ban {
	out := []api.Ban{}
	for _, b := range bans {
		out = append(out, shownBan(ban.Shown{Ban: b}))
	}
	return out
}

// banOf is the ban that dropped a packet of this source.
func (d *Daemon) banOf(source netip.Addr) *api.Ban {
	b, ok := d.bans.Find(source)
	if !ok {
		return nil
	}
	shown := shownBan(ban.Shown{Ban: b})
	return &shown
}
