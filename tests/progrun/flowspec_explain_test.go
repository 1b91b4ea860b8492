package progrun_test

import (
	"fmt"
	"slices"
	"testing"

	"sluice/xdp"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
)

// TestExplainNamesTheFiltersThatHeld: what only samples, marks, conforms or is handed to nobody leaves no other trace in the verdict.
func TestExplainNamesTheFiltersThatHeld(t *testing.T) {
	s := newSite(t, strict())
	f := s.flowspec(t)
	goesOn := func(key string, does func(*xdp.FlowSpecFilter), change ...func(*classify.Rule)) xdp.FlowSpecFilter {
		filter := matching(key, change...)
		filter.Drop, filter.GoesOn = false, true
		does(&filter)
		return filter
	}
	samples := goesOn("samples", func(f *xdp.FlowSpecFilter) { f.Sample = true })
	twice := goesOn("twice", func(f *xdp.FlowSpecFilter) { f.DSCP = new(uint8); f.Rules = append(f.Rules, f.Rules...) })
	elsewhere := goesOn("elsewhere", func(f *xdp.FlowSpecFilter) { f.Sample = true }, toward("192.0.2.0/24"))
	limits := goesOn("limits", func(f *xdp.FlowSpecFilter) { f.Packets = &classify.Limiter{Rate: 1, Burst: 3600} })
	redirects := goesOn("redirects", func(f *xdp.FlowSpecFilter) { f.Socket, f.GoesOn = "nobody's", false })
	many, first := []xdp.FlowSpecFilter{}, []string{}
	for i := range abi.ExplainedFilters + 1 {
		many = append(many, goesOn(fmt.Sprint(i), func(f *xdp.FlowSpecFilter) { f.Sample = true }))
		first = append(first, fmt.Sprint(i))
	}
	udp53, ssh := from4(outside, frame4(17, udp(1, 53))), frame4(6, tcp(1, 22))
	for _, c := range []struct {
		name    string
		filters []xdp.FlowSpecFilter
		frame   []byte
		reason  abi.Reason
		want    []string
		more    bool
	}{
		{"none", nil, udp53, abi.ReasonDefaultDrop, nil, false},
		{"each that goes on, once, up to one that ends the search", []xdp.FlowSpecFilter{samples, twice, elsewhere, limits, redirects, matching("behind")}, udp53,
			abi.ReasonDefaultDrop, []string{"samples", "twice", "limits", "redirects"}, false},
		{"and one that drops", []xdp.FlowSpecFilter{samples, matching("drops")}, udp53, abi.ReasonFlowspecDrop, []string{"samples", "drops"}, false},
		{"what none is asked about, after something that was", []xdp.FlowSpecFilter{samples}, ssh, abi.ReasonFailsafe, nil, false},
		{"as many as there is room for", many[1:], udp53, abi.ReasonDefaultDrop, first[1:], false},
		{"more than that", many, udp53, abi.ReasonDefaultDrop, first[:abi.ExplainedFilters], true},
	} {
		apply(t, f, c.filters...)
		got, err := s.Explain(t.Context(), "uplink", c.frame)
		if err != nil {
			t.Fatal(err)
		}
		var held []string
		for _, slot := range got.Filters {
			held = append(held, f.Key(slot))
		}
		if got.Reason != c.reason || !slices.Equal(held, c.want) || got.More != c.more {
			t.Errorf("%s: %s, filters %q held (more: %v), want %s, %q, %v", c.name, got.Reason, held, got.More, c.reason, c.want, c.more)
		}
	}
	for _, filter := range many {
		if hits, err := f.Hits(filter.Key); err != nil || hits.Packets != 0 {
			t.Errorf("explaining counted %+v (%v)", hits, err)
		}
	}
}
