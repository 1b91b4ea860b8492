package netns

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/cmd/lab"
	"sluice/control/api"
)

// crowd is a protocol of BIRD that has n sources dropped on their way to the first workload, beginning with 10.0.0.0.
func crowd(name string, n int, more ...string) string {
	rules := more
	for i := range n {
		rules = append(rules, fmt.Sprintf("src 10.0.%d.%d/32;", i>>8, i&255))
	}
	var out strings.Builder
	fmt.Fprintf(&out, "protocol static %s { disabled; flow4 { table ft4; };\n", name)
	for _, r := range rules {
		fmt.Fprintf(&out, "  route flow4 { dst %s/32; %s } { bgp_ext_community.add((generic, 0x80060000, 0x0)); };\n", lab.Web4[0], r)
	}
	return out.String() + "}\n"
}

// clientRule is asked behind all of a crowd.
var (
	clientSource = fmt.Sprintf("src %s/32;", lab.Client4)
	clientRule   = fmt.Sprintf("flow4 { dst %s/32; %s }", lab.Web4[0], clientSource)
)

// newCrowdedGateway takes 2000 rules of a BIRD with these protocols.
func newCrowdedGateway(t *testing.T, protocols string, oldnew ...string) *site {
	t.Helper()
	s := newBareSite(t)
	s.write(edited(t, flowGateway(t, s), append([]string{"accept_from: [tor], max_age: 10m", "accept_from: [tor], max_rules: 2000, max_age: 10m"}, oldnew...)...))
	s.bird = startBirdWith(t, s, flowFile+protocols)
	s.start()
	s.established()
	return s
}

// told are the filters by what the monitor said of them, each in the order of its news.
func (f *follower) told() map[string][]string {
	out := map[string][]string{}
	for _, e := range f.events() {
		if e.Filter != nil {
			out[e.Filter.Rule] = append(out[e.Filter.Rule], strings.TrimSuffix(e.Text+": "+e.Filter.Refused, ": "))
		}
	}
	return out
}

// tellsOf waits until all that was said of a filter is this.
func (f *follower) tellsOf(t *testing.T, rule string, want ...string) {
	t.Helper()
	eventually(t, func() error {
		if got := f.told()[rule]; !slices.Equal(got, want) {
			return fmt.Errorf("the monitor tells of %s\n%q, want\n%q", rule, got, want)
		}
		return nil
	})
}

// TestARuleThatFindsNoRoomIsRefusedByNameAndComesInByItself: 2048 table entries are of a crowd of 1997 rules, one that has a protocol of BIRD's to
// itself, and one of 50 ports; the client's is the next one.
func TestARuleThatFindsNoRoomIsRefusedByNameAndComesInByItself(t *testing.T) {
	t.Parallel()
	var ports []string
	for i := range 50 {
		ports = append(ports, fmt.Sprintf("= %d", 2*i+1))
	}
	s := newCrowdedGateway(t, crowd("many", 1997, "src 10.255.0.1/32; proto = 6; dport "+strings.Join(ports, " || ")+";")+
		crowd("one", 0, "src 10.255.0.2/32;")+crowd("surplus", 0, clientSource))
	f := s.follow(false)
	valid := func(n int) {
		t.Helper()
		eventually(t, func() error {
			list := show[api.Filters](s, "flowspec")
			if got := list.Total - list.Refused; got != n {
				return fmt.Errorf("%d of %d filters hold, want %d", got, list.Total, n)
			}
			return nil
		})
	}
	s.bird.do("enable many")
	s.bird.do("enable one")
	valid(1999)
	s.answers(s.Client, lab.Web4[0], 80, "web-1")
	s.bird.do("enable surplus")
	const why = "XDP has room for 0 table entries, and it takes 1"
	f.tellsOf(t, clientRule, "refused: "+why)
	s.tells(s.sluice("show", "flowspec"), "these are the first 1000 of 2000 filters, 1 refused: --limit shows more")
	s.tells(s.sluice("show", "flowspec", "tor", "--limit", "2000"), clientRule, "refused: "+why)
	s.tells(s.sluice("show", "status"), "FlowSpecAccepted=False", "1 filter of tor is refused: see sluice show flowspec")
	valid(1999)
	s.answers(s.Client, lab.Web4[0], 80, "web-1")
	said, err := os.ReadFile(s.Gateway.Daemon().Log)
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"FlowSpec rule refused", clientRule, why} {
		if !strings.Contains(string(said), word) {
			t.Errorf("the log does not say %q", word)
		}
	}

	s.bird.do("disable one")
	f.tellsOf(t, clientRule, "refused: "+why, "added")
	valid(1999)
	s.counts("xdp", "eth0", "flowspec-drop", func() { s.silent(s.Client, lab.Web4[0], 80) })
	s.bird.do("enable one") // which is asked before the client's
	f.tellsOf(t, clientRule, "refused: "+why, "added", "refused: "+why)
	s.answers(s.Client, lab.Web4[0], 80, "web-1")
	s.bird.do("disable many")
	f.tellsOf(t, clientRule, "refused: "+why, "added", "refused: "+why, "added")
	valid(2)
}

