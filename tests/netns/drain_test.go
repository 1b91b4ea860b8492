package netns

import (
	"fmt"
	"strings"
	"testing"
)

// shows complains unless BIRD's answer about a prefix has a word.
func (b *bird) shows(prefix, word string) error {
	if got := b.do("show route all for " + prefix); !strings.Contains(got, word) {
		return fmt.Errorf("%s lacks %s:\n%s", prefix, word, got)
	}
	return nil
}

func TestADrainIsTheLastChoiceThenNothingAndOutlivesWhatComesBetween(t *testing.T) {
	t.Parallel()
	s := newGateway(t)
	const goingAway = "(65535,0)"
	all := []string{"203.0.113.0/24", "2001:db8:100::/48", "203.0.113.10/32", "203.0.113.11/32", "2001:db8:100::10/128", "2001:db8:100::11/128"}
	eventually(t, func() error { return s.bird.has(all...) })
	sessions := s.sessions()
	waits := make(chan said, 1)
	go func() { waits <- s.sluice("drain", "--wait", "1h") }()
	for _, prefix := range all {
		eventually(t, func() error { return s.bird.shows(prefix, goingAway) })
	}
	if err := s.bird.shows("203.0.113.0/24", "(65010,100) "+goingAway); err != nil {
		t.Error(err)
	}
	s.edit(`communities: ["65010:100"]`, `communities: ["65010:200"]`)
	s.apply()
	eventually(t, func() error { return s.bird.shows("203.0.113.0/24", "(65010,200) "+goingAway) })
	if r := s.sluice("show", "bgp"); !strings.Contains(r.out, "draining since ") {
		t.Errorf("show bgp: %s%s", r.out, r.err)
	}

	if r := s.sluice("drain", "--wait", "0s"); r.code != 0 {
		t.Fatalf("drain: exit code %d: %s%s", r.code, r.out, r.err)
	}
	if r := <-waits; r.code != 0 || !strings.Contains(r.out, "everything is withdrawn") {
		t.Errorf("who waited: exit code %d: %s%s", r.code, r.out, r.err)
	}
	eventually(t, func() error { return s.bird.has() })
	if now := s.sessions(); now != sessions {
		t.Errorf("the sessions did not stay up: they came up %d times, %d before", now, sessions)
	}
	s.kill()
	s.start()
	eventually(t, func() error {
		if st := s.status(); st.Established != 2 {
			return fmt.Errorf("%d sessions are up", st.Established)
		}
		return nil
	})
	if err := s.bird.has(); err != nil {
		t.Errorf("after kill -9: %v", err)
	}
	if st := s.status(); st.Drain == nil || st.Drain.State != "drained" {
		t.Errorf("after kill -9 the drain is %+v", st.Drain)
	}
	s.sluice("rollback", "1")
	if err := s.bird.has(); err != nil {
		t.Errorf("after a rollback: %v", err)
	}
	if r := s.sluice("undrain"); r.code != 0 {
		t.Fatalf("undrain: exit code %d: %s%s", r.code, r.out, r.err)
	}
	eventually(t, func() error { return s.bird.has(all...) })
	if got := s.bird.do("show route all"); strings.Contains(got, goingAway) {
		t.Errorf("after undrain:\n%s", got)
	}
}

func TestWhatAnAnnouncementWaitsForWithdrawsItAndBringsItBack(t *testing.T) {
	t.Parallel()
	s := newGateway(t)
	sessions := s.sessions()
	s.edit("    - {workloads: true}\n", `    - {workloads: true}
    - {prefixes: [192.0.2.0/24], when: {reach: [198.51.100.77]}}
    - {prefixes: [192.0.2.0/24], communities: ["65010:9"], when: {workloads: [web-9, web-1]}}
`)
	s.apply()
	eventually(t, func() error { return s.bird.shows("192.0.2.0/24", "(65010,9)") })
	s.edit(`    - {prefixes: [192.0.2.0/24], communities: ["65010:9"], when: {workloads: [web-9, web-1]}}`+"\n", "")
	s.apply()
	gone := func() error {
		if got := s.bird.do("show route"); strings.Contains(got, "192.0.2.0/24") {
			return fmt.Errorf("still there:\n%s", got)
		}
		return nil
	}
	eventually(t, gone)
	s.must(s.ToR, "ip addr add 198.51.100.77/32 dev lo")
	eventually(t, func() error { return s.bird.shows("192.0.2.0/24", "BGP.next_hop: 198.18.0.2") })
	s.must(s.ToR, "ip addr del 198.51.100.77/32 dev lo")
	eventually(t, gone)
	if now := s.sessions(); now != sessions {
		t.Errorf("the sessions did not stay up: they came up %d times, %d before", now, sessions)
	}
}
