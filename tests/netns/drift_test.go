package netns

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/control/api"
	"sluice/control/engine"
	"sluice/control/tunnel"
)

// deletes takes something away in the gateway, and waits until its return is told.
func (s *site) deletes(remove, told string) {
	s.t.Helper()
	first := true
	s.lacks(told, func() {
		if r := s.in(s.Gateway.Namespace, "sh", "-c", remove); r.code != 0 && first {
			s.t.Fatalf("%s: %s", remove, r.err) // nothing was there to delete
		}
		first = false
	})
}

// lacks waits until another repair than the last one tells of this step. What is removed while another operation looks, that may put back
// before the daemon has read the kernel's word of it, and so without one of its own: then it is removed once more. Behind an apply nothing
// of that is told any more, nor is a repair disturbed: it puts back, or waits for who does, what was removed before it.
func (s *site) lacks(told string, remove func()) {
	s.t.Helper()
	const again = 10 * time.Second
	within(s.t, 3*patience, func() error {
		last := s.status().Engine.RepairedAt
		remove()
		var st engine.Status
		for began := time.Now(); time.Since(began) < again; time.Sleep(50 * time.Millisecond) {
			if st = s.status().Engine; !st.RepairedAt.Equal(last) && strings.Contains(st.Repaired, told) {
				s.apply()
				return nil
			}
		}
		s.apply()
		return fmt.Errorf("the last repair, at %s, is %q, want %q", st.RepairedAt, st.Repaired, told)
	})
}

// Without somebody who hears of it, each of these would wait for the inspection, five minutes.
func TestWhatSomebodyDeletesIsBackAtOnceAndTold(t *testing.T) {
	t.Parallel()
	s := newBareSite(t)
	s.edit("\nbgp:\n", "\nroutes:\n  - {prefix: 192.0.2.128/25, via: [198.18.0.1]}\n  - {prefix: \"2001:db8:9::/48\", via: [\"2001:db8::1\"]}\n\nbgp:\n",
		"addresses: [198.18.0.2/30, \"2001:db8::2/64\"]", "addresses: [198.18.0.2/30, \"2001:db8::2/64\", 203.0.113.200/32]")
	s.start()
	monitor := s.follow(false)
	before := s.settled()
	for _, c := range []struct{ remove, told string }{
		{"ip route del 192.0.2.128/25", "host: set route 192.0.2.128/25 via 198.18.0.1"},
		{"ip -6 route del 2001:db8:9::/48", "host: set route 2001:db8:9::/48 via 2001:db8::1"},
		{"ip addr del 203.0.113.200/32 dev eth0", "host: set address 203.0.113.200/32 dev eth0"},
		{"ip rule del priority 18800", "host: add IPv4 rule 18800"},
		{"ip -6 rule del priority 18801", "host: add IPv6 rule 18801"},
	} {
		s.deletes(c.remove, c.told)
	}
	s.same("repairs", before, s.settled())
	for what, text := range map[string]string{"the log": s.daemonLog(), "show status": s.sluice("show", "status").out} {
		if !strings.Contains(text, "add IPv6 rule 18801") {
			t.Errorf("%s does not tell of the repair:\n%s", what, text)
		}
	}
	repair := func(e api.Event) bool {
		return e.Engine != nil && e.Engine.Kind == engine.NoticeRepaired && strings.Contains(e.Engine.Text, "add IPv6 rule 18801")
	}
	monitor.hears(t, "the repair", repair)

	// What an apply takes away is no drift.
	s.edit("\nroutes:\n  - {prefix: 192.0.2.128/25, via: [198.18.0.1]}\n", "\nroutes:\n")
	s.apply()
	s.deletes("ip rule del priority 18800", "host: add IPv4 rule 18800") // told behind what the apply deleted
	if st := s.status().Engine; strings.Contains(st.Repaired, "192.0.2.128") {
		t.Errorf("the last repair is %q", st.Repaired)
	}
}

// calm waits until every peer of the tunnels has answered its probes, and nothing comes of that any more.
func (s *site) calm() {
	s.t.Helper()
	eventually(s.t, func() error {
		for _, t := range show[api.Tunnels](s, "tunnels").Tunnels {
			for _, p := range t.Peers {
				if p.State != api.PeerUp || p.Routes != api.RoutesInstalled {
					return fmt.Errorf("peer %s of %s is %s, its routes %s", p.Name, t.Name, p.State, p.Routes)
				}
			}
		}
		return nil
	})
	s.settled()
}