// TestTheMonitorTellsTheLifeOfAFilter also sees its end in the data path.
func TestTheMonitorTellsTheLifeOfAFilter(t *testing.T) {
	t.Parallel()
	s := newBareSite(t)
	s.write(edited(t, flowGateway(t, s), "accept_from: [tor], max_age: 10m", "accept_from: [tor], max_age: 2s"))
	s.bird = startBirdWith(t, s, flowFile)
	s.start()
	s.established()
	f := s.follow(false)
	const label6 = "flow6 { dst 2001:db8:100::10/128; label = 7; }"
	const refused = "refused: XDP does not look at flow labels: label = 7"
	s.bird.do("enable attack4")
	f.tellsOf(t, attack4, "added")
	s.bird.do("disable attack4")
	f.tellsOf(t, attack4, "added", "removed")
	s.bird.do("enable label6")
	f.tellsOf(t, label6, refused)
	s.bird.do("disable label6")
	f.tellsOf(t, label6, refused, "removed"+strings.TrimPrefix(refused, "refused"))
	s.bird.do("enable attack6")
	f.tellsOf(t, attack6, "added")
	s.bird.do("disable edge")
	f.tellsOf(t, attack6, "added", "stale", "aged out")
	s.answers(s.Client, lab.Web6[0], 80, "web-1")
	for _, e := range f.events() {
		if e.Filter != nil && e.Text == api.FilterStale && (e.Filter.Stale == nil || e.Filter.Until == nil || e.Filter.Until.Sub(*e.Filter.Stale) != 2*time.Second) {
			t.Errorf("a stale filter is told as %+v", e.Filter)
		}
	}
}

// TestManyRulesAtOnce logs how long crowds of rules take from BIRD's command on: until the last of them drops its first packet, which the kernel
// stamps, and until the monitor has told of all; and back. What a clock shows here depends on what else runs; -count=5 shows how much.
func TestManyRulesAtOnce(t *testing.T) {
	t.Parallel()
	var protocols string
	sizes := []int{1, 100, 500, 2000}
	for _, n := range sizes {
		protocols += crowd(fmt.Sprintf("crowd%d", n), n-1, clientSource)
	}
	s := newCrowdedGateway(t, protocols)
	knocks := s.knocks(netip.AddrPortFrom(lab.Web4[0], 9))
	defer knocks()
	for _, n := range sizes {
		f := s.follow(true)
		limit := patience * time.Duration(1+n/200)
		begin := time.Now()
		s.bird.do(fmt.Sprintf("enable crowd%d", n))
		drop := f.hearsWithin(t, limit, "a packet of the last rule", func(e api.Event) bool { return e.Drop != nil && e.Drop.Filter == "tor: "+clientRule })
		told := f.toldOf(t, limit, api.FilterAdded, n)
		first, all := drop.Time.Sub(begin), told.Sub(begin)
		begin = time.Now()
		s.bird.do(fmt.Sprintf("disable crowd%d", n))
		gone := f.toldOf(t, limit, api.FilterRemoved, n).Sub(begin)
		f.stop()
		t.Logf("%d rules: the last one drops after %v, all are told after %v, all are gone after %v", n, first, all, gone)
	}
}

// toldOf waits until the monitor has told something of n filters, and says when.
func (f *follower) toldOf(t *testing.T, limit time.Duration, what string, n int) (last time.Time) {
	t.Helper()
	within(t, limit, func() error {
		got := 0
		for _, e := range f.events() {
			if e.Filter != nil && e.Text == what {
				got, last = got+1, e.Time
			}
		}
		if got != n {
			return fmt.Errorf("%d filters are %s, want %d", got, what, n)
		}
		return nil
	})
	return last
}

// knocks has the client send a datagram every two milliseconds until the result is called.
func (s *site) knocks(server netip.AddrPort) (end func()) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	conn, err := s.Client.Dial(ctx, "udp", server.String())
	if err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer conn.Close()
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			_, _ = conn.Write([]byte("knock")) // that nobody listens may be told here
			<-tick.C
		}
	}()
	return func() {
		cancel()
		<-ended
	}
}
