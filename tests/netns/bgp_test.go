package netns

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// nhid is the nexthop object of a route, as ip names it. The next hops of an IPv6 one stand in lines of their own.
var (
	nhid    = regexp.MustCompile(`nhid \d+ `)
	nexthop = regexp.MustCompile(`(?m)^(\S+) metric .*\n\tnexthop (.*)$`)
)

// learned complains unless the gateway's kernel has exactly these of what BGP learned, each by one next hop.
func (s *site) learned(want string) error {
	s.t.Helper()
	got := s.must(s.Gateway.Namespace, "ip -4 route show proto 186") + s.must(s.Gateway.Namespace, "ip -6 route show proto 186")
	lines := ""
	for line := range strings.Lines(nexthop.ReplaceAllString(nhid.ReplaceAllString(got, ""), "$1 $2")) {
		f := strings.Fields(line)
		lines += strings.Join(f[:min(len(f), 5)], " ") + "\n"
	}
	if lines != want {
		return fmt.Errorf("routes of protocol 186:\n%swant\n%s", got, want)
	}
	return nil
}

const bothDefaults = "default via 198.18.0.1 dev eth0\ndefault via 2001:db8::1 dev eth0\n"

func TestBIRDLearnsWhatIsAdvertisedWithItsCommunitiesAndTheGatewayLearnsTheDefaultRoutes(t *testing.T) {
	t.Parallel()
	s := newGateway(t)
	for prefix, want := range map[string]string{
		"203.0.113.0/24":       "BGP.next_hop: 198.18.0.2\nBGP.community: (65010,100)",
		"2001:db8:100::/48":    "BGP.next_hop: 2001:db8::2\nBGP.community: (65010,100)",
		"203.0.113.10/32":      "BGP.next_hop: 198.18.0.2",
		"2001:db8:100::11/128": "BGP.next_hop: 2001:db8::2",
	} {
		got := s.bird.do("show route all for " + prefix)
		for line := range strings.Lines(want + "\nBGP.as_path: 65010") {
			if !strings.Contains(got, strings.TrimSpace(line)) {
				t.Errorf("%s lacks %q:\n%s", prefix, line, got)
			}
		}
		if strings.Contains(got, "community") != strings.Contains(want, "community") {
			t.Errorf("communities of %s:\n%s", prefix, got)
		}
	}
	eventually(t, func() error { return s.learned(bothDefaults) })
	// A withdrawal goes all the way, and comes back all the way.
	s.bird.do("disable default4")
	eventually(t, func() error { return s.learned("default via 2001:db8::1 dev eth0\n") })
	s.bird.do("enable default4")
	eventually(t, func() error { return s.learned(bothDefaults) })
}

func TestBIRDLosesWhatAnApplyRemovesAndNothingElse(t *testing.T) {
	t.Parallel()
	s := newGateway(t)
	sessions := s.sessions()
	s.edit(`    - {prefixes: [203.0.113.0/24, "2001:db8:100::/48"], communities: ["65010:100"]}`+"\n",
		`    - {prefixes: [203.0.113.0/24], communities: ["65010:200", "65010:300"]}`+"\n",
		`    addresses: [203.0.113.11, "2001:db8:100::11"]`, `    addresses: [203.0.113.11]`)
	s.apply()
	eventually(t, func() error {
		return s.bird.has("203.0.113.0/24", "203.0.113.10/32", "203.0.113.11/32", "2001:db8:100::10/128")
	})
	eventually(t, func() error {
		if got := s.bird.do("show route all for 203.0.113.0/24"); !strings.Contains(got, "(65010,200) (65010,300)") {
			return fmt.Errorf("the communities did not follow:\n%s", got)
		}
		return nil
	})
	if now := s.sessions(); now != sessions {
		t.Errorf("the sessions did not stay up: they came up %d times, %d before", now, sessions)
	}
	s.edit("  advertise:\n"+`    - {prefixes: [203.0.113.0/24], communities: ["65010:200", "65010:300"]}`+"\n    - {workloads: true}\n", "")
	s.apply()
	eventually(t, func() error { return s.bird.has() })
	eventually(t, func() error { return s.learned(bothDefaults) })
}

func TestDownWithdrawsEverythingAtOnce(t *testing.T) {
	t.Parallel()
	s := newGateway(t)
	eventually(t, func() error { return s.learned(bothDefaults) })
	if r := s.sluice("down"); r.code != 0 {
		t.Fatalf("down: exit code %d: %s%s", r.code, r.out, r.err)
	}
	s.ends(0)
	// No graceful restart: what is gone for good must not be kept for 60 s.
	eventually(t, func() error { return s.bird.has() })
	eventually(t, func() error {
		if out := s.must(s.ToR, "ip route show proto bird") + s.must(s.ToR, "ip -6 route show proto bird"); out != "" {
			return errors.New("the ToR's kernel keeps " + out)
		}
		return nil
	})
	if err := s.learned(""); err != nil {
		t.Error(err)
	}
}
