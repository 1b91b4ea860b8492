package path

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var comparePrefix = cmpopts.EquateComparable(netip.Prefix{})

func holes(prefixes ...string) (s State) {
	for _, p := range prefixes {
		s.Blackholes = append(s.Blackholes, Blackhole{Prefix: netip.MustParsePrefix(p)})
	}
	return s
}

func said(ops []Op) (out []string) {
	for _, op := range ops {
		out = append(out, op.String())
	}
	return out
}

func TestDiffAddsBeforeItTakesAway(t *testing.T) {
	have, want := holes("10.1.0.0/16", "10.2.0.0/16"), holes("10.2.0.0/16", "fd00:1::/64")
	want.Blackholes = append(want.Blackholes, Blackhole{netip.MustParsePrefix("0.0.0.0/0"), Table})
	ops := Diff(have, want)
	if diff := cmp.Diff([]string{"add blackhole route fd00:1::/64", "add blackhole route 0.0.0.0/0 in table 187", "remove blackhole route 10.1.0.0/16"}, said(ops)); diff != "" {
		t.Error(diff)
	}
	if got := slices.IndexFunc(ops, Op.Teardown); got != 2 {
		t.Errorf("the first teardown is op %d", got)
	}
	if ops := Diff(want, want); len(ops) != 0 {
		t.Errorf("of equal states: %v", ops)
	}
}

func TestRoutesOfMetricZeroHaveTheKernelsDefault(t *testing.T) {
	p4, p6 := netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")
	have := []Route{{Prefix: p4}, {Prefix: p6, Metric: 1024}}
	missing, surplus := DiffRoutes(have, []Route{{Prefix: p4}, {Prefix: p6}})
	if len(missing)+len(surplus) != 0 {
		t.Errorf("missing %v, surplus %v", missing, surplus)
	}
	missing, surplus = DiffRoutes(have, []Route{{Prefix: p4, Table: Table}, {Prefix: p6}})
	if diff := cmp.Diff([]Route{{Prefix: p4, Table: Table}}, missing, comparePrefix); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]Route{{Prefix: p4}}, surplus, comparePrefix); diff != "" {
		t.Error(diff)
	}
}
