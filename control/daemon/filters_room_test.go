package daemon

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"sluice/bgp"
	"sluice/bgp/flowspec"
	"sluice/control/api"
	"sluice/xdp/abi"
)

// TestTheFilterBehindAFullOverlayIsRefusedByNameUntilThereIsRoom judges one rule more than fit, then one less.
func TestTheFilterBehindAFullOverlayIsRefusedByNameUntilThereIsRoom(t *testing.T) {
	d, out, r := heard(t)
	var rules []bgp.FlowSpecRule
	for i := range abi.MaxFlowspec + 1 {
		rule := flowspec.Rule{Family: flowspec.IPv4, Components: []flowspec.Component{
			{Type: flowspec.Source, Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32)}}}
		rules = append(rules, bgp.FlowSpecRule{Name: rule.String(), Rule: rule, Neighbor: "tor", Address: netip.MustParseAddr("198.18.0.1"),
			Actions: []flowspec.Action{{Kind: flowspec.RateBytes}}})
	}
	last := rules[abi.MaxFlowspec].Name
	full, set := d.judgeFilters(rules)
	if len(full) != len(rules) || len(set) != abi.MaxFlowspec {
		t.Fatalf("of %d rules %d are known and %d hold", len(rules), len(full), len(set))
	}
	const why = "XDP has room for 0 table entries, and it takes 1"
	d.tellFilters(full[:abi.MaxFlowspec], full)
	if e := r.want(t, api.EventFlowSpec); e.Text != api.FilterRefused || e.Filter.Rule != last || e.Filter.Refused != why || e.Filter.Valid {
		t.Errorf("told %q of %+v", e.Text, e.Filter)
	}
	if line := fmt.Sprintf("msg=\"FlowSpec rule refused\" neighbor=tor rule=%q reason=%q\n", last, why); !strings.HasSuffix(out.String(), line) {
		t.Errorf("the log says %s, want %s", out.String(), line)
	}

	room, set := d.judgeFilters(slices.Delete(rules, 7, 8))
	if len(set) != abi.MaxFlowspec || room[len(room)-1].refused != "" {
		t.Errorf("%d hold, and the last one is refused: %q", len(set), room[len(room)-1].refused)
	}
	d.tellFilters(full, room)
	if e := r.want(t, api.EventFlowSpec); e.Text != api.FilterAdded || e.Filter.Rule != last || !e.Filter.Valid {
		t.Errorf("told %q of %+v", e.Text, e.Filter)
	}
	if e := r.want(t, api.EventFlowSpec); e.Text != api.FilterRemoved || e.Filter.Rule != full[7].Name {
		t.Errorf("told %q of %+v", e.Text, e.Filter)
	}
}
