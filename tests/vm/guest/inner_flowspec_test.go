//go:build vmguest

package guest

import (
	"testing"

	"sluice/xdp"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
)

// filtered: what comes out of the tunnel meets FlowSpec before policy.ingress, and what carries the tunnel does not.
func (s *inner) filtered(t *testing.T) {
	t.Helper()
	f, err := xdp.OpenFlowSpec(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	set := func(filters ...xdp.FlowSpecFilter) {
		t.Helper()
		if err := f.Set(filters); err != nil {
			t.Fatal(err)
		}
	}
	set(xdp.FlowSpecFilter{Key: "everything", Rules: []classify.Rule{{Protocol: classify.AnyProtocol}}, Drop: true})
	s.expects(t, "tun1", abi.ReasonFlowspecDrop, send(t, s.far, "203.0.113.9", "9"))
	s.expects(t, "tun1", abi.ReasonFlowspecDrop, send(t, s.far, "fd00:1::10", "9"))
	if n := s.counted(t, "up0"); n[abi.ReasonSystem] == 0 || n[abi.ReasonFlowspecDrop] != 0 {
		t.Errorf("up0 has counted %v, want the encrypted packets as system", n)
	}
	set()
	s.expects(t, "tun1", abi.ReasonStackForward, send(t, s.far, "203.0.113.9", "9"))
}