func TestARouteIntoATunnelThatSomebodyDeletesIsBackAtOnce(t *testing.T) {
	t.Parallel()
	s := newTunnels(t, nil)
	s.calm() // else the route may not be there yet
	for _, c := range []struct{ remove, told string }{
		{"ip route del 10.20.0.0/16 dev fra1", "wireguard: add route 10.20.0.0/16 dev fra1"},
		{"ip link set fra1 down", "wireguard: start tunnel fra1"},
		{"ip rule flush; ip rule add pref 32766 table main", "host: add IPv4 rule 18800"},
	} {
		s.deletes(c.remove, c.told)
	}
	monitor := s.follow(false)
	s.must(s.Gateway.Namespace, "ip link del fra1")
	monitor.hears(t, "the device", func(e api.Event) bool {
		byProcess := e.Tunnel != nil && e.Tunnel.Tunnel == "fra1" && e.Tunnel.Kind == tunnel.ProcessLost // which ends with its device
		return byProcess || e.Engine != nil && e.Engine.Kind == engine.NoticeRepaired && strings.Contains(e.Engine.Text, "wireguard: create tunnel fra1")
	})
	eventually(t, func() error {
		if r := s.in(s.Gateway.Namespace, "ip", "route", "show", "10.20.0.0/16", "dev", "fra1"); r.code != 0 || r.out == "" {
			return fmt.Errorf("the tunnel is not back: %+v", r)
		}
		return nil
	})
}

// A route of somebody else's is not taken away: the machine is degraded for as long as it is there.
func TestARouteThatSomebodyPutsInThePlaceOfOursIsToldAtOnce(t *testing.T) {
	t.Parallel()
	s := newTunnels(t, nil)
	monitor := s.follow(false)
	s.must(s.Gateway.Namespace, "ip route replace 10.20.0.0/16 via 198.18.0.1 metric 100")
	eventually(t, func() error {
		for _, c := range s.status().Engine.Conditions {
			if c.Type == engine.ConditionDegraded && c.Status == engine.True && strings.Contains(c.Message, "10.20.0.0/16") {
				return nil
			}
		}
		return fmt.Errorf("no condition tells of the route: %+v", s.status().Engine.Conditions)
	})
	monitor.hears(t, "the route", func(e api.Event) bool {
		return e.Engine != nil && e.Engine.Kind == engine.NoticeDegraded && strings.Contains(e.Engine.Text, "10.20.0.0/16")
	})
	s.must(s.Gateway.Namespace, "ip route del 10.20.0.0/16 via 198.18.0.1")
	within(t, 3*patience, func() error { // it is tried again after a minute at most
		if have := s.must(s.Gateway.Namespace, "ip route show 10.20.0.0/16 dev fra1"); !strings.Contains(have, "metric 100") {
			return fmt.Errorf("the route went, and ours is not back: %q", have)
		}
		return nil
	})
}

// With its last pin a link lets go of its hook, and the box would be open until the inspection.
func TestPinsThatSomebodyRemovesAreBackAtOnceAndTold(t *testing.T) {
	t.Parallel()
	s := newBareSite(t)
	s.start()
	for _, room := range []string{"", "links/xdp", "gen", ""} { // the last: in directories that were made anew
		s.lacks("xdp: ", func() { s.removePins(room) })
		eventually(t, func() error {
			for _, kind := range []string{"xdp", "tcx-ingress", "tcx-egress"} {
				if _, err := os.Stat(filepath.Join(s.Gateway.BPFDir, "links", kind, "eth0")); err != nil {
					return err
				}
			}
			return nil
		})
	}
	// What an apply takes away is no drift.
	repairs := func() (n int) {
		for line := range strings.Lines(s.daemonLog()) {
			if strings.Contains(line, "somebody else changed the machine") && strings.Contains(line, "xdp: ") {
				n++
			}
		}
		return n
	}
	before := repairs()
	s.edit("\nbgp:\n", "\nroutes:\n  - {prefix: 192.0.2.128/25, via: [198.18.0.1]}\n\nbgp:\n")
	s.apply()
	s.deletes("ip route del 192.0.2.128/25", "host: set route 192.0.2.128/25 via 198.18.0.1") // told behind what the apply deleted
	if n := repairs(); before == 0 || n != before {
		t.Errorf("%d repairs of XDP are told, and after an apply %d", before, n)
	}
}
