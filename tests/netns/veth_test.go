package netns

import (
	"fmt"
	"strings"
	"testing"

	"sluice/cmd/lab"
	"sluice/control/engine"
)

// refusedCondition waits for the condition about refused workloads to say so, or with "" to be gone.
func (s *site) refusedCondition(want string) {
	s.t.Helper()
	eventually(s.t, func() error {
		for _, c := range s.status().Engine.Conditions {
			if c.Type == engine.ConditionWorkloads {
				if want == "" || c.Status != engine.False || !strings.Contains(c.Message, want) {
					return fmt.Errorf("condition %+v, want %q", c, want)
				}
				return nil
			}
		}
		if want != "" {
			return fmt.Errorf("there is no condition about %q", want)
		}
		return nil
	})
}

func TestAWorkloadOfTheAPIWaitsForItsInterfaceAndFollowsItWhereverItGoes(t *testing.T) {
	t.Parallel()
	s := withoutWeb2(t)
	gateway := s.Gateway.Namespace
	s.must(gateway, "ip link del web-2")
	s.start()
	s.says(s.addWeb2("--policy", s.policy(web2Policy)), 0, "workload web-2 is added: it waits for its interface")
	if w := s.workload("web-2"); w.State != "waiting" || w.Index != 0 {
		t.Errorf("show workloads: %+v", w)
	}
	s.connectWorkload2()
	first := s.state("web-2", "attached").Index
	s.servesWeb2()

	// Made again: another index, and the old one forgotten.
	s.must(gateway, "ip link del web-2")
	s.state("web-2", "waiting")
	eventually(t, func() error {
		if pins := s.pins(); strings.Contains(pins, "web-2") {
			return fmt.Errorf("pins of what was deleted: %s", pins)
		}
		return nil
	})
	s.connectWorkload2()
	if now := s.state("web-2", "attached").Index; now == first {
		t.Errorf("the new interface has the old index %d", now)
	}
	s.servesWeb2()

	// Renamed, and back.
	s.must(gateway, "ip link set web-2 down")
	s.must(gateway, "ip link set web-2 name other")
	s.state("web-2", "waiting")
	if out := s.must(gateway, "bpftool net show dev other"); strings.Contains(out, "root_") {
		t.Errorf("programs are left on what is no workload's any more:\n%s", out)
	}
	s.must(gateway, "ip link set other down")
	s.must(gateway, "ip link set other name web-2")
	s.state("web-2", "attached")
	s.servesWeb2()

	// Its peer moves into our namespace: redirects would lose every packet. Others go on.
	s.must(s.Workload(2), "ip link set eth0 name web-2-in")
	s.must(s.Workload(2), "ip link set web-2-in netns "+gateway.Name)
	s.state("web-2", "refused")
	s.refusedCondition("both ends of the veth web-2 are in this namespace")
	if e := s.status().Engine; !e.Applied {
		t.Errorf("status: %+v", e)
	}
	s.answers(s.Client, lab.Web4[0], 80, "web-1")
	s.says(s.addWeb2(), 1, "both ends of the veth web-2 are in this namespace", "move the other end into the workload's own namespace")
	s.must(gateway, "ip link set web-2-in netns "+s.Workload(2).Name)
	s.must(s.Workload(2), "ip link set web-2-in name eth0")
	s.state("web-2", "attached")
	s.refusedCondition("")
	for _, words := range []string{
		"ip link set eth0 up", "ip addr add 203.0.113.11/32 dev eth0", "ip addr add 2001:db8:100::11/128 dev eth0 nodad",
		"ip route add default via 169.254.1.1 dev eth0 onlink", "ip route add default via fe80::1 dev eth0",
	} {
		s.must(s.Workload(2), words)
	}
	s.servesWeb2()

	// The host side itself moves to another namespace.
	s.must(gateway, "ip link set web-2 netns "+s.Client.Name)
	s.state("web-2", "waiting")
	if out := s.must(s.Client, "bpftool net show dev web-2"); strings.Contains(out, "root_") {
		t.Errorf("programs are left on what is in another namespace:\n%s", out)
	}
	s.must(s.Client, "ip link del web-2")

	// Flapping: whatever happened in between, the last state holds.
	for range 15 {
		s.must(gateway, "ip link add web-2 type veth peer name eth0 netns "+s.Workload(2).Name)
		s.must(gateway, "ip link del web-2")
	}
	s.connectWorkload2()
	s.state("web-2", "attached")
	s.servesWeb2()
	eventually(t, func() error {
		if e := s.status().Engine; !e.Applied || len(e.Warnings) > 0 {
			return fmt.Errorf("status: %+v", e)
		}
		return nil
	})
	if log := s.daemonLog(); strings.Contains(log, "degraded") {
		t.Errorf("an interface that comes and goes is no reason to degrade:\n%s", log)
	}
}

func TestAWorkloadOfTheFileWhoseVethIsMadeInHalvesHoldsNothingUp(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	gateway := s.Gateway.Namespace
	s.must(gateway, "ip link del web-2")
	s.start()
	// As many tools do it: both ends here, then one goes where it belongs.
	s.must(gateway, "ip link add web-2 type veth peer name web-2-in")
	s.state("web-2", "refused")
	s.refusedCondition("both ends of the veth web-2 are in this namespace")
	eventually(t, func() error { return s.get(s.Client, lab.Web4[0], 80, "web-1") }) // once it is announced
	if e := s.status().Engine; !e.Applied {
		t.Errorf("status: %+v", e)
	}
	// Whoever applies a file now is told, and so is who checks one on this machine.
	s.edit("{name: e2e-gateway}", "{name: e2e-other}")
	s.says(s.sluice("apply", "-c", s.Gateway.File), 1, "gateway.yaml:", "both ends of the veth web-2 are in this namespace")
	s.says(s.sluice("check", "-c", s.Gateway.File), 1, "gateway.yaml:", "both ends of the veth web-2 are in this namespace")
	s.must(gateway, "ip link set web-2-in netns "+s.Workload(2).Name)
	s.must(s.Workload(2), "ip link set web-2-in name eth0")
	s.state("web-2", "attached")
	s.refusedCondition("")
	s.apply()
}
