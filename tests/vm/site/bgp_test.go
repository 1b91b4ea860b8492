//go:build vmguest

package site

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"sluice/control/api"
)

func (s *site) whatBGPLearnsOverATunnelGoesThroughIt() {
	const behind = "10.30.0.0/16 via 10.200.0.0 dev fra1"
	eventually(s.t, func() error { return s.learned(behind) })
	f := s.startStream(s.Workload(1), "10.30.0.1")
	f.more(100)
	f.lost()

	// The session, and with it the route, outlast the hold time: nothing that was learned has taken the way to the endpoint.
	f.more(1000)
	f.lostNothing("while the peer announces a way to itself")
	if err := s.learned(behind); err != nil {
		s.t.Error(err)
	}
	log, err := os.ReadFile(s.gateway.Daemon().Log)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, prefix := range []string{"198.18.0.0/29", "0.0.0.0/0"} {
		if !strings.Contains(string(log), prefix) || !strings.Contains(string(log), "198.18.0.6, the endpoint of one") {
			s.t.Errorf("the log does not say why %s is not installed", prefix)
		}
	}

	// It goes with the tunnel, and comes back with it.
	mend := s.cut(udp)
	defer mend()
	s.t.Logf("withdrawn after %s", eventually(s.t, func() error { return s.learned("") }))
	mend()
	s.gateway.tunnelsAre(api.PeerUp, "fra1")
	s.t.Logf("learned again after %s", eventually(s.t, func() error { return s.learned(behind) }))
	f.more(100)
	f.lostAtMost(time.Minute, "while the tunnel was cut")
}

// nhid is the nexthop object of a route, as ip names it.
var nhid = regexp.MustCompile(`nhid \d+ `)

// learned complains unless the gateway's kernel has exactly these routes of BGP.
func (s *site) learned(want string) error {
	s.t.Helper()
	out := s.must(s.Gateway.Namespace, "ip -4 route show proto 186")
	var got []string
	for line := range strings.Lines(out) {
		f := strings.Fields(nhid.ReplaceAllString(line, ""))
		got = append(got, strings.Join(f[:min(len(f), 5)], " "))
	}
	if strings.Join(got, "\n") != want {
		return fmt.Errorf("routes of protocol 186:\n%swant\n%s", out, want)
	}
	return nil
}
