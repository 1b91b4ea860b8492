package bgp

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"

	"sluice/bgp/flowspec"
)

// revalidateAfter gathers changes of unicast routes: a table of a million is judged once, not once a route.
const revalidateAfter = time.Second

// FlowSpecRule is one rule that a neighbor announced, or a blackhole.
type FlowSpecRule struct {
	Name      string // the rule as text, or its octets where they could not be read
	Rule      flowspec.Rule
	Actions   []flowspec.Action // none: accept
	Blackhole bool              // a unicast route asked for it
	Neighbor  string            // its name
	Address   netip.Addr        // of the neighbor
	Since     time.Time         // when it was announced as it is
	Stale     time.Time         // when its session went down; zero: it is up
	Refused   string            // why the rule does not count; "" where it does
	Unasked   bool              // of a refusal: it is as the operator wants it
}

// KeptFlowSpec is what one process leaves to the next.
type KeptFlowSpec struct {
	Rules      []flowspec.Kept `json:"rules"`
	Blackholes []flowspec.Kept `json:"blackholes"`
}

// tables have the same form: a blackhole is a rule that names a destination alone and discards.
type tables struct{ rules, blackholes *flowspec.Table }

func newTables(kept KeptFlowSpec) tables {
	t := tables{flowspec.NewTable(), flowspec.NewTable()}
	t.rules.Restore(kept.Rules, time.Now())
	t.blackholes.Restore(kept.Blackholes, time.Now())
	return t
}

// flows receives FlowSpec rules. Callbacks change the table, one goroutine of the running speaker judges it.
type flows struct {
	log     *slog.Logger
	name    func(netip.Addr) string
	wake    chan struct{} // the table changed
	routes  chan struct{} // unicast routes did
	changed chan struct{} // what FlowSpec returns did

	// mu is held while GoBGP is asked what a rule is worth, for minutes where it takes a table away. Who only looks has shown.
	mu      sync.Mutex
	policed bool // somebody said what counts: before that nothing is judged, or what an earlier process left would go
	tables  tables
	sources map[netip.Addr]source
	rest    time.Time // until when nothing is listed, see refill

	shown struct {
		sync.Mutex
		judged
	}
}

// judged is what came of the last judgement.
type judged struct {
	rules   []flowspec.Received // the blackholes of these first
	drops   int                 // so many
	refused uint64
	kept    KeptFlowSpec
}

// show lets everybody see.
func (f *flows) show(j judged) {
	f.shown.Lock()
	f.shown.judged = j
	f.shown.Unlock()
	signal(f.changed)
}

// last is what everybody sees.
func (f *flows) last() judged {
	f.shown.Lock()
	defer f.shown.Unlock()
	return f.shown.judged
}

func newFlows(log *slog.Logger, name func(netip.Addr) string, kept KeptFlowSpec) *flows {
	signal := func() chan struct{} { return make(chan struct{}, 1) }
	f := &flows{log: log, name: name, wake: signal(), routes: signal(), changed: signal(), tables: newTables(kept), sources: map[netip.Addr]source{}}
	f.shown.kept = f.tables.kept() // until there is a judgement
	return f
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// FlowSpec returns the rules of all neighbors in the order of their evaluation, blackholes first, the refused ones with the reason,
// and how many refusals there were so far.
func (s *Subsystem) FlowSpec() (rules []FlowSpecRule, refusals uint64) {
	last := s.flows.last()
	for i, r := range last.rules {
		if i < last.drops {
			c, _ := r.Rule.Component(flowspec.Destination)
			r.Name = "blackhole " + c.Prefix.String()
		}
		rules = append(rules, FlowSpecRule{
			Name: r.Name, Blackhole: i < last.drops, Rule: r.Rule, Actions: r.Actions, Neighbor: s.flows.name(r.Origin.Neighbor), Address: r.Origin.Neighbor,
			Since: r.Since, Stale: r.Stale, Refused: r.Refused, Unasked: r.Unasked,
		})
	}
	return rules, last.refused
}

// KeepFlowSpec returns what Options.FlowSpec takes: what FlowSpec returns, for another process.
func (s *Subsystem) KeepFlowSpec() KeptFlowSpec { return s.flows.last().kept }

// FlowSpecChanges tells that FlowSpec returns something else. It holds one signal and is never closed.
func (s *Subsystem) FlowSpecChanges() <-chan struct{} { return s.flows.changed }

// change does something to the table, unless the session that it is about has been given up.
func (f *flows) change(ctx context.Context, do func(tables)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ctx.Err() == nil {
		do(f.tables)
		signal(f.wake)
	}
}

// watch takes the rules of one neighbor as they come, before any policy, so that a rule outlives its session here and not in
// GoBGP. It costs a copy of each unicast path of that neighbor. Paths, End-of-RIB and the session's state share a queue.
func (f *flows) watch(ctx context.Context, from *server.BgpServer, n Neighbor) error {
	neighbor := n.Address
	f.mu.Lock()
	f.sources[neighbor] = source{ctx, from, n}
	f.tables.lead(n)
	f.mu.Unlock()
	return from.WatchEvent(ctx, server.WatchEventMessageCallbacks{
		OnPathUpdate: func(paths []*apiutil.Path, _ time.Time) {
			for _, p := range paths {
				if a, ok := announcement(p); ok && a.Origin.Neighbor == neighbor {
					f.change(ctx, func(t tables) { f.take(t.rules, a, p.Withdrawal) })
				} else if a, asks, ok := blackhole(p, n.Blackhole); ok && a.Origin.Neighbor == neighbor && (asks || f.blackholed(a)) {
					f.change(ctx, func(t tables) { f.take(t.blackholes, a, p.Withdrawal || !asks) })
				}
			}
		},
		OnPathEor: func(eor *apiutil.Path, _ time.Time) {
			if eor.PeerAddress.Unmap() != neighbor {
				return
			}
			if family, ok := flowSpecFamily(eor.Family); ok {
				f.change(ctx, func(t tables) { t.rules.EndOfRIB(neighbor, family) })
			} else if family, ok := blackholeFamily(eor.Family); ok {
				f.change(ctx, func(t tables) { t.blackholes.EndOfRIB(neighbor, family) })
			}
		},
		OnPeerUpdate: func(e *apiutil.WatchEventMessage_PeerEvent, _ time.Time) {
			if e.Type == apiutil.PEER_EVENT_STATE && e.Peer.State.NeighborAddress == neighbor && e.Peer.State.SessionState != bgp.BGP_FSM_ESTABLISHED {
				f.change(ctx, func(t tables) { t.down(neighbor, time.Now()) })
			}
		},
	}, server.WatchUpdate(false, neighbor.String(), ""), server.WatchEor(false), server.WatchPeer())
}

// blackholed says whether a route asked for a blackhole before: most routes never do, and cost no judgement.
func (f *flows) blackholed(a flowspec.Announcement) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tables.blackholes.Has(a.Origin.Neighbor, a.Family, a.Components)
}

