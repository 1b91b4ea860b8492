package netns

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/cmd/lab"
	"sluice/control/api"
)

// heard counts, by source, what comes to a UDP port of a namespace until the end of the test.
type heard struct {
	mu sync.Mutex
	by map[netip.Addr]int
}

func (h *heard) from(a netip.Addr) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.by[a]
}

func (h *heard) total() (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range h.by {
		n += m
	}
	return n
}

func (s *site) hear(ns *lab.Namespace, at netip.AddrPort) *heard {
	s.t.Helper()
	h := &heard{by: map[netip.Addr]int{}}
	var conn *net.UDPConn
	err := ns.Do(func() (err error) {
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	go func() {
		buf := make([]byte, 64)
		for {
			_, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			h.mu.Lock()
			h.by[from.Addr().Unmap()]++
			h.mu.Unlock()
		}
	}()
	return h
}

// sendDatagrams sends n datagrams as fast as it can.
func (s *site) sendDatagrams(ns *lab.Namespace, from netip.Addr, to netip.AddrPort, n int) {
	s.t.Helper()
	err := ns.Do(func() error {
		conn, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), net.UDPAddrFromAddrPort(to))
		if err != nil {
			return err
		}
		defer conn.Close()
		for range n {
			if _, err := conn.Write([]byte("hello")); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// limitOf is the rule as show policy has it.
func (s *site) limitOf(policy, rule string) api.Rule {
	s.t.Helper()
	for _, p := range show[[]api.Policy](s, "policy") {
		for _, r := range p.Rules {
			if p.Name == policy && r.Name == rule {
				return r
			}
		}
	}
	s.t.Fatalf("show policy has no %s/%s", policy, rule)
	return api.Rule{}
}

func TestAFloodIsLimitedPerSourceAndAnotherSourcePasses(t *testing.T) {
	t.Parallel()
	const flood, burst, polite, trial = 3000, 50, 40, 1000
	s := newSite(t)
	s.edit("      - {name: no-attackers,", "      - {name: trial, to: [web-1], protocol: udp, ports: [5353], action: limit, limit: {rate: 1pps, burst: 1000p}, mode: shadow}\n"+
		"      - {name: flood, to: [web-1], protocol: udp, ports: [5353], action: limit, limit: {rate: 1pps, burst: 50p, per: source}}\n"+
		"      - {name: no-attackers,",
		"    addresses: [203.0.113.10, \"2001:db8:100::10\"]\n    ingress: {default: drop, rules: [",
		"    addresses: [203.0.113.10, \"2001:db8:100::10\"]\n    ingress: {default: drop, rules: [{name: flood, protocol: udp, ports: [5353], action: accept}, ")
	s.start()
	s.established()
	server := netip.AddrPortFrom(lab.Web4[0], 5353)
	got := s.hear(s.Workload(1), server)

	begin := time.Now()
	s.sendDatagrams(s.Client, lab.Client4, server, flood)
	s.sendDatagrams(s.Client, lab.Resolver4, server, polite)
	eventually(t, func() error {
		if r := s.limitOf("ingress", "flood"); r.Packets != flood+polite || r.Action != "limit" {
			return fmt.Errorf("the rule saw %+v", r)
		}
		if n := got.from(lab.Resolver4); n != polite {
			return fmt.Errorf("%d of %d packets of the other source arrived", n, polite)
		}
		return nil
	})
	most := burst + 1 + int(time.Since(begin).Seconds())
	passed := got.from(lab.Client4)
	if passed < burst || passed > most {
		t.Errorf("%d packets of the flood arrived, want %d to %d", passed, burst, most)
	}
	if r := s.limitOf("ingress", "flood"); r.LimitDrops != uint64(flood-passed) {
		t.Errorf("%d passed, and show policy tells of %d beyond the limit", passed, r.LimitDrops)
	}
	if r := s.limitOf("ingress", "trial"); r.LimitDrops != 0 || r.ShadowDrops > flood+polite-trial || r.ShadowDrops < flood+polite-uint64(trial+most-burst) {
		t.Errorf("the limit in shadow mode would have let %d pass of %d: %+v", trial, flood+polite, r)
	}
	if n := s.packets("xdp", "eth0", "limit-drop"); n != uint64(flood-passed) {
		t.Errorf("%d passed, and %d are counted as limit-drop", passed, n)
	}
	why := s.sluice("explain", "--in", "eth0", "--packet", "udp 198.51.100.53:1 > 203.0.113.10:5353")
	if why.code != 0 || !strings.Contains(why.out, "limit-accept") || !strings.Contains(why.out, "ingress/flood") || strings.Contains(why.out, "bug") {
		t.Errorf("explain of a source within the limit: %+v", why)
	}

	// Whoever restarts the daemon does not fill the buckets; whoever raises the rate does.
	s.kill()
	s.start()
	began := time.Now()
	s.sendDatagrams(s.Client, lab.Client4, server, flood)
	eventually(t, func() error {
		r := s.limitOf("ingress", "flood")
		if r.Packets != 2*flood+polite {
			return fmt.Errorf("the rule saw %+v", r)
		}
		// Who hears may be behind, and what is heard late would count as of the new rate.
		if n := got.from(lab.Client4); n != 2*flood-int(r.LimitDrops) {
			return fmt.Errorf("%d packets of the flood arrived, and the rule saw %+v", n, r)
		}
		return nil
	})
	if again, most := got.from(lab.Client4)-passed, 2+int(began.Sub(begin).Seconds()+time.Since(began).Seconds()); again > most {
		t.Errorf("after a restart %d packets more passed, want %d at most", again, most)
	}
	passed = got.from(lab.Client4)
	s.edit("rate: 1pps, burst: 50p", "rate: 1Mpps, burst: 500p")
	s.apply()
	s.sendDatagrams(s.Client, lab.Client4, server, 100)
	eventually(t, func() error {
		if n := got.from(lab.Client4) - passed; n != 100 {
			return fmt.Errorf("at the new rate %d of 100 packets arrived", n)
		}
		return nil
	})
	s.clearsCounters()
}

// clearsCounters of one policy, with what its limits dropped and would have dropped, and then of all.
func (s *site) clearsCounters() {
	s.t.Helper()
	for _, policy := range []string{"ingress", ""} {
		before := s.limitOf("workload/web-1/ingress", "flood").Packets
		if got := s.sluice(strings.Fields("clear counters " + policy)...); got.code != 0 {
			s.t.Fatalf("clear counters %s: %+v", policy, got)
		}
		for _, rule := range []string{"flood", "trial"} {
			if r := s.limitOf("ingress", rule); r.Packets+r.Bytes+r.LimitDrops+r.ShadowDrops != 0 || r.LastHit != nil {
				s.t.Errorf("clear counters %s left %+v", policy, r)
			}
		}
		after := s.limitOf("workload/web-1/ingress", "flood").Packets
		if before == 0 || policy != "" && after != before || policy == "" && after != 0 {
			s.t.Errorf("clear counters %s: of %d packets of a workload's policy %d are left", policy, before, after)
		}
	}
}
