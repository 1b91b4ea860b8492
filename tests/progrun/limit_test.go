package progrun_test

import (
	"testing"

	"sluice/xdp"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
)

const (
	limitID  = 40
	beyondID = 41
)

// limited is a generation whose rule 40 limits UDP to port 53, with a default of drop.
func limited(l classify.Limiter) xdp.Generation {
	l.Rule, l.Beyond = limitID, beyondID
	g := generation(classify.Drop, classify.Rule{ID: limitID, Name: "limit", Protocol: 17,
		Ports: []classify.PortRange{{First: 53, Last: 53}}, Action: classify.Limit})
	g.Limiters = []classify.Limiter{l}
	return g
}

func TestABurstPassesAndTheRestIsDropped(t *testing.T) {
	s := newSite(t, limited(classify.Limiter{Rate: 1, Burst: 5}))
	frame := frame4(17, udp(1000, 53))
	for i := range 8 {
		want := uint32(xdpPass)
		if i >= 5 {
			want = xdpDrop
		}
		if got := run(t, s.live, s.uplink, frame); got != want {
			t.Errorf("packet %d: %d, want %d", i, got, want)
		}
	}
	said := s.explain(t, s.uplink, frame)
	if abi.Reason(said.Reason) != abi.ReasonLimitDrop {
		t.Error(said)
	}
}
