package fib_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"sluice/bgp/fib"
	"sluice/tests/nstest"
)

func TestRoutesAreShownByPrefixAndTheFirstOfThem(t *testing.T) {
	ns := box(t)
	before := open(t, ns, plain)
	before.Update(pfx("203.0.113.0/24"), torA, hopA)
	expect(t, ns, "203.0.113.0/24 metric 20 via 198.18.0.1\n")
	before.Close()

	table := open(t, ns, plain) // the one of before is stale
	table.Update(pfx("0.0.0.0/0"), torA, hopA)
	table.Update(pfx("192.0.2.0/24"), torA, hopA)
	table.Update(pfx("192.0.2.128/25"), torA, far) // by the default route, and so not absent
	table.Update(pfx("10.99.0.0/16"), torA, far)   // through itself
	table.Update(pfx("2001:db8:1::/48"), torA, hop6)
	all := []string{"0.0.0.0/0", "10.99.0.0/16 absent", "192.0.2.0/24", "192.0.2.128/25", "203.0.113.0/24 stale", "2001:db8:1::/48"}
	for _, c := range []struct {
		name   string
		query  fib.Query
		want   []string
		counts string
	}{
		{"all", fib.Query{}, all, "6 1 1"},
		{"the first of them", fib.Query{Limit: 2}, all[:2], "6 1 1"},
		{"what covers an address", fib.Query{About: pfx("192.0.2.7/32")}, []string{all[0], all[2]}, "2 0 0"},
		{"what lies within a prefix, too", fib.Query{About: pfx("192.0.2.0/24")}, []string{all[0], all[2], all[3]}, "3 0 0"},
		{"the first of those", fib.Query{About: pfx("192.0.2.0/24"), Limit: 1}, all[:1], "3 0 0"},
		{"what has no way", fib.Query{About: pfx("10.99.3.0/24")}, all[:2], "2 0 1"},
		{"nothing but the other family's", fib.Query{About: pfx("2001:db8:1::1/128")}, all[5:], "1 0 0"},
	} {
		nstest.Eventually(t, 10*time.Second, func() string {
			shown, got := table.Routes(c.query), []string{}
			for _, r := range shown.Routes {
				line := r.Prefix.String()
				if r.Stale {
					line += " stale"
				}
				if r.Absent {
					line += " absent"
				}
				got = append(got, line)
			}
			return nstest.Want(c.name, fmt.Sprint(got, " ", shown.Total, shown.Stale, shown.Absent), fmt.Sprint(c.want, " ", c.counts))
		})
	}
	if got := fmt.Sprint(table.Routes(fib.Query{About: netip.MustParsePrefix("10.99.0.0/16"), Limit: 1}).Routes); got != "[{0.0.0.0/0 20 254 [198.18.0.1] false false }]" {
		t.Errorf("the first is %s", got)
	}
}
