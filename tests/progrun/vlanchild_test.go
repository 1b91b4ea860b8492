package progrun_test

import (
	"testing"

	"sluice/xdp"
	"sluice/xdp/abi"
	"sluice/xdp/classify"
)

// TestFramesOfAVLANChildAreJudgedAtTheChild: the policy of the uplink below drops everything.
func TestFramesOfAVLANChildAreJudgedAtTheChild(t *testing.T) {
	s := newSite(t, generation(classify.Accept))
	g := generation(classify.Drop)
	g.Children = []xdp.VLANChild{{Ifindex: uint32(s.uplink), VLAN: 100}, {Ifindex: uint32(s.uplink + 1000), VLAN: 200}}
	s.load(t, g)
	frame := func(vlans ...int) []byte { return ether(typeIP4, ip4(6, nil, tcp(1, 443)), vlans...) }
	fragment := ether(typeIP4, ip4Fragment(17, moreFragments, nil, udp(1000, 53, make([]byte, 8)...)), 100)
	for name, c := range map[string]struct {
		frame []byte
		want  abi.Reason
	}{
		"the child's":                    {frame(100), abi.ReasonVLANChild},
		"with a second tag inside":       {frame(100, 7), abi.ReasonVLANChild},
		"a fragment":                     {fragment, abi.ReasonVLANChild},
		"ARP":                            {ether(0x0806, make([]byte, 28), 100), abi.ReasonVLANChild},
		"untagged":                       {frame(), abi.ReasonDefaultDrop},
		"a priority alone":               {frame(0), abi.ReasonDefaultDrop},
		"another VLAN":                   {frame(99), abi.ReasonDefaultDrop},
		"the VLAN inside of another one": {frame(7, 100), abi.ReasonDefaultDrop},
		"a child of another uplink":      {frame(200), abi.ReasonDefaultDrop},
	} {
		if said := s.explain(t, s.uplink, c.frame); abi.Reason(said.Reason) != c.want {
			t.Errorf("%s: %s, want %s", name, abi.Reason(said.Reason), c.want)
		}
		before := s.tally(t)
		run(t, s.live, s.uplink, c.frame)
		if n := s.tally(t).minus(before).Reasons[c.want].Packets; n != 1 {
			t.Errorf("%s: counted %d times as %s", name, n, c.want)
		}
	}
}