// lead tells what the paths of a neighbor have to begin with.
func (t tables) lead(n Neighbor) {
	as := map[bool]uint32{true: n.ASN}[n.FirstAS]
	t.rules.Lead(n.Address, as)
	t.blackholes.Lead(n.Address, as)
}

func (t tables) down(neighbor netip.Addr, now time.Time) {
	t.rules.Down(neighbor, now)
	t.blackholes.Down(neighbor, now)
}

func (f *flows) take(t *flowspec.Table, a flowspec.Announcement, withdrawn bool) {
	if withdrawn {
		t.Withdraw(a.Origin.Neighbor, a.Family, a.Components)
		return
	}
	if err := t.Announce(a, time.Now()); err != nil {
		f.log.Warn("FlowSpec rule refused", "neighbor", f.name(a.Origin.Neighbor), "reason", err)
	}
}

// run judges until ctx ends.
func (f *flows) run(ctx context.Context, rib flowspec.RIB) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var revalidate <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.routes:
			if revalidate == nil && f.doubtful() {
				revalidate = time.After(revalidateAfter)
			}
			continue
		case <-revalidate:
			revalidate = nil
		case <-f.wake:
		case <-timer.C:
		}
		if next := f.judge(rib, time.Now()); !next.IsZero() {
			timer.Reset(time.Until(next))
		}
	}
}

// judge says when to look again, for rules grow old.
func (f *flows) judge(rib flowspec.RIB, now time.Time) (next time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.policed {
		return next
	}
	next = f.tables.rules.Expire(now)
	if sooner := f.tables.blackholes.Expire(now); next.IsZero() || !sooner.IsZero() && sooner.Before(next) {
		next = sooner
	}
	if sooner := f.refill(now); next.IsZero() || !sooner.IsZero() && sooner.Before(next) {
		next = sooner
	}
	rules, news := f.tables.rules.Judge(rib)
	drops, more := f.tables.blackholes.Judge(rib)
	for _, r := range append(news, more...) {
		f.log.Warn("FlowSpec rule refused", "neighbor", f.name(r.Origin.Neighbor), "rule", r.Name, "reason", r.Refused)
	}
	f.show(judged{append(drops, rules...), len(drops), f.tables.rules.Refusals() + f.tables.blackholes.Refusals(), f.tables.kept()})
	return next
}

func (t tables) kept() KeptFlowSpec {
	return KeptFlowSpec{Rules: t.rules.Keep(), Blackholes: t.blackholes.Keep()}
}

func (f *flows) doubtful() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tables.rules.Doubtful()
}

// end leaves the rules of a session that is given up to their age, but for families that the next session does not carry.
func (f *flows) end(neighbor netip.Addr, next Neighbor) {
	f.change(context.Background(), func(t tables) {
		delete(f.sources, neighbor) // a GoBGP that has ended, and its tables, would stay in memory
		t.down(neighbor, time.Now())
		for _, family := range []flowspec.Family{flowspec.IPv4, flowspec.IPv6} {
			if !next.carries(family) {
				t.rules.EndOfRIB(neighbor, family)
			}
			if next.Blackhole == ([4]uint32{}) {
				t.blackholes.EndOfRIB(neighbor, family)
			}
		}
	})
}

// clear forgets all rules: nobody is there any more to judge them.
func (f *flows) clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tables = newTables(KeptFlowSpec{})
	clear(f.sources)
	f.show(judged{})
}
