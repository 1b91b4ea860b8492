package netns

import (
	"fmt"
	"strings"
	"testing"
)

// TestANICIsTunedAsTheFileSays goes the way of a setting through the daemon: refused where the hardware lacks it, planned, set, seen to
// drift, and given back.
func TestANICIsTunedAsTheFileSays(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	queues := func(want string) error {
		_, now, _ := strings.Cut(s.must(s.Gateway.Namespace, "ethtool -l eth0"), "Current hardware settings:")
		if got := strings.Join(strings.Fields(now)[:4], " "); got != want {
			return fmt.Errorf("the queues are %s, want %s", got, want)
		}
		return nil
	}
	// The kernel gives a veth as many as there are CPUs, and has one in use.
	s.must(s.Gateway.Namespace, "ethtool -L eth0 rx 1 tx 1")
	s.start()
	s.mustBe(func() error { return queues("RX: 1 TX: 1") })

	const before, entry = "  - name: eth0\n", "  - name: eth0\n    nic: {queues: 4096, offloads: {tso: false}}\n"
	s.edit(before, entry)
	const refusal = "interfaces[0].nic.queues: eth0 has "
	if r := s.sluice("plan", "-c", s.Gateway.File); r.code != 1 || !strings.Contains(r.err+r.out, refusal) || !strings.Contains(r.err+r.out, "at most, asked 4096; write ") {
		t.Errorf("plan of too many queues says %+v", r)
	}
	if r := s.sluice("check", "-c", s.Gateway.File); r.code != 0 || !strings.Contains(r.err+r.out, "on this machine apply would refuse "+refusal) {
		t.Errorf("check of too many queues says %+v", r)
	}

	s.edit("queues: 4096", "queues: 2")
	r := s.sluice("plan", "-c", s.Gateway.File)
	for _, step := range []string{"set link eth0 queues 2", "set link eth0 offloads tso off"} {
		if !strings.Contains(r.out, step) {
			t.Errorf("plan has no %q: %+v", step, r)
		}
	}
	s.apply()
	s.mustBe(func() error { return queues("RX: 2 TX: 2") })
	if r := s.sluice("show", "interfaces", "-o", "json"); !strings.Contains(strings.ReplaceAll(r.out, " ", ""), `"rx_queues":2`) {
		t.Errorf("show interfaces says %s", r.out)
	}
	// Other queues take the carrier for a moment, upon which the daemon looks, and puts back what it finds: it may be before the plan.
	eventually(t, func() error {
		s.must(s.Gateway.Namespace, "ethtool -K eth0 tx-tcp-segmentation on")
		if r := s.sluice("plan", "-c", s.Gateway.File); !strings.Contains(r.out, "set link eth0 offloads tso off") {
			return fmt.Errorf("after a change by hand plan says %+v", r)
		}
		return nil
	})
	s.must(s.Gateway.Namespace, "ethtool -L eth0 tx 1")
	s.apply()
	s.mustBe(func() error { return queues("RX: 2 TX: 2") })
	if f := s.must(s.Gateway.Namespace, "ethtool -k eth0"); !strings.Contains(f, "tcp-segmentation-offload: off") {
		t.Errorf("behind an apply:\n%s", f)
	}
	s.sluice("down")
	s.ends(0)
	s.mustBe(func() error { return queues("RX: 1 TX: 1") })
}
