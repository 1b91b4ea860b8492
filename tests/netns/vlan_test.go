package netns

import (
	"fmt"
	"strings"
	"testing"
)

// TestRulesWithVLANSwitchTheOffloadAndMatch goes the way of a rule from plan to the packets, and back.
func TestRulesWithVLANSwitchTheOffloadAndMatch(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	offload := func(want string) error {
		if got := s.must(s.Gateway.Namespace, "ethtool -k eth0"); !strings.Contains(got, "rx-vlan-offload: "+want+"\n") ||
			!strings.Contains(got, "rx-vlan-stag-hw-parse: "+want+"\n") {
			return fmt.Errorf("rx-vlan-offload is not %s:\n%s", want, got)
		}
		return nil
	}
	s.mustBe(func() error { return offload("on") })
	s.start()
	s.mustBe(func() error { return offload("on") })

	const before = "      - {name: no-attackers,"
	s.edit(before, "      - {name: tagged, vlan: [100], action: drop}\n"+before)
	r := s.sluice("plan", "-c", s.Gateway.File)
	if !strings.Contains(r.out, "set link eth0 rx-vlan-offload off") || !strings.Contains(r.out, "interface eth0 is a veth") {
		t.Errorf("plan says %+v", r)
	}
	s.apply()
	s.mustBe(func() error { return offload("off") })
	s.send(frame(t, "udp 192.0.2.66:1 > 203.0.113.10:2 vlan=100"), frame(t, "udp 192.0.2.66:1 > 203.0.113.10:2 vlan=101"),
		frame(t, "udp 192.0.2.66:1 > 203.0.113.10:2 vlan=100 vlan=7"))
	eventually(t, func() error {
		if tagged, other := s.limitOf("ingress", "tagged"), s.limitOf("ingress", "no-attackers"); tagged.Packets != 2 || other.Packets != 1 {
			return fmt.Errorf("tagged matched %d packets and the next rule %d, want 2 and 1", tagged.Packets, other.Packets)
		}
		return nil
	})

	// Somebody who switches it on again does not know of the rule: plan tells, unless the daemon had something to compile and mended it before.
	eventually(t, func() error {
		s.must(s.Gateway.Namespace, "ethtool -K eth0 rxvlan on")
		if r := s.sluice("plan", "-c", s.Gateway.File); !strings.Contains(r.out, "set link eth0 rx-vlan-offload off") {
			return fmt.Errorf("after a change by hand plan says %+v", r)
		}
		return nil
	})
	s.apply()
	s.mustBe(func() error { return offload("off") })

	s.edit("      - {name: tagged, vlan: [100], action: drop}\n", "")
	s.apply()
	s.mustBe(func() error { return offload("on") })
	s.edit(before, "      - {name: tagged, vlan: [100], action: drop, mode: shadow}\n"+before)
	s.apply()
	s.mustBe(func() error { return offload("off") })
	s.sluice("down")
	s.ends(0)
	s.mustBe(func() error { return offload("on") })
}
