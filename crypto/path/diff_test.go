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

// TestAHoleThatAnotherCatchesComesBehindTheRoutes: a prefix that becomes a wider one, or part of one, is without a route for no instant.
func TestAHoleThatAnotherCatchesComesBehindTheRoutes(t *testing.T) {
	office, all := holes("10.20.0.0/16"), State{[]Blackhole{{netip.MustParsePrefix("0.0.0.0/0"), Table}}}
	both := State{slices.Concat(office.Blackholes, all.Blackholes)}
	for _, c := range []struct {
		have, want State
		between    []bool
	}{
		{office, all, []bool{false, true}}, // the new one is wider, and caught by none
		{all, office, []bool{true, false}},
		{State{}, both, []bool{false, false}}, // none stands yet
		{both, State{}, []bool{false, false}},
		{office, holes("10.30.0.0/16"), []bool{false, false}},
		{holes("fd00::/16"), all, []bool{false, false}},
		{office, State{[]Blackhole{{office.Blackholes[0].Prefix, Table}}}, []bool{true, true}},
	} {
		var got []bool
		ops := Diff(c.have, c.want)
		for _, op := range ops {
			got = append(got, op.Between())
		}
		if !slices.Equal(got, c.between) {
			t.Errorf("%q: between are %v, want %v", said(ops), got, c.between)
		}
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
