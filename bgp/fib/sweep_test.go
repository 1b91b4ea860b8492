package fib_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"sluice/bgp/fib"
	"sluice/tests/nstest"
)

// swept hears of each stale route just before the writer takes it away, in the writer's goroutine: nothing else happens meanwhile.
type swept struct {
	slog.Handler
	before func(n int)
	n      int
}

func (s *swept) Enabled(context.Context, slog.Level) bool { return true }

func (s *swept) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "stale route swept" {
		s.n++
		s.before(s.n)
	}
	return nil
}

// A sweep is long after a restart without a large table. A next hop that is lost meanwhile goes before the next stale route does.
func TestASweepGivesWayToALostNextHop(t *testing.T) {
	const stale = 50
	ns := box(t)
	before := open(t, ns, plain)
	for i := range stale {
		before.Update(pfx(fmt.Sprintf("10.0.%d.0/24", i)), torA, hopA)
	}
	before.Update(pfx("192.0.2.0/24"), torA, hopA)
	before.Update(pfx("192.0.2.0/24"), torB, hopB)
	nstest.Eventually(t, 10*time.Second, func() string { return nstest.Want("routes", installed(before), stale+1) })
	before.Close()

	var table *fib.Table
	hops := map[int]int{} // of the route that stays, before the n-th stale one is swept
	handler := &swept{Handler: slog.DiscardHandler, before: func(n int) {
		if n == 1 {
			table.Dead(torA.Neighbor, true)
		}
		if r := table.Routes(fib.Query{About: pfx("192.0.2.0/24")}).Routes; len(r) == 1 {
			hops[n] = len(r[0].NextHops)
		}
	}}
	table, err := fib.Open(slog.New(handler), ns.FD(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(table.Close)
	table.SetPolicy(plain)
	table.Update(pfx("192.0.2.0/24"), torA, hopA)
	table.Update(pfx("192.0.2.0/24"), torB, hopB)
	nstest.Eventually(t, 10*time.Second, func() string {
		return nstest.Want("stale", table.Routes(fib.Query{}).Stale, stale)
	})
	table.Sweep()
	expect(t, ns, "192.0.2.0/24 metric 20 via 198.18.0.5\n")
	table.Close() // the writer has ended: hops is ours
	if handler.n != stale || hops[1] != 2 || hops[2] != 1 {
		t.Errorf("%d routes were swept; the one that stays had these next hops before each: %v", handler.n, hops)
	}
}
